"""Checkpoints as transformers' `gpt_bigcode` folders: ours load there, and the released weights load here.

config.json              the shape, in transformers' words
generation_config.json   begin and end tokens
model*.safetensors       the state dict under its own names, in shards of at most 5 GB
tokenizer.json, …        the tokenizer's files, when one is given
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import save_torch_state_dict, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from starcoder.distributed import fill
from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.storage import atomic_folder
from starcoder.tokenizer import Tokenizer

M = TypeVar("M", bound=StarCoder)

MAX_SHARD_SIZE = "5GB"
_NAMES = {  # ours: transformers'
    "vocab_size": "vocab_size",
    "context_length": "n_positions",
    "n_layer": "n_layer",
    "n_head": "n_head",
    "n_embd": "n_embd",
    "n_inner": "n_inner",
    "activation": "activation_function",
    "layer_norm_epsilon": "layer_norm_epsilon",
    "init_std": "initializer_range",
}
_DROPOUTS = ("resid_pdrop", "embd_pdrop", "attn_pdrop")
_FIXED = {"model_type": "gpt_bigcode", "multi_query": True, "scale_attn_weights": True, "tie_word_embeddings": True}


def save(model: StarCoder, folder: Path, tokenizer: Tokenizer | None = None) -> None:
    """Write `model`, and `tokenizer` when given, as a folder that `AutoModelForCausalLM.from_pretrained` loads.

    A model that is there already is replaced as a whole, once the new one is complete.

    Raises:
        UserError: when something else than a model is there.
    """
    state = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    dtype = next(iter(state.values())).dtype
    with atomic_folder(folder, marker="generation_config.json") as partial:
        _write_json(partial / "config.json", to_transformers(model.config, dtype))
        _write_json(partial / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0})
        save_torch_state_dict(state, partial, max_shard_size=MAX_SHARD_SIZE)
        for file in partial.glob("*.safetensors"):
            file.chmod((partial / "config.json").stat().st_mode)  # safetensors lets nobody else read
        if tokenizer is not None:
            tokenizer.save(partial)


def load(model_class: type[M], source: str | Path, dtype: torch.dtype | None = None, **changes: Any) -> M:
    """Read a model from a folder, or from a Hub repository of that name.

    Args:
        model_class: `StarCoder` or a subclass.
        source: the folder, or `owner/name` on the Hub.
        dtype: what the weights are converted to; as stored when not given.
        changes: fields of the configuration that differ from the folder's, such as `dropout`.

    Raises:
        UserError: when there is no such folder, or it holds no multi-query `gpt_bigcode`, or its weights are damaged.
    """
    folder = local_folder(source)
    config = read_config(folder).replace(**changes)
    with torch.device("meta"):
        model = model_class(config)
    model.to(dtype or _stored_dtype(folder)).to_empty(device="cpu")
    load_weights(model, folder)
    return model


def load_weights(model: StarCoder, folder: Path) -> None:
    """Read the weights in `folder` into `model`; of a sharded one each process reads its own part alone.

    Raises:
        UserError: when the weights are missing, damaged, or of another shape; `model` may then be half read.
    """
    found = _shapes(folder)
    _check_shapes(model, found, folder)
    parameters = dict(model.named_parameters())
    for file in _weight_files(folder):
        with _open_weights(file) as weights:
            for name in parameters.keys() & weights.keys():
                fill(parameters[name], weights.get_slice(name).__getitem__)


def read_config(folder: Path) -> StarCoderConfig:
    """Read config.json of a `gpt_bigcode` folder.

    Raises:
        UserError: when it is missing or damaged, or describes another kind of model.
    """
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise UserError(f"{folder} holds no model: config.json is missing") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    try:
        return from_transformers(raw)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def to_transformers(config: StarCoderConfig, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Our configuration in the words of transformers' `GPTBigCodeConfig`."""
    explicit = config.replace(n_inner=config.inner, init_std=config.std)
    return {
        "architectures": ["GPTBigCodeForCausalLM"],
        **_FIXED,
        **{theirs: getattr(explicit, ours) for ours, theirs in _NAMES.items()},
        **dict.fromkeys(_DROPOUTS, config.dropout),
        "attention_softmax_in_fp32": True,
        "scale_attention_softmax_in_fp32": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "use_cache": True,
        "torch_dtype": str(dtype).removeprefix("torch."),
    }


def from_transformers(raw: Mapping[str, Any]) -> StarCoderConfig:
    """The inverse of `to_transformers`.

    Raises:
        UserError: for another architecture, a missing key, or a value that cannot be.
    """
    if not isinstance(raw, Mapping) or "model_type" not in raw:
        raise UserError("no configuration of a model")
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise UserError(f"this kit has no model with {key} = {raw[key]!r}, only {value!r}")
    if missing := _NAMES.values() - raw.keys():
        raise UserError(f"the keys {', '.join(sorted(missing))} are missing")
    dropouts = [raw.get(key, 0.1) for key in _DROPOUTS]
    if dropouts.count(dropouts[0]) < len(dropouts):
        raise UserError(f"{', '.join(_DROPOUTS)} differ, but this kit's model has one dropout")
    return StarCoderConfig(dropout=dropouts[0], **{ours: raw[theirs] for ours, theirs in _NAMES.items()})


def local_folder(source: str | Path) -> Path:
    """`source` itself when it is a folder, otherwise a local copy of the Hub repository of that name.

    Raises:
        UserError: when it is neither.
    """
    folder = Path(source)
    if folder.is_dir():
        return folder
    try:
        return Path(snapshot_download(str(source), allow_patterns=["*.json", "*.safetensors", "*.txt"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{source} is neither a folder nor a repository that the Hub gives: {reason}") from None


def _weight_files(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(f"{folder} holds no *.safetensors weights")
    return files


@contextmanager
def _open_weights(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file} is damaged: {error}") from None


def _stored_dtype(folder: Path) -> torch.dtype:
    with _open_weights(_weight_files(folder)[0]) as weights:
        dtype: torch.dtype = weights.get_slice(next(iter(weights.keys())))[:0].dtype
    return dtype


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the stored parameters by name; the head is the token table once more."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in _weight_files(folder):
        with _open_weights(file) as weights:
            shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
    shapes.pop("lm_head.weight", None)
    return shapes


def _check_shapes(model: StarCoder, found: Mapping[str, tuple[int, ...]], folder: Path) -> None:
    expected = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"the weights in {folder} do not fit its config.json in {len(wrong)} places, first {name}: "
            f"{found.get(name, 'missing')} instead of {expected.get(name, 'nothing')}"
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
