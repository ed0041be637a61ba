import csv
import gc
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from starcoder.training import progress
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.data import TokenDataModule
from starcoder.training.loader import TrainingLoader
from starcoder.training.module import StarCoderModule
from starcoder.training.parallel import ShardedStrategy
from starcoder.training.preemption import Preemption
from starcoder.training.progress import LogLines, ProgressBar, QuietCollector, Throughput, matmul_peak
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 32}
STEPS, BATCH = 12, 4


class Slow(TokenDataModule):
    """Training waits for its data most of the time."""

    def train_dataloader(self) -> TrainingLoader:
        loader = super().train_dataloader()
        batches = loader._next

        def late(iterator: Iterator[Tensor]) -> Tensor | None:
            time.sleep(0.1)
            loader.seconds_waited += 0.1
            return batches(iterator)

        loader._next = late
        return loader


@pytest.fixture(scope="module")
def logged(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metrics of a short run of two micro-batches a step, and what they should follow from."""
    folder = tmp_path_factory.mktemp("run")
    monitor = Throughput()
    trainer = Trainer(
        accelerator="cpu",
        strategy=ShardedStrategy(),
        max_steps=STEPS,
        log_every_n_steps=3,
        logger=CSVLogger(folder, name=""),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[monitor, QuietCollector(every_n_steps=5)],
    )
    module = StarCoderModule(preset="smoke", overrides=SHAPE)
    data = Slow(tiny.train, tiny.tokenizer, context_length=32, batch_size=BATCH, global_batch_size=2 * BATCH)
    trainer.fit(module, data)
    with (folder / "version_0" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    return SimpleNamespace(rows=rows, peak=monitor.peak_flops, config=module.config)


def test_every_logged_step_has_a_row(logged: Any) -> None:
    assert [row["step"] for row in logged.rows] == [2, 5, 8, 11]
    for row in logged.rows:
        assert {"train_loss", "grad_norm", "skipped_steps", "tokens_per_sec", "data_wait", "memory_gib"} <= row.keys()
        assert row["skipped_steps"] == 0
        assert 0.05 < row["memory_gib"] < 64


def test_tokens_are_targets_of_all_micro_batches_and_flops_are_the_models(logged: Any) -> None:
    for row in logged.rows:
        assert row["tokens_per_sec"] == pytest.approx(row["steps_per_sec"] * 2 * BATCH * 32, rel=1e-4)
        assert row["tokens_per_sec_per_device"] == row["tokens_per_sec"]
        flops = row["tokens_per_sec"] * logged.config.flops_per_token(32)
        assert row["mfu"] == pytest.approx(flops / logged.peak, rel=1e-3)
    assert logged.peak > 1e8


def test_waiting_for_data_is_a_share_of_the_time(logged: Any) -> None:
    """Three steps of two micro-batches, each 0.1 s late; how long the rest takes is the machine's affair."""
    for row in logged.rows:
        seconds = 3 / row["steps_per_sec"]
        assert 0.599 < row["data_wait"] * seconds <= seconds


def test_what_all_devices_do_is_counted_once_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "matmul_peak", lambda dtype: 1e12)
    found: dict[str, float] = {}
    module = StarCoderModule(preset="smoke", overrides=SHAPE)
    monkeypatch.setattr(module, "log_dict", found.update)
    trainer: Any = SimpleNamespace(
        global_step=0,
        world_size=4,
        log_every_n_steps=1,
        train_dataloader=None,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
    )
    monitor = Throughput()
    monitor.on_train_start(trainer, module)
    trainer.global_step = 1
    monitor.on_train_batch_end(trainer, module, None, torch.zeros(3, 33, dtype=torch.long), 0)
    assert found["tokens_per_sec"] == pytest.approx(4 * 3 * 32 * found["steps_per_sec"])
    assert found["tokens_per_sec_per_device"] == pytest.approx(found["tokens_per_sec"] / 4)


def short_fit(tiny: Tiny, folder: Path, steps: int, **options: Any) -> Trainer:
    """Two micro-batches a step."""
    trainer = Trainer(
        accelerator="cpu",
        strategy=ShardedStrategy(),
        max_steps=steps,
        enable_model_summary=False,
        logger=CSVLogger(folder, name=""),
        **{"enable_progress_bar": False, "log_every_n_steps": 4} | options,
    )
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=2, global_batch_size=4)
    trainer.fit(StarCoderModule(preset="smoke", overrides=SHAPE), data, ckpt_path=newest(folder / "checkpoints"))
    return trainer


