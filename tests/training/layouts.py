"""Training runs on several gloo ranks: `run_jobs` starts the ranks, which do one job after the other.

A job is a dictionary: `steps`, `folder` of its checkpoints and, if wanted, `strategy` (options of `ShardedStrategy`),
`batch_size`, `dropout`, `resume` (whether to go on from the newest checkpoint). What it gives is loss and gradient norm
of every step.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import Preemption

ROOT = Path(__file__).parents[2]
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 512, "context_length": 64}
GLOBAL_BATCH = 8

Steps = list[list[float]]


class Record(Callback):
    """Loss and gradient norm of every step, exactly."""

    def __init__(self) -> None:
        self.steps: Steps = []
        self.last = -1

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step > max(self.last, 0):
            self.last = trainer.global_step
            self.steps.append([float(trainer.callback_metrics[name]) for name in ("train_loss", "grad_norm")])

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        self.last = trainer.global_step


def run_job(job: dict[str, Any], root: Path, ranks: int) -> Steps:
    """One training run on this rank."""
    record = Record()
    module = StarCoderModule(
        preset="smoke",
        overrides=SHAPE | {"dropout": job.get("dropout", 0.0)},
        learning_rate=3e-3,
        warmup_steps=3,
        decay_steps=30,
    )
    data = TokenDataModule(
        root / "shards" / "train",
        root / "tokenizer",
        context_length=SHAPE["context_length"],
        batch_size=job.get("batch_size", GLOBAL_BATCH // ranks),
        global_batch_size=GLOBAL_BATCH,
    )
    folder = Path(job["folder"])
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ShardedStrategy(**job.get("strategy", {})),
        max_steps=job["steps"],
        max_epochs=-1,
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[record, Preemption(), Checkpoint(str(folder), every_n_steps=job.get("every_n_steps", 1000))],
    )
    resume = newest(folder) if job.get("resume") else None
    trainer.fit(module, data, ckpt_path=resume)
    return record.steps


def run_jobs(jobs: dict[str, dict[str, Any]], root: Path, ranks: int, results: Path) -> dict[str, Steps]:
    """Do the jobs on `ranks` new processes, one after the other, with the small chain in `root`.

    Every rank must tell the same.
    """
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={ranks}"]
    program = ["-m", "tests.training.layouts", json.dumps(jobs), str(root), str(results)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, *program], cwd=ROOT, env=environment, timeout=180, check=True)
    told: list[dict[str, Steps]] = [json.loads((results / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    assert all(other == told[0] for other in told)
    return told[0]


def main(jobs: dict[str, dict[str, Any]], root: Path, results: Path) -> None:
    told = {name: run_job(job, root, int(os.environ["WORLD_SIZE"])) for name, job in jobs.items()}
    (results / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
