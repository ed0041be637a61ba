"""A short run on hardware that takes a known amount a micro-batch; run as a program, on two ranks."""

import json
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger

from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.counters import Counter
from starcoder.training.data import TokenDataModule
from starcoder.training.energy import EnergyMeter
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from tests.training.ranks import finish, fork

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": 512, "context_length": 32}
BURNT = {"intel-rapl:0": 300, "intel-rapl:0:0": 200, "intel-rapl:1": 500, "intel-rapl:2": 900, "intel-rapl-mmio:0": 300}
"""Joules a micro-batch by zone: two packages, a part of the first, the whole platform, the first by another way."""
CPU_JOULES = 300 + 500
GPU_JOULES = 7
"""Of rank 0; rank 1 takes twice as much."""
RANKS = 2
SPAN = 1_000_000_000
"""Microjoules after which every zone begins again."""
NAMES = ("package-0", "core", "package-1", "psys", "package-0")


def zones(powercap: Path) -> Path:
    """The tree that Linux would show."""
    for (zone, _), name in zip(BURNT.items(), NAMES, strict=True):
        (powercap / zone).mkdir(parents=True)
        files = {"name": name, "max_energy_range_uj": SPAN, "energy_uj": 123_456}
        for file, content in files.items():
            (powercap / zone / file).write_text(f"{content}\n")
    (powercap / "intel-rapl").mkdir()
    return powercap


def burn(powercap: Path) -> None:
    """What the hardware does in a micro-batch."""
    for zone, joules in BURNT.items():
        path = powercap / zone / "energy_uj"
        path.write_text(f"{(int(path.read_text()) + 1_000_000 * joules) % SPAN}\n")


class Metered(EnergyMeter):
    """Its hardware works, and fails after a step."""

    def __init__(self, powercap: str, gpus: bool = False, fails_after: int | None = None) -> None:
        super().__init__(powercap)
        self.has_gpus, self.fails_after, self.millijoules = gpus, fails_after, 0

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self.has_gpus:
            self.gpus = [Counter(lambda: self.millijoules, 1e-3)]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: object) -> None:
        self.millijoules += 1000 * GPU_JOULES * (trainer.global_rank + 1)
        if trainer.local_rank == 0 and self.powercap.exists():
            burn(self.powercap)
        super().on_train_batch_end(trainer, pl_module, *args)
        if trainer.global_step == self.fails_after:
            raise RuntimeError("the hardware fails")


def fit(root: Path, folder: Path, meter: EnergyMeter, steps: int, ranks: int = 1) -> None:
    """Go on in the folder to a step; a checkpoint every four."""
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ShardedStrategy(),
        max_steps=steps,
        log_every_n_steps=1,
        logger=CSVLogger(folder, name=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[meter, Checkpoint(str(folder / "checkpoints"), every_n_steps=4)],
    )
    data = TokenDataModule(
        root / "shards" / "train", root / "tokenizer", context_length=32, batch_size=4 // ranks, global_batch_size=4
    )
    module = StarCoderModule(preset="smoke", overrides=SHAPE)
    trainer.fit(module, data, ckpt_path=newest(folder / "checkpoints"))


def main(rank: int) -> None:
    root, folder, powercap, steps = sys.argv[1:]
    for last in json.loads(steps):
        fit(Path(root), Path(folder), Metered(powercap, gpus=True), last, RANKS)


if __name__ == "__main__":
    finish(fork(RANKS, main))
