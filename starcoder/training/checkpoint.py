"""Sharded checkpoints that are either whole or absent, also when a process is killed while it writes.

A checkpoint is a folder `step-00002500` that any number of ranks can read:

    meta.pt             loops, schedule, position in the data, shape of the model; written first
    __0_0.distcp, …     each rank's slices of weights and optimizer states
    .metadata           which slice lies where
    complete            checksum of .metadata; written last: without it there is no checkpoint

Tensors are copied to the host, then written in the background while training goes on; only the next save waits.
"""

import io
import shutil
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import Future
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile, ZipFile

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer, callbacks
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, _FileSystemWriter
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.storage import WriteResult
from typing_extensions import override

from starcoder.distributed import mean_over_ranks, raise_together
from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_file, sha256

_META = "meta.pt"
_INDEX = ".metadata"
_COMPLETE = "complete"
_PREFIX = "step-"
_BYTES_PER_PARAMETER = 12
"""The fp32 weight and AdamW's two moments."""


class Saver:
    """Writes one checkpoint at a time, all ranks together, while training goes on."""

    def __init__(self, timeout: timedelta | None = None) -> None:
        self._timeout = timeout
        self._group: dist.ProcessGroup | None = None
        self._pending: Future[Any] | None = None

    def begin(self, tensors: dict[str, Any], meta: dict[str, Any], path: Path) -> None:
        """Wait for the save before, copy `tensors` to the host, and write them and `meta` to `path` from now on."""
        raise_together(self.wait())
        if self._group is None:  # its collectives must not come between those of training
            self._group = cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=self._timeout))
        raise_together(_write_meta(meta, path / _META) if dist.get_rank() == 0 else [])
        saving = async_save(tensors, storage_writer=_Writer(path), process_group=self._group)
        assert isinstance(saving, Future)
        self._pending, self._path = saving, path

    @property
    def pending(self) -> bool:
        """Whether a save has begun for which nobody has waited; the same on every rank."""
        return self._pending is not None

    @property
    def failed(self) -> bool:
        """Whether this rank knows already that it cannot be written."""
        return self._pending is not None and self._pending.done() and self._pending.exception() is not None

    def wait(self) -> list[str]:
        """Return when nothing is being written: what went wrong, on every rank; nothing of that checkpoint is left."""
        if self._pending is None:
            return []
        pending, self._pending = self._pending, None
        try:
            pending.result()
        except CheckpointException as error:
            free = shutil.disk_usage(_existing(self._path.parent)).free / 1e9
            if dist.get_rank() == 0:
                shutil.rmtree(self._path, ignore_errors=True)
            reason = str(error).strip().splitlines()[-1]
            return [f"cannot write {self._path}, with {free:.3g} GB free on its disk: {reason}"]
        return []


class _Writer(_FileSystemWriter):
    """Seals what all ranks have written.

    torch's public writer is a stager too, which copies a GPU's tensors twice, and slowly.
    """

    @override
    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        super().finish(metadata, results)
        with atomic_file(Path(self.path, _COMPLETE)) as partial:
            partial.write_text(sha256(Path(self.path, _INDEX)))


