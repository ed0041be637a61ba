"""From a training checkpoint to a folder that the rest of the world loads, one tensor at a time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from starcoder import tokenizer as tokenizers
from starcoder.distributed import Part
from starcoder.errors import UserError, one_line
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import gguf as ggufs
from starcoder.release import golden as goldens
from starcoder.release.folder import check_shapes, read_config, read_weights, write_model
from starcoder.release.target import model_folder
from starcoder.release.weights import DTYPES, Weights
from starcoder.tokenizer import Tokenizer
from starcoder.training.checkpoint import newest, open_weights, read_meta

GGUF_FILE = "model.gguf"


def export(
    checkpoint: Path,
    tokenizer: Path | None = None,
    output: Path | None = None,
    out: Path | None = None,
    dtype: str | None = None,
    max_shard_size: str = "5GB",
    golden: bool = True,
    gguf: bool = False,
    gguf_dtype: str | None = None,
) -> None:
    """Save the model of a checkpoint and its tokenizer as a `gpt_bigcode` folder, holding one tensor at a time.

    Args:
        checkpoint: folder of a checkpoint of `starcoder fit`, sharded over any number of ranks; a folder of several, of
            which the newest is taken; one file of Lightning's; or a folder such as this writes, in another dtype say.
        tokenizer: folder of the tokenizer that the model was trained with; by default a folder `tokenizer` above the
            checkpoint, if it is that very one.
        output: folder to write.
        out: another spelling of `output`.
        dtype: float32, bfloat16 or float16; as stored when not given.
        max_shard_size: largest size of a safetensors file.
        golden: whether to write golden.json, the answers that `starcoder verify` compares with.
        gguf: whether to write model.gguf too, which llama.cpp reads.
        gguf_dtype: that of its matrices; as for `dtype` when not given.

    Raises:
        UserError: when an input is missing or damaged, or the tokenizer is not the model's.
    """
    target = output or out
    if target is None:
        raise UserError("name the folder to write: --out DIR")
    trained = open_trained(checkpoint)
    vocabulary = _vocabulary(trained, tokenizer)
    stored = trained.weights.specs["transformer.wte.weight"].dtype
    chosen = _dtype("dtype", dtype, stored)
    if gguf:
        ggufs.check(trained.config)
    with model_folder(target) as partial:
        write_model(partial, trained.config, trained.weights, chosen, max_shard_size)
        vocabulary.save(partial)
        if golden:
            goldens.write(partial, vocabulary)
        if gguf:
            kind = _dtype("gguf_dtype", gguf_dtype, chosen)
            ggufs.write(partial / GGUF_FILE, trained.config, trained.weights, vocabulary, kind)
    if gguf and trained.config.activation == "gelu":
        print(f"{target / GGUF_FILE}: llama.cpp computes GELU by tanh, so that its logits differ a little")


def _dtype(option: str, name: str | None, default: torch.dtype) -> torch.dtype:
    if name is not None and name not in DTYPES:
        raise UserError(f"{option} is {name!r}, none of {', '.join(DTYPES)}")
    return DTYPES[name] if name else default


@dataclass(frozen=True)
class Trained:
    """A trained model, none of whose weights are in memory.

    Args:
        path: where it lies.
        config: its shape.
        weights: what reads its weights.
        tokenizer: digest of the tokenizer it was trained with, if known.
    """

    path: Path
    config: StarCoderConfig
    weights: Weights
    tokenizer: str | None


def open_trained(checkpoint: Path) -> Trained:
    """Find the model in a checkpoint, the newest one of a folder of checkpoints, or a folder that was exported.

    Raises:
        UserError: when there is none, or it is damaged, or not of this kit's training.
    """
    path = newest(checkpoint) or checkpoint
    if (path / "config.json").is_file():
        config = read_config(path)
        return Trained(path, config, read_weights(path, config), None)
    meta, weights = _one_file(path) if path.is_file() else _sharded(path)
    if meta.get("model_config") is None or not weights.specs:
        raise UserError(f"{path} is no checkpoint of this kit's training")
    complaint = f"{path} does not fit this version of the kit"
    try:
        config = StarCoderConfig(**meta["model_config"])
    except TypeError as error:
        raise UserError(f"{complaint}: {one_line(error)}") from None
    with torch.device("meta"):
        check_shapes(StarCoder(config), weights, complaint)
    return Trained(path, config, weights, meta.get("tokenizer"))


_PREFIX = "model."


def _sharded(path: Path) -> tuple[dict[str, Any], Weights]:
    meta = read_meta(path)
    specs, read = open_weights(path)
    ours = {name.removeprefix(_PREFIX): spec for name, spec in specs.items() if name.startswith(_PREFIX)}
    return meta, Weights(ours, lambda name, part: read(_PREFIX + name)[part])


def _one_file(path: Path) -> tuple[dict[str, Any], Weights]:
    def content() -> dict[str, Any]:
        try:
            found: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
            return {"state_dict": {}} | found
        except Exception as error:  # torch and pickle raise what they stumble over
            raise UserError(f"{path} is damaged, or no checkpoint: {one_line(error)}") from None

    def read_part(name: str, part: Part) -> torch.Tensor:
        tensor: torch.Tensor = content()["state_dict"][_PREFIX + name][part]
        return tensor

    meta = content()
    specs = {
        name.removeprefix(_PREFIX): tensor.to("meta")
        for name, tensor in meta.pop("state_dict").items()
        if name.startswith(_PREFIX)
    }
    return meta, Weights(specs, read_part)


def _vocabulary(trained: Trained, folder: Path | None) -> Tokenizer:
    """The tokenizer in `folder`, or the one that the model was trained with if it lies where runs keep it."""
    found = folder or (trained.path if (trained.path / "tokenizer.json").is_file() else _beside(trained))
    vocabulary = tokenizers.load(found)
    if trained.tokenizer and vocabulary.digest != trained.tokenizer:
        raise UserError(f"{trained.path} was trained with another tokenizer than {found}: name that with --tokenizer")
    if vocabulary.vocab_size > (size := trained.config.vocab_size):
        raise UserError(f"{found} has {vocabulary.vocab_size} tokens, the model only {size}")
    return vocabulary


def _beside(trained: Trained) -> Path:
    for above in list(trained.path.absolute().parents)[:4]:
        folder = above / "tokenizer"
        if (folder / "tokenizer.json").is_file() and tokenizers.load(folder).digest == trained.tokenizer:
            return folder
    raise UserError(f"name the tokenizer that {trained.path} was trained with: --tokenizer FOLDER")
