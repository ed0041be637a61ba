"""Weights that are read and written one tensor at a time: to copy a model, nobody needs to hold it.

    folder, checkpoint or model ──► Weights ──► parameters, safetensors shards or a GGUF file

A file is opened anew for each tensor: what is mapped of it counts as memory in use until it is closed.
"""

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import safe_open
from torch import Tensor

from starcoder.distributed import Part, local_part
from starcoder.errors import UserError, one_line
from starcoder.release.quirks import HEAD, origins

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_SAFETENSORS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}
_NAMES = {dtype: name for name, dtype in _SAFETENSORS.items()}
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_INDEX = ".index.json"
_FORMATS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Weights:
    """A model's tensors, under the names that `StarCoder` has for them.

    Args:
        specs: each without its content, on `meta`.
        read_part: reads a part of one.
    """

    specs: Mapping[str, Tensor]
    read_part: Callable[[str, Part], Tensor]

    def read(self, name: str) -> Tensor:
        """All of one tensor."""
        return self.read_part(name, local_part(self.specs[name]))

    def read_as(self, name: str, dtype: torch.dtype) -> Tensor:
        """All of one tensor, whose numbers are those of another type.

        Raises:
            UserError: when it holds a number that `dtype` has not, or none.
        """
        tensor = self.read(name).to(dtype)
        if not all(
            end.isfinite() for end in tensor.aminmax()
        ):  # NaN is both; `tensor.isfinite()` takes a copy's memory
            raise UserError(f"{name} holds values that are no finite numbers in {str(dtype).removeprefix('torch.')}")
        return tensor.contiguous()


def in_memory(state: Mapping[str, Tensor]) -> Weights:
    """The tensors of a state dict that this process holds."""
    specs = {name: tensor.to("meta") for name, tensor in state.items()}
    return Weights(specs, lambda name, part: state[name].detach()[part].cpu())


def in_folder(folder: Path, n_embd: int) -> Weights:
    """The weights that a folder holds as safetensors or, if it has none, as what `torch.save` wrote.

    Args:
        folder: a model's.
        n_embd: its width, by which matrices that lie transposed are known.

    Raises:
        UserError: when there are none, one of their files is missing or damaged, a weight is quantised, or the head is
            not the token table.
    """
    files: dict[str, Path] = {}
    stored: dict[str, Tensor] = {}
    for file in _files(folder):
        specs = _specs(file)
        stored |= specs
        files |= dict.fromkeys(specs, file)
    found = origins(stored, n_embd)
    for name in (name for origin in found.values() for name in origin.names):
        if name in stored and stored[name].dtype not in _NAMES:
            raise UserError(
                f"{files[name]}: {name} holds no floating-point numbers of 16 to 64 bits, as quantised weights do not: "
                "fetch the weights that they were made of"
            )

    def read_part(name: str, part: Part) -> Tensor:
        origin = found[name]
        if len(origin.names) == 1 and not origin.transposed:
            return _read(files[origin.names[0]], origin.names[0], part)
        return origin.assemble(lambda each: _read(files[each], each, local_part(stored[each])))[part]

    try:
        weights = Weights({name: origin.assemble(stored.__getitem__) for name, origin in found.items()}, read_part)
    except (KeyError, RuntimeError) as error:
        raise UserError(f"the weights in {folder} are incomplete: {one_line(error)}") from None
    table = found.get("transformer.wte.weight")
    if HEAD in stored and table and HEAD not in table.names:
        _check_tied(weights.read("transformer.wte.weight"), _read(files[HEAD], HEAD, local_part(stored[HEAD])), folder)
    return weights


def _check_tied(table: Tensor, head: Tensor, folder: Path) -> None:
    if not torch.equal(table, head):
        raise UserError(f"{folder}: lm_head.weight differs from the token table, but this kit's model has only one")


def write(weights: Weights, folder: Path, dtype: torch.dtype, max_shard_size: int) -> None:
    """Write safetensors of at most so many bytes, with an index when there are several; hold one tensor at a time.

    Raises:
        UserError: when a tensor holds what `dtype` has no number for.
    """
    specs = {name: spec.to(dtype) for name, spec in weights.specs.items()}
    plan = split_torch_state_dict_into_shards(specs, max_shard_size=max_shard_size)
    for file, names in plan.filename_to_tensors.items():
        with (folder / file).open("wb") as out:
            out.write(_header({name: specs[name] for name in names}))
            for name in names:
                # numpy has no bfloat16, but bytes
                out.write(weights.read_as(name, dtype).flatten().view(torch.uint8).numpy().data)
    if plan.is_sharded:
        index = {"metadata": plan.metadata, "weight_map": plan.tensor_to_filename}
        (folder / (_FORMATS[0] + _INDEX)).write_text(json.dumps(index, indent=2) + "\n")


def shard_bytes(size: str) -> int:
    """A size such as "5GB" in bytes.

    Raises:
        UserError: when it is no positive size.
    """
    number, unit = size.strip()[:-2], size.strip()[-2:].upper()
    try:
        n_bytes = int(float(number) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        n_bytes = 0
    if n_bytes <= 0:
        raise UserError(f"max_shard_size is {size!r}, no size such as 5GB or 500MB")
    return n_bytes


def _header(specs: Mapping[str, Tensor]) -> bytes:
    """What a safetensors file begins with: the length of a JSON object, and the object."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, spec in specs.items():
        entries[name] = {
            "dtype": _NAMES[spec.dtype],
            "shape": list(spec.shape),
            "data_offsets": [start, start + spec.nbytes],
        }
        start += spec.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # numbers begin where a processor likes them to
    return struct.pack("<Q", len(text)) + text


def _files(folder: Path) -> list[Path]:
    """The files that hold the weights, by the index where there is one."""
    for whole in _FORMATS:
        index = folder / (whole + _INDEX)
        if index.is_file():
            return _indexed(index)
        if (folder / whole).is_file():
            return [folder / whole]
        if found := sorted(folder.glob(whole.replace(".", "*."))):
            return found
    raise UserError(f"{folder} holds no *.safetensors weights, nor pytorch_model.bin")


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        files = [index.parent / Path(name).name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{index} is damaged: {one_line(error)}") from None
    if missing := [file.name for file in files if not file.is_file()]:
        raise UserError(f"{index.parent} lacks {', '.join(missing)}, which its index names: fetch the folder again")
    return files


def _specs(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".bin":
        with _damaged(file):
            return {name: tensor.to("meta") for name, tensor in _unpickled(file).items()}
    with _damaged(file), safe_open(file, framework="pt") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
        return {
            name: torch.empty(each.get_shape(), dtype=_SAFETENSORS.get(each.get_dtype(), torch.uint8), device="meta")
            for name, each in slices.items()
        }


def _read(file: Path, name: str, part: Part) -> Tensor:
    if file.suffix == ".bin":
        with _damaged(file):
            return _unpickled(file)[name][part]
    with _damaged(file), safe_open(file, framework="pt") as tensors:
        tensor: Tensor = tensors.get_slice(name)[part]
        return tensor


def _unpickled(file: Path) -> dict[str, Tensor]:
    """Tensors that `torch.save` wrote, mapped rather than read; nothing but tensors is unpickled."""
    if not is_zipfile(file):
        raise ValueError("not what torch.save has written since 2020; fetch it again, or convert it with safetensors")
    content: dict[str, Tensor] = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    return content


@contextmanager
def _damaged(file: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # torch and pickle raise what they stumble over
        raise UserError(f"{file} is damaged: {one_line(error)}") from None
