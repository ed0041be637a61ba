"""A module that trains nothing and records the batches it was given; run as a program, it fits on two gloo ranks."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from starcoder.training.data import TokenDataModule
from tests.training.ranks import finish, fork


class Recorder(LightningModule):
    def __init__(self, asks_for_steps: bool = False) -> None:
        super().__init__()
        self.asks_for_steps = asks_for_steps
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.batches: list[Tensor] = []
        self.validated: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.batches.append(batch)
        return self.weight * 1.0

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        self.validated.append(batch)

    def configure_optimizers(self) -> Any:
        if self.asks_for_steps:
            assert self.trainer.estimated_stepping_batches  # loads the data before the checkpoint is restored
        return torch.optim.SGD(self.parameters(), 1.0)


def fit(
    data: TokenDataModule,
    steps: int = -1,
    resume: Path | None = None,
    save: Path | None = None,
    asks_for_steps: bool = False,
    **options: Any,
) -> Recorder:
    module = Recorder(asks_for_steps)
    quiet = {"enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", max_steps=steps, logger=False, **quiet, **options)
    trainer.fit(module, data, ckpt_path=resume)
    if save:
        trainer.save_checkpoint(save)
    return module


def main(settings: dict[str, Any], steps: int, stop: int, folder: Path) -> None:
    """Fit on every rank: undisturbed, up to `stop`, and from there on."""
    ranks: dict[str, Any] = {"devices": 2, "strategy": "ddp"}
    checkpoint = folder / "two-ranks.ckpt"
    undisturbed = fit(TokenDataModule(**settings), steps, **ranks)
    fit(TokenDataModule(**settings), stop, save=checkpoint, **ranks)
    resumed = fit(TokenDataModule(**settings), steps, resume=checkpoint, **ranks)
    runs = {"undisturbed": undisturbed.batches, "resumed": resumed.batches, "validated": undisturbed.validated}
    torch.save(runs, folder / f"rank-{undisturbed.global_rank}.pt")


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    finish(fork(2, lambda _: main(*arguments)))