class Checkpoint(callbacks.Checkpoint):
    """Saves every few steps and at the end of training, and keeps the newest.

    Args:
        folder: where the checkpoints lie; `--ckpt_path last` resumes from the newest.
        every_n_steps: optimizer steps between two saves.
        keep: how many to keep.

    Raises:
        UserError: when a number is below 1.
    """

    def __init__(self, folder: str, every_n_steps: int = 2500, keep: int = 2) -> None:
        wrong = [f"{name} is {n}, below 1" for name, n in (("every_n_steps", every_n_steps), ("keep", keep)) if n < 1]
        if wrong:
            raise UserError("checkpoint: " + "; ".join(wrong))
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self._saved_step = self._asked_step = -1

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse what would end badly after days.

        Raises:
            UserError: when the folder holds checkpoints that this run does not go on from, or has no room for more.
        """
        self._saved_step = trainer.global_step
        if trainer.global_step and trainer.is_global_zero:
            print(f"goes on from {trainer.ckpt_path}", flush=True)
        parameters = sum(parameter.numel() for parameter in pl_module.parameters())
        raise_together(self._problems(trainer, parameters) if trainer.is_global_zero else [])

    def _problems(self, trainer: Trainer, parameters: int) -> list[str]:
        found = complete(self.folder)
        if trainer.ckpt_path is None and found:
            return [f"{found[-1]} is of an earlier run: go on with --ckpt_path last, or name another folder"]
        if later := [path.name for path in found if _step(path) > trainer.global_step]:
            return [
                f"{self.folder} holds later checkpoints than step {trainer.global_step}: remove {', '.join(later)}"
                " to go on from there, or name another folder"
            ]
        self._remove_but(found, "was not written to its end: removing it")
        size = _BYTES_PER_PARAMETER * parameters
        free, more = shutil.disk_usage(_existing(self.folder)).free, self.keep + 1 - len(found)
        if free < more * size:
            return [
                f"the disk is full: {self.folder} has {free / 1e9:.3g} GB, but needs {more} x {size / 1e9:.3g} GB more"
            ]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.folder / "writable") as probe:
                probe.touch()
            (self.folder / "writable").unlink()
        except OSError as error:
            return [f"cannot write to {self.folder}: {error.strerror}"]
        return []

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0 or self._failed(trainer):
            self.save(trainer)

    def _failed(self, trainer: Any) -> bool:
        """Whether the last save has failed; asked at the steps that are logged, where the host waits anyhow."""
        step, saver = trainer.global_step, _saver(trainer)
        if step == self._asked_step or step % trainer.log_every_n_steps or not saver.pending:
            return False
        self._asked_step = step
        failed = torch.tensor(float(saver.failed), device=trainer.strategy.root_device)
        return bool(mean_over_ranks(failed) > 0)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights also when the last step is no multiple of `every_n_steps`."""
        self.save(trainer)
        self._settle(trainer)
        self._remove_old(trainer)
        trainer.strategy.barrier()  # a rank that leaves early may take the others with it

    def save(self, trainer: Trainer) -> None:
        """Begin to save this step, unless it is saved, once the one before is complete; then remove what is too old."""
        if self._saved_step == trainer.global_step:
            return
        self._settle(trainer)
        if self._saved_step != trainer.global_step:
            self._begin(trainer)

    def _settle(self, trainer: Trainer) -> None:
        """Wait for the save before. What could not be written is tried once more, with the weights of this step.

        Raises:
            UserError: when that fails too.
        """
        if problems := _saver(trainer).wait():
            if trainer.is_global_zero:
                print(f"starcoder: {problems[0]}; trying again", file=sys.stderr, flush=True)
            self._begin(trainer)
            raise_together(_saver(trainer).wait())

    def _begin(self, trainer: Trainer) -> None:
        self._saved_step = trainer.global_step
        self._remove_old(trainer)
        trainer.save_checkpoint(self.folder / f"{_PREFIX}{trainer.global_step:08d}", weights_only=False)

    def _remove_old(self, trainer: Trainer) -> None:
        """Remove all but the newest, and what was never completed; only while nothing is being written."""
        if trainer.is_global_zero:
            self._remove_but(complete(self.folder)[-self.keep :])

    def _remove_but(self, kept: list[Path], reason: str = "") -> None:
        for path in set(self.folder.glob(_PREFIX + 8 * "[0-9]")) - set(kept):
            if reason:
                print(f"starcoder: {path} {reason}", file=sys.stderr, flush=True)
            shutil.rmtree(path, ignore_errors=True)
            if path.exists():
                print(f"starcoder: cannot remove {path}", file=sys.stderr, flush=True)


def _saver(trainer: Trainer) -> Saver:
    saver = getattr(trainer.strategy, "saver", None)
    if not isinstance(saver, Saver):
        raise UserError("Checkpoint saves what starcoder.training.parallel.ShardedStrategy trains, nothing else")
    return saver


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())


def complete(folder: Path) -> list[Path]:
    """The checkpoints in `folder` that were written to their end, oldest first."""
    return sorted(path.parent for path in folder.glob(f"{_PREFIX}*/{_COMPLETE}"))