def test_a_resumed_run_prints_its_lines(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It begins with a micro-batch that has not logged anything, at a step that has a line."""
    for steps in (4, 8):
        callbacks = [Throughput(), LogLines(every_n_steps=4), Checkpoint(str(tmp_path / "checkpoints"), 4)]
        short_fit(tiny, tmp_path, steps, callbacks=callbacks)
    assert re.findall(r"^step +(\d+)/", capsys.readouterr().out, re.MULTILINE) == ["4", "8"]


def test_the_device_is_read_only_when_a_step_is_logged(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a tensor, or a barrier, lets the host wait: 64 steps more, two of them logged, do it for those two."""
    reads: Counter[str] = Counter()
    names = ("item", "tolist", "nonzero", "numpy", "__float__", "__int__", "__bool__", "__index__")
    for owner, name in (*((Tensor, name) for name in names), (dist, "barrier")):
        method = getattr(owner, name)

        def counted(*args: Any, _method: Any = method, _name: str = name, **kwargs: Any) -> Any:
            reads[_name] += 1
            return _method(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
    found = []
    for steps in (8, 72):
        callbacks = [Preemption(), Throughput(), Checkpoint(str(tmp_path / str(steps)), every_n_steps=1000)]
        short_fit(tiny, tmp_path, steps, callbacks=callbacks, log_every_n_steps=32)
        found.append(reads.copy())
        reads.clear()
    few, many = found
    assert many.total() > few.total()
    for name, times in many.items():
        assert times - few[name] < 32, name


def test_the_bar_shows_what_was_logged(tiny: Tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bar = ProgressBar()
    short_fit(tiny, tmp_path, 8, callbacks=[bar, Throughput()], enable_progress_bar=True, enable_checkpointing=False)
    assert {"train_loss", "grad_norm", "skipped_steps", "tokens_per_sec", "mfu", "data_wait"} <= bar.shown.keys()
    assert "grad_norm=" in "".join(capsys.readouterr())


def test_the_collector_is_on_again_after_training(logged: Any) -> None:
    assert gc.isenabled()


def test_the_collector_runs_at_fixed_steps_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    collected: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda generation=2: collected.append(generation) or 0)
    collector, nothing = QuietCollector(every_n_steps=2), cast(Any, None)
    collector.on_train_start(cast(Any, SimpleNamespace(global_step=0)), nothing)
    assert not gc.isenabled()
    for step in (0, 0, 1, 1, 2, 2, 3, 3, 4, 4):  # two micro-batches a step
        collector.on_train_batch_end(cast(Any, SimpleNamespace(global_step=step)), nothing, None, torch.zeros(0), 0)
    collector.teardown(nothing, nothing, "fit")
    assert collected == [2, 1, 1]


def test_the_peak_is_that_of_the_fastest_matrix_product(monkeypatch: pytest.MonkeyPatch) -> None:
    a = torch.randn(64, 64)
    with FlopCounterMode(display=False) as counter:
        torch.mm(a, a)
    seconds = iter([4.0, 0.5, 3.0, 2.0])
    monkeypatch.setattr(progress, "_seconds", lambda *_: next(seconds))
    assert matmul_peak(torch.float32, size=64, repeats=1) == counter.get_total_flops() / 0.5


def test_the_clock_of_the_peak_runs_while_the_product_does() -> None:
    def slow(a: Tensor, b: Tensor) -> Tensor:
        time.sleep(0.05)
        return a

    assert 0.05 <= progress._seconds(slow, torch.zeros(1), torch.zeros(1)) < 5


@pytest.mark.parametrize(("step", "prints"), [(3, False), (4, True), (8, True), (9, True)])
def test_a_line_every_few_steps_and_at_the_end(step: int, prints: bool, capsys: pytest.CaptureFixture[str]) -> None:
    trainer = SimpleNamespace(
        global_step=step,
        max_steps=9,
        is_global_zero=True,
        callback_metrics={"train_loss": torch.tensor(2.5), "tokens_per_sec": 1234.0},
        optimizers=[SimpleNamespace(param_groups=[{"lr": 1e-3}])],
    )
    LogLines(every_n_steps=4).on_train_batch_end(cast(Any, trainer), cast(Any, None), None, torch.zeros(1, 2), 0)
    line = capsys.readouterr().out
    assert bool(line) == prints
    if prints:
        assert re.fullmatch(rf"step +{step}/9  loss 2\.5000  lr 1\.00e-03  1,234 tok/s\n", line)


def test_micro_batches_of_one_step_give_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LogLines(every_n_steps=2)
    for step in (0, 0, 1, 1, 2, 2, 3, 3):
        metrics = {"train_loss": torch.tensor(2.5)}
        optimizers = [SimpleNamespace(param_groups=[{"lr": 1e-3}])]
        trainer = SimpleNamespace(
            global_step=step, max_steps=9, is_global_zero=True, callback_metrics=metrics, optimizers=optimizers
        )
        lines.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, torch.zeros(1, 2), 0)
    assert capsys.readouterr().out.count("\n") == 1


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = SimpleNamespace(global_step=4, max_steps=9, is_global_zero=False)
    LogLines(every_n_steps=4).on_train_batch_end(cast(Any, trainer), cast(Any, None), None, torch.zeros(1, 2), 0)
    assert capsys.readouterr().out == ""
