"""Whatever ends a run, the next start goes on as if nothing had happened."""

import json
import os
import random
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from starcoder.training import preemption
from starcoder.training.checkpoint import newest
from starcoder.training.metrics import read_metrics
from starcoder.training.preemption import EXIT_CODE, Preemption
from tests import nursery
from tests.conftest import ROOT, Tiny, starcoder
from tests.nursery import start
from tests.training.layouts import SHAPE


def forked(*args: object) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(nursery.run_module("tests.training.forked", *args).splitlines()[-1])
    return told


def test_ten_kills_of_a_rank_always_leave_a_whole_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"moments of the kills: random.seed({seed})")
    told = forked("kill", tiny.tokenizer.parent, tmp_path, 10, seed)
    steps = [trial["step"] for trial in told["found"]]
    assert len(steps) == 10
    assert steps == sorted(steps)
    assert steps[0] > 0
    assert not any(trial["damages"] for trial in told["found"])
    assert any(trial["torn"] for trial in told["found"]), "no kill hit a save"
    assert told["resumed"] == told["undisturbed"][-3:]


def test_a_signal_to_one_rank_stops_all_at_the_same_step(tiny: Tiny, tmp_path: Path) -> None:
    told = forked("tell", tiny.tokenizer.parent, tmp_path)
    assert 0 < told["steps"][0] < told["steps"][1]
    assert told["resumed"] == told["undisturbed"][-3:]


def test_the_command_says_by_its_exit_code_that_it_can_go_on(tiny: Tiny, tmp_path: Path) -> None:
    def arguments(name: str, steps: int) -> list[str]:
        options = {
            "data.train": tiny.train,
            "data.validation": tiny.validation,
            "data.tokenizer": tiny.tokenizer,
            "data.context_length": SHAPE["context_length"],
            "model.overrides": json.dumps(SHAPE),
            "model.decay_steps": 1000,
            "data.num_workers": 1,
            "trainer.max_steps": steps,
            "trainer.log_every_n_steps": 1,
            "trainer.logger.init_args.save_dir": tmp_path / name / "metrics",
            "checkpoint.folder": tmp_path / name / "checkpoints",
        }
        return [
            "fit",
            "--config",
            str(ROOT / "recipes/smoke.yaml"),
            *(f"--{key}={value}" for key, value in options.items()),
        ]

    with start(tmp_path, *arguments("told", 100_000)) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("told/metrics/*/metrics.csv")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(2):  # as Slurm and torchrun do it: the processes that prepare batches hear it too, and twice
            os.killpg(process.pid, signal.SIGTERM)
            time.sleep(0.2)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE, errors
    last = newest(tmp_path / "told/checkpoints")
    assert last is not None
    end = int(last.name.removeprefix("step-")) + 5
    for name in ("told", "undisturbed"):
        starcoder(tmp_path, *arguments(name, end), check=True)
    losses = [
        [(row["step"], row["train_loss"], row["grad_norm"]) for row in read_metrics(tmp_path / name / "metrics")]
        for name in ("told", "undisturbed")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0]) == end


@pytest.mark.parametrize(
    ("seconds", "expected"), [(60.0, [1, 2, 3, 4]), (2.0, [1, 6, 11, 16]), (0.01, [1, 41, 81, 121])]
)
def test_ranks_ask_every_ten_seconds_or_step_or_as_often_as_is_logged(
    monkeypatch: pytest.MonkeyPatch, seconds: float, expected: list[int]
) -> None:
    trainer: Any = SimpleNamespace(
        global_step=0,
        log_every_n_steps=40,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace()),
    )
    monkeypatch.setattr(preemption.time, "monotonic", lambda: trainer.global_step * seconds)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    asked: list[int] = []
    callback = Preemption()
    ask = callback._ask
    monkeypatch.setattr(callback, "_ask", lambda trainer: asked.append(trainer.global_step) or ask(trainer))
    callback.on_train_start(trainer, cast(Any, None))
    for step in range(130):
        trainer.global_step = step
        for _ in range(2):  # micro-batches
            callback.on_train_batch_end(trainer, cast(Any, None), None, None, 0)
    assert asked[:4] == expected
