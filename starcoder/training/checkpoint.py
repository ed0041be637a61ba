"""Single-file checkpoints that are either whole or absent, also when the process is killed while it writes."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from typing_extensions import override

from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_file


class Checkpoint(ModelCheckpoint):
    """Keeps `last.ckpt` in a folder: every few steps, and at the end of training.

    Args:
        folder: where `last.ckpt` lies; `--ckpt_path last` resumes from it.
        every_n_steps: optimizer steps between two saves.
    """

    def __init__(self, folder: str, every_n_steps: int = 2500) -> None:
        super().__init__(
            dirpath=folder,
            every_n_train_steps=every_n_steps,
            save_last=True,
            save_top_k=0,
            enable_version_counter=False,
        )

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final weights also when the last step is no multiple of `every_n_steps`."""
        if self._last_global_step_saved != trainer.global_step:
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target, flushes, renames; a damaged file is reported in one line."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Write `checkpoint` to `path`, replacing an older one only when the new one is on the disk."""
        with atomic_file(Path(path)) as partial, partial.open("wb") as file:
            torch.save(checkpoint, file)

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read the checkpoint at `path`; see `read_checkpoint`."""
        return read_checkpoint(Path(path))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Raises:
        UserError: when it is missing or damaged.
    """
    try:
        with ZipFile(path) as archive:  # torch itself does not look at the checksums
            if damaged := archive.testzip():
                raise BadZipFile(f"wrong checksum of {damaged}")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no checkpoint {path}") from None
    except Exception as error:  # torch and pickle raise what they stumble over
        raise UserError(f"the checkpoint {path} is damaged ({one_line(error)}); delete it to start over") from None
    return content
