"""Checkpoints as transformers' `gpt_bigcode` folders: ours load there, and the released weights load here.

config.json              the shape, in transformers' words
generation_config.json   begin and end tokens
model*.safetensors       the state dict under its own names, in shards of at most 5 GB, with an index
tokenizer.json, …        the tokenizer's files, when one is given

Whatever the size of a file, reading and writing take the memory of the model, if at all, and of one tensor.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from huggingface_hub import snapshot_download

from starcoder.distributed import fill
from starcoder.errors import UserError
from starcoder.hub import check_revision, fetching
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.quantization import quantize
from starcoder.release.quirks import plain_config
from starcoder.release.target import MARKER, model_folder
from starcoder.release.weights import Weights, in_folder, in_memory, shard_bytes, write
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

    A model that is there already is replaced as a whole, once the new one is complete; see
    `starcoder.release.target.model_folder`.

    Raises:
        UserError: when something else is there.
    """
    weights = in_memory(model.state_dict())
    dtype = next(iter(weights.specs.values())).dtype
    with model_folder(folder) as partial:
        write_model(partial, model.config, weights, dtype)
        if tokenizer is not None:
            tokenizer.save(partial)


def write_model(
    folder: Path, config: StarCoderConfig, weights: Weights, dtype: torch.dtype, max_shard_size: int | None = None
) -> None:
    """Write configuration and weights into an empty folder; see `starcoder.release.weights.write`."""
    _write_json(folder / "config.json", to_transformers(config, dtype))
    _write_json(folder / MARKER, {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0})
    write(weights, folder, dtype, max_shard_size or shard_bytes(MAX_SHARD_SIZE))


def load(
    model_class: type[M],
    source: str | Path,
    dtype: torch.dtype | None = None,
    revision: str | None = None,
    **changes: Any,
) -> M:
    """Read a model from a folder, or from a Hub repository of that name.

    Args:
        model_class: `StarCoder` or a subclass.
        source: the folder, or `owner/name` on the Hub.
        dtype: what the weights are converted to; as stored when not given. int8 is for CPU; see
            `starcoder.quantization`.
        revision: branch, tag or commit of the repository; main when not given.
        changes: fields of the configuration that differ from the folder's, such as `dropout`.

    Raises:
        UserError: when there is no such folder, or it holds no multi-query `gpt_bigcode`, or its weights are damaged.
    """
    folder = local_folder(source, revision=revision)
    config = read_config(folder).replace(**changes)
    with torch.device("meta"):
        model = model_class(config)
    weights = _fitting(model, folder)
    precise = torch.float32 if dtype == torch.int8 else dtype
    model.to(precise or weights.specs["transformer.wte.weight"].dtype).to_empty(device="cpu")
    _fill(model, weights)
    return quantize(model) if dtype == torch.int8 else model


def load_weights(model: StarCoder, folder: Path) -> None:
    """Read the weights in `folder` into `model`; of a sharded one each process reads its own part alone.

    Raises:
        UserError: when the weights are missing, damaged, or of another shape; `model` may then be half read.
    """
    _fill(model, _fitting(model, folder))


def _fill(model: StarCoder, weights: Weights) -> None:
    for name, parameter in model.named_parameters():
        fill(parameter, lambda part, name=name: weights.read_part(name, part))  # type: ignore[misc]


def read_weights(folder: Path, config: StarCoderConfig) -> Weights:
    """The weights in `folder`, none of them read yet.

    Raises:
        UserError: when they are missing, damaged, or of another shape than `config`.
    """
    with torch.device("meta"):
        return _fitting(StarCoder(config), folder)


def _fitting(model: StarCoder, folder: Path) -> Weights:
    weights = in_folder(folder, model.config.n_embd)
    check_shapes(model, weights, f"the weights in {folder} do not fit its config.json")
    return weights


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
    raw = plain_config(raw)
    for key, value in _FIXED.items():
        if raw.get(key, value) != value:
            raise UserError(f"this kit has no model with {key} = {raw[key]!r}, only {value!r}")
    if missing := _NAMES.values() - raw.keys():
        raise UserError(f"the keys {', '.join(sorted(missing))} are missing")
    dropouts = [raw.get(key, 0.1) for key in _DROPOUTS]
    if dropouts.count(dropouts[0]) < len(dropouts):
        raise UserError(f"{', '.join(_DROPOUTS)} differ, but this kit's model has one dropout")
    return StarCoderConfig(dropout=dropouts[0], **{ours: raw[theirs] for ours, theirs in _NAMES.items()})


def local_folder(source: str | Path, *more: str, revision: str | None = None) -> Path:
    """`source` itself when it is a folder, otherwise a local copy of the Hub repository of that name.

    Args:
        source: the folder, or `owner/name` on the Hub.
        more: patterns of files that are wanted besides model, tokenizer and card, which names the licence.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when it is neither, the Hub does not give it, or a folder shall have a revision.
    """
    folder = Path(source)
    if folder.is_dir():
        check_revision(source, revision)
        return folder
    wanted = ["*.json", "*.safetensors", "*.txt", "README.md", *more]
    with fetching(source):
        fetched = Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
        if not any(fetched.glob("*.safetensors")):
            wanted.append("pytorch_model*.bin")
            fetched = Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
    return fetched


def check_shapes(model: StarCoder, weights: Weights, complaint: str) -> None:
    """Refuse weights of another shape than the model's.

    Raises:
        UserError: `complaint`, then the first of the differences.
    """
    expected, found = (
        {name: tuple(each.shape) for name, each in tensors}
        for tensors in (model.named_parameters(), weights.specs.items())
    )
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        name = wrong[0]
        raise UserError(
            f"{complaint} in {len(wrong)} places, first {name}: "
            f"{found.get(name, 'missing')} instead of {expected.get(name, 'nothing')}"
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
