"""Training runs on several gloo ranks: `run_jobs` starts the ranks, which do one job after the other.

A job is a dictionary: `steps`, `folder` of its checkpoints and, if wanted, `strategy` (options of `ShardedStrategy`),
`batch_size`, `dropout`, `validate_every` and `evaluate_every` (so many steps; rank 0 leaves what it evaluated in the
folder), `resume` (whether to go on from the newest checkpoint),
`poison` (a micro-batch, counted from 0, and the rank on which its loss is no number). What it gives is loss, gradient
norm and number of skipped steps so far, of every step; null is what is not finite.
"""

import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor, Replicate, Shard

from starcoder.evaluation.callback import Evaluation
from starcoder.evaluation.plan import Plan
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import Preemption
from tests import nursery
from tests.training.ranks import finish, fork

SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 32, "vocab_size": 512, "context_length": 64}
GLOBAL_BATCH = 8
EVALUATED: dict[str, Any] = {
    "tasks": "tests.evaluation.sums:Sums,tests.evaluation.sums:Spelling,tests.evaluation.sums:Surprise",
    **{"limit": 2, "n_samples": 2, "temperature": 1.0, "max_new_tokens": 8, "batch_size": 3, "workers": 1},
}

Steps = list[list[float | None]]


class Record(Callback):
    """What every step logs, exactly."""

    def __init__(self) -> None:
        self.steps: Steps = []
        self.last = -1

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step > max(self.last, 0):
            self.last = trainer.global_step
            values = [float(trainer.callback_metrics[name]) for name in ("train_loss", "grad_norm", "skipped_steps")]
            self.steps.append([value if math.isfinite(value) else None for value in values])

    def on_train_start(self, trainer: Trainer, *_: object) -> None:
        self.last = trainer.global_step


class Noted(Evaluation):
    """Keeps what it logs."""

    def __init__(self, path: Path, **options: Any) -> None:
        super().__init__(**options)
        self.path, self.found = path, dict[str, float]()

    def evaluate(self, plan: Plan, judges: bool) -> dict[str, float]:
        found = super().evaluate(plan, judges)
        self.found |= found
        if judges:
            self.path.write_text(json.dumps(self.found))
        return found


class Poisoned(StarCoderModule):
    """Its loss is once no number, on one rank alone."""

    poison: tuple[int, int] | None = None

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.poison != (self.trainer.fit_loop.total_batch_idx, self.global_rank):
            return loss
        self.step_loss *= math.nan
        return loss * math.nan


def run_job(job: dict[str, Any], root: Path, ranks: int) -> Steps:
    """One training run on this rank."""
    record = Record()
    module = Poisoned(
        preset="smoke",
        overrides=SHAPE | {"dropout": job.get("dropout", 0.0)},
        learning_rate=3e-3,
        warmup_steps=3,
        decay_steps=30,
    )
    module.poison = tuple(job["poison"]) if "poison" in job else None
    data = TokenDataModule(
        root / "shards" / "train",
        root / "tokenizer",
        context_length=SHAPE["context_length"],
        batch_size=job.get("batch_size", GLOBAL_BATCH // ranks),
        global_batch_size=GLOBAL_BATCH,
        validation=root / "shards" / "validation" if "validate_every" in job else None,
    )
    folder = Path(job["folder"])
    callbacks = [record, Preemption(), Checkpoint(str(folder), every_n_steps=job.get("every_n_steps", 1000))]
    if "evaluate_every" in job:
        callbacks.append(Noted(folder.with_suffix(".json"), every_n_steps=job["evaluate_every"], **EVALUATED))
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ShardedStrategy(**job.get("strategy", {})),
        max_steps=job["steps"],
        max_epochs=-1,
        gradient_clip_val=1.0,
        log_every_n_steps=1,
        val_check_interval=job.get("validate_every"),
        check_val_every_n_epoch=None,
        limit_val_batches=2,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    resume = newest(folder) if job.get("resume") else None
    trainer.fit(module, data, ckpt_path=resume)
    check_layout(module, ranks, job.get("strategy", {}))
    return record.steps


def check_layout(module: StarCoderModule, ranks: int, strategy: dict[str, Any]) -> None:
    """That the model was cut and copied as the job says: equal losses cannot tell one layout from another."""
    assert module.model is not None
    shard = strategy.get("shard_size", ranks)
    if ranks > 1:
        weight = module.model.transformer.h[0].mlp.c_fc.weight
        assert isinstance(weight, DTensor)
        assert weight.placements == ((Shard(0),) if shard == ranks else (Replicate(), Shard(0)))
        assert weight.device_mesh.shape == ((ranks,) if shard == ranks else (ranks // shard, shard))
        assert weight.to_local().numel() == weight.numel() // shard
    for block in module.model.transformer.h:
        assert (block._compiled_call_impl is not None) == strategy.get("compile_blocks", False)


def run_jobs(jobs: dict[str, dict[str, Any]], root: Path, ranks: int, results: Path) -> dict[str, Steps]:
    """Do the jobs on `ranks` new processes, one after the other, with the small chain in `root`.

    Every rank must tell the same.
    """
    nursery.run_module("tests.training.layouts", json.dumps(jobs), root, results, ranks)
    told: list[dict[str, Steps]] = [json.loads((results / f"rank-{rank}.json").read_text()) for rank in range(ranks)]
    assert all(other == told[0] for other in told)
    return told[0]


def work(jobs: dict[str, dict[str, Any]], root: Path, results: Path, ranks: int, rank: int) -> None:
    """All the jobs, on this rank."""
    told = {name: run_job(job, root, ranks) for name, job in jobs.items()}
    (results / f"rank-{rank}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    ranks = int(sys.argv[4])
    finish(fork(ranks, partial(work, json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), ranks)))