def _step(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def newest(folder: Path) -> Path | None:
    """The checkpoint in `folder` of the last step, if there is any."""
    found = complete(folder)
    return found[-1] if found else None


def read_meta(path: Path) -> dict[str, Any]:
    """Everything in a checkpoint but tensors.

    Raises:
        UserError: when it is missing, was not written to its end, or is damaged.
    """
    if not (path / _COMPLETE).is_file():
        torn = " that was written to its end" if path.is_dir() else ""
        raise UserError(f"there is no checkpoint{torn} in {path}")
    try:
        _check_sums(path / _META)
        content: dict[str, Any] = torch.load(path / _META, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise what they stumble over
        raise UserError(_damaged(path / _META, error)) from None
    return content


def damages(path: Path, rank: int = 0, ranks: int = 1) -> list[str]:
    """What is wrong with the files of a checkpoint, by the checksums of every `ranks`-th item from `rank` on."""
    try:
        metadata = _read_metadata(path)
        items = sorted(metadata.storage_data.values(), key=lambda item: (item.relative_path, item.offset))
        for item in items[rank::ranks]:
            _check_item(path / item.relative_path, item.offset, item.length)
    except UserError as error:
        return [str(error)]
    return []


def read_weights(path: Path) -> dict[str, Tensor]:
    """The module's whole state dict, on the CPU of this process.

    Raises:
        UserError: when the checkpoint is missing or damaged.
    """
    if problems := damages(path):
        raise UserError(problems[0])
    tensors = {
        name.removeprefix("state_dict."): torch.empty(item.size, dtype=item.properties.dtype)
        for name, item in _read_metadata(path).state_dict_metadata.items()
        if name.startswith("state_dict.") and isinstance(item, TensorStorageMetadata)
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as is meant
        load({"state_dict": tensors}, checkpoint_id=path, no_dist=True)
    return tensors


def open_weights(path: Path) -> tuple[dict[str, Tensor], Callable[[str], Tensor]]:
    """The module's tensors without their content, on `meta`, and what reads one of them and checks its checksums.

    Reading takes the memory of that tensor and of the largest slice in which it was written, whoever wrote it.

    Raises:
        UserError: when the checkpoint is missing or damaged, also later by what reads.
    """
    reader = _IndexedReader(path)
    slices: dict[str, list[Any]] = {}
    for index, item in reader.read_metadata().storage_data.items():
        slices.setdefault(index.fqn, []).append(item)
    prefix = "state_dict."
    specs = {
        name.removeprefix(prefix): torch.empty(item.size, dtype=item.properties.dtype, device="meta")
        for name, item in reader.read_metadata().state_dict_metadata.items()
        if name.startswith(prefix) and isinstance(item, TensorStorageMetadata)
    }

    def read(name: str) -> Tensor:
        for item in slices[prefix + name]:
            _check_item(path / item.relative_path, item.offset, item.length)
        tensor = torch.empty_like(specs[name], device="cpu")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            load({"state_dict": {name: tensor}}, storage_reader=reader, no_dist=True)
        return tensor

    return specs, read


class _IndexedReader(FileSystemReader):
    """Reads the index once, however many tensors are asked for; that of 512 ranks is large."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._index = _read_metadata(path)

    @override
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        return self._index


def _write_meta(meta: dict[str, Any], path: Path) -> list[str]:
    """Write it; what went wrong."""
    try:
        with atomic_file(path) as partial:
            torch.save(meta, partial)
    except (OSError, RuntimeError) as error:
        return [f"cannot write {path}: {one_line(error)}"]
    return []


def _read_metadata(path: Path) -> Metadata:
    try:
        if sha256(path / _INDEX) != (path / _COMPLETE).read_text():
            raise ValueError("wrong checksum")
        return FileSystemReader(path).read_metadata()
    except Exception as error:
        raise UserError(_damaged(path / _INDEX, error)) from None


def _check_item(path: Path, offset: int, length: int) -> None:
    try:
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read(length)
        _check_sums(io.BytesIO(content))
    except Exception as error:  # zipfile raises what it stumbles over
        raise UserError(_damaged(path, error)) from None


def _check_sums(file: Path | io.BytesIO) -> None:
    """Compare what torch wrote with the checksums it wrote beside; when it reads, it does not look at them."""
    with ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise BadZipFile(f"wrong checksum of {damaged}")


def _damaged(path: Path, error: Exception) -> str:
    return (
        f"{path} is damaged ({one_line(error)}); without {path.parent} a run goes on from the checkpoint before, if any"
    )
