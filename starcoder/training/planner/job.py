"""What a recipe asks for: the model, the batch, the number of steps and the layout."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from starcoder.errors import UserError
from starcoder.model import PRESETS, StarCoderConfig
from starcoder.training.parallel import Checkpointing
from starcoder.training.planner.trace import Layout
from starcoder.training.recipe import merged

_LAYOUT_KEYS = ("checkpointing", "compile_blocks", "reshard_after_forward", "reduce_every_batch")


@dataclass(frozen=True)
class Job:
    """A run to plan.

    Attributes:
        name: of the recipe.
        config: shape of the model.
        length: tokens of a sequence.
        global_batch: sequences of an optimizer step.
        steps: optimizer steps.
        nodes: machines.
        per_node: GPUs of each.
        layout: the recipe's own; none where its shard size or its micro-batch do not go with so many GPUs, or where it
            does not compute in bf16, which is what is planned.
    """

    name: str
    config: StarCoderConfig
    length: int
    global_batch: int
    steps: int
    nodes: int
    per_node: int
    layout: Layout | None

    @property
    def ranks(self) -> int:
        """GPUs in all."""
        return self.nodes * self.per_node

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.global_batch * self.length


def read_job(
    recipe: Path,
    nodes: int | None = None,
    gpus: int | None = None,
    preset: str | None = None,
    context_length: int | None = None,
) -> Job:
    """What `recipe` (a file, or the name of one in `recipes/`) trains, on `nodes` machines of `gpus` each.

    What is given here stands in for the recipe's own `model.preset` and `data.context_length`.

    Raises:
        UserError: when there is no such recipe, it is none of a language model, or a key is missing or cannot be.
    """
    path = Path("recipes", f"{recipe}.yaml") if recipe.name == str(recipe) and not recipe.suffix else recipe
    keys = _read(path)
    if (kind := keys.get("architecture", "starcoder")) != "starcoder":
        raise UserError(f"{path} trains a {kind}, but only the language model is planned: name a recipe of that")
    model, data, trainer = (_part(path, keys, name) for name in ("model", "data", "trainer"))
    model |= {"preset": preset} if preset else {}
    data |= {"context_length": context_length} if context_length is not None else {}
    nodes = _count("--nodes", trainer.get("num_nodes", 1) if nodes is None else nodes)
    per_node = _count("--gpus", trainer.get("devices", 1) if gpus is None else gpus)
    ranks = nodes * per_node
    config = _config(path, model)
    length = _count(f"{path}: data.context_length", data.get("context_length"))
    if length > config.context_length:
        raise UserError(f"{path}: data.context_length {length} is beyond the model's {config.context_length}")
    micro_batch = _count(f"{path}: data.batch_size", data.get("batch_size", 1))
    accumulated = micro_batch * ranks * trainer.get("accumulate_grad_batches", 1)
    global_batch = _count(f"{path}: data.global_batch_size", data.get("global_batch_size") or accumulated)
    return Job(
        name=path.stem,
        config=config,
        length=length,
        global_batch=global_batch,
        steps=_count(f"{path}: trainer.max_steps", trainer.get("max_steps")),
        nodes=nodes,
        per_node=per_node,
        layout=_layout(path, trainer.get("strategy"), ranks, micro_batch, global_batch),
    )


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in Path("recipes").glob("*.yaml"))) or "none"
        raise UserError(f"no recipe {path}; recipes/ has {known}")
    return merged(path)


def _part(path: Path, values: dict[str, Any], name: str) -> dict[str, Any]:
    part = values.get(name) or {}
    if not isinstance(part, dict):
        raise UserError(f"{path}: {name} has no keys")
    return part


def _count(name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{name} is {'not given' if value is None else repr(value)}: give a number of 1 or more")
    return value


def _config(path: Path, model: dict[str, Any]) -> StarCoderConfig:
    source, preset, overrides = model.get("init_from"), model.get("preset"), model.get("overrides") or {}
    if source and not preset and Path(source).is_dir():
        return StarCoderConfig.from_pretrained(source, **overrides)
    # of a folder that is not there yet, and of a Hub repository, the name may tell the shape
    name = preset or (Path(source).name if source else "starcoderbase")
    if name not in PRESETS:
        raise UserError(f"{path}: no shape is known for {name!r}: set model.preset to one of {', '.join(PRESETS)}")
    return StarCoderConfig.preset(name, **overrides)


def _layout(path: Path, strategy: Any, ranks: int, micro_batch: int, global_batch: int) -> Layout | None:
    how = strategy.get("init_args") or {} if isinstance(strategy, dict) else {}
    shard_size = _count(f"{path}: strategy: shard_size", how.get("shard_size") or ranks)
    chosen = {key: how[key] for key in _LAYOUT_KEYS if key in how}
    checkpointing = chosen.get("checkpointing", "none")
    if checkpointing not in get_args(Checkpointing):
        known = ", ".join(get_args(Checkpointing))
        raise UserError(f"{path}: strategy: checkpointing is {checkpointing!r}, none of {known}")
    in_bf16 = how.get("param_dtype") in ("bfloat16", "auto")
    if ranks % shard_size or global_batch % (micro_batch * ranks) or not in_bf16:
        return None
    accumulation = global_batch // (micro_batch * ranks)
    return Layout(ranks, shard_size, micro_batch=micro_batch, accumulation=accumulation, **chosen)
