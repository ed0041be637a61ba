"""From a training checkpoint to a folder that the rest of the world loads, one tensor at a time."""

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from starcoder import tokenizer as tokenizers
from starcoder.distributed import Part
from starcoder.errors import UserError, one_line
from starcoder.hub import check_revision, is_repository
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release import gguf as ggufs
from starcoder.release import golden as goldens
from starcoder.release.client import size_of
from starcoder.release.contents import CARD
from starcoder.release.folder import check_shapes, local_folder, read_config, read_weights, write_model
from starcoder.release.licences import front_matter
from starcoder.release.readers import CTRANSLATE2_EPSILON
from starcoder.release.target import MARKER, model_folder
from starcoder.release.weights import DTYPES, Weights, shard_bytes
from starcoder.tokenizer import EOD, Tokenizer
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
    revision: str | None = None,
) -> None:
    """Save the model of a checkpoint and its tokenizer as a `gpt_bigcode` folder, holding one tensor at a time.

    The checkpoint of an encoder becomes a `bert` folder, as it is.

    Args:
        checkpoint: folder of a checkpoint of `starcoder fit`, sharded over any number of ranks; a folder of several, of
            which the newest is taken; one file of Lightning's; or a folder such as this writes, in another dtype say,
            here or as OWNER/NAME on the Hub.
        tokenizer: folder of the tokenizer that the model was trained with; by default a folder `tokenizer` above the
            checkpoint, if it is that very one.
        output: folder to write; a model that was written there before is replaced, and nothing else.
        out: another spelling of `output`.
        dtype: float32, bfloat16 or float16; as stored when not given.
        max_shard_size: largest size of a safetensors file.
        golden: whether to write golden.json, the answers that `starcoder verify` compares with.
        gguf: whether to write model.gguf too, which llama.cpp reads.
        gguf_dtype: that of its matrices; as for `dtype` when not given.
        revision: branch, tag or commit of the repository; main when not given.

    Raises:
        UserError: when an input is missing or damaged, the tokenizer is not the model's, or something else is in the
            folder to write.
    """
    target = _target(output, out)
    if gguf_dtype is not None and not gguf:
        raise UserError(f"--gguf_dtype {gguf_dtype} without --gguf: say both, or neither")
    source = _here(checkpoint, revision)
    if _is_encoder(source):
        if tokenizer is None or dtype or gguf:
            raise UserError(f"{source} is of an encoder: name its --tokenizer, and leave out --dtype and --gguf")
        from starcoder.pii.encoder import save_encoder

        save_encoder(source, tokenizers.load(tokenizer), target)
        return
    trained = open_trained(source)
    vocabulary = _vocabulary(trained, tokenizer)
    chosen = _dtype("dtype", dtype, trained.weights.specs["transformer.wte.weight"].dtype)
    kind = _dtype("gguf_dtype", gguf_dtype, chosen if chosen in DTYPES.values() else torch.float32)
    shard_size = shard_bytes(max_shard_size)
    had_card = (target / CARD).is_file()
    with model_folder(target) as partial:
        if gguf:  # what it cannot express ends everything at once
            about = ggufs.About(target.resolve().name, _licence(trained.path))
            ggufs.write(partial / GGUF_FILE, trained.config, trained.weights, vocabulary, kind, about)
        write_model(partial, trained.config, trained.weights, chosen, shard_size)
        vocabulary.save(partial)
        if golden:
            goldens.write(partial, vocabulary)
    _tell(target, trained.config, gguf)
    if had_card:
        print(f"the card was of the model before, and went with it: starcoder card {target} writes another")


def _target(output: Path | None, out: Path | None) -> Path:
    target = output or out
    if target is None:
        raise UserError("name the folder to write: --output DIR")
    if output and out:
        raise UserError(f"--output {output} and --out {out} are the same option: say one of them")
    return target


def _here(checkpoint: Path, revision: str | None) -> Path:
    """What lies here under that name or, where nothing does and it is OWNER/NAME, a copy of the Hub's repository."""
    if not checkpoint.exists() and is_repository(checkpoint):
        return local_folder(checkpoint, revision=revision)
    check_revision(checkpoint, revision)
    return checkpoint


def _is_encoder(checkpoint: Path) -> bool:
    """Whether it is one of StarEncoder's; whatever is wrong with it, others tell."""
    with suppress(UserError):
        return "model_type" in (read_meta(newest(checkpoint) or checkpoint).get("model_config") or {})
    return False


def _licence(folder: Path) -> str | None:
    """What the model card says that lies in a folder, if one does."""
    card = folder / CARD
    metadata = front_matter(card) if card.is_file() else {}
    licence = metadata.get("license_name") if metadata.get("license") == "other" else metadata.get("license")
    return licence if isinstance(licence, str) else None


def _tell(folder: Path, config: StarCoderConfig, gguf: bool) -> None:
    """Say what was written, and which programs would misread it: transformers does not, so it is no mistake."""
    sizes = [path.stat().st_size for path in folder.iterdir()]
    print(f"wrote {folder}: {config.n_params:,} parameters, {size_of(sum(sizes))} in {len(sizes)} files")
    if gguf and config.activation == "gelu":
        print(f"{folder / GGUF_FILE}: llama.cpp computes GELU by tanh, so that its logits differ a little")
    if (epsilon := config.layer_norm_epsilon) != CTRANSLATE2_EPSILON:
        print(f"CTranslate2 would misread it: layer_norm_epsilon is {epsilon}, there always {CTRANSLATE2_EPSILON}")
    if config.inner != (usual := 4 * config.n_embd):
        print(f"llama.cpp would misread it: n_inner is {config.inner}, there always 4 · n_embd = {usual}")


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
        _check_ends(path)
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


def _check_ends(folder: Path) -> None:
    """Refuse a model whose documents end with another token than 0, the end that every folder of ours names."""
    for path in (folder / "config.json", folder / MARKER):
        try:
            raw = json.loads(path.read_bytes()) if path.is_file() else {}
            ends = {key: raw.get(key) for key in ("bos_token_id", "eos_token_id")}
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {one_line(error)}") from None
        for key, end in ends.items():
            if end not in (None, EOD, [EOD]):
                raise UserError(
                    f"{path}: {key} is {end}, but every folder written here has {EOD}: write that there if token {EOD} "
                    "is the end of this model's documents; another one cannot be exported"
                )


_PREFIX = "model."


def _sharded(path: Path) -> tuple[dict[str, Any], Weights]:
    meta = read_meta(path)
    specs, read = open_weights(path)
    ours = {name.removeprefix(_PREFIX): spec for name, spec in specs.items() if name.startswith(_PREFIX)}
    return meta, Weights(ours, lambda name, part: read(_PREFIX + name)[part])


def _one_file(path: Path) -> tuple[dict[str, Any], Weights]:
    def content() -> dict[str, Any]:
        found: dict[str, Any] = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        return {"state_dict": {}} | found

    def read_part(name: str, part: Part) -> torch.Tensor:
        tensor: torch.Tensor = content()["state_dict"][_PREFIX + name][part]
        return tensor

    try:
        meta = content()
        specs = {
            name.removeprefix(_PREFIX): tensor.to("meta")
            for name, tensor in meta.pop("state_dict").items()
            if name.startswith(_PREFIX)
        }
    except Exception as error:  # torch and pickle raise what they stumble over
        raise UserError(f"{path} is damaged, or no checkpoint: {one_line(error)}") from None
    return meta, Weights(specs, read_part)


def _vocabulary(trained: Trained, folder: Path | None) -> Tokenizer:
    """The tokenizer in `folder`, or the one that the model was trained with if it lies where runs keep it."""
    if folder and not folder.is_dir():
        raise UserError(f"there is no folder {folder}: --tokenizer names that of the model's tokenizer")
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
        with suppress(UserError):  # somebody else's
            if (folder / "tokenizer.json").is_file() and tokenizers.load(folder).digest == trained.tokenizer:
                return folder
    raise UserError(f"name the tokenizer that {trained.path} was trained with: --tokenizer FOLDER")
