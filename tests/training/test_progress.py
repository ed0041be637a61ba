import re
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from starcoder.training import progress
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule
from starcoder.training.progress import LogLines, Throughput, matmul_peak
from tests.conftest import VOCAB_SIZE, Tiny

SHAPE = {"n_layer": 1, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 32}
STEPS, BATCH, WINDOW = 12, 4, 5


@pytest.fixture(scope="module")
def logged(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metrics of a short run, and the monitor that made them."""
    monitor = Throughput(window_size=WINDOW)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=STEPS,
        log_every_n_steps=1,
        default_root_dir=tmp_path_factory.mktemp("run"),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[monitor],
    )
    module = StarCoderModule(preset="smoke", overrides=SHAPE)
    trainer.fit(module, TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=BATCH))
    assert module.model is not None
    metrics = {name: float(value) for name, value in trainer.logged_metrics.items()}
    return SimpleNamespace(metrics=metrics, peak=monitor.available_flops, config=module.model.config)


def test_tokens_are_targets_and_flops_are_the_models(logged: Any) -> None:
    metrics = logged.metrics
    tokens_per_batch = BATCH * 32
    assert metrics["train/device/items_per_sec"] == pytest.approx(
        metrics["train/device/batches_per_sec"] * tokens_per_batch
    )
    flops = metrics["train/device/items_per_sec"] * logged.config.flops_per_token(32)
    assert metrics["train/device/flops_per_sec"] == pytest.approx(flops, rel=1e-3)


def test_mfu_is_the_share_of_the_measured_peak(logged: Any) -> None:
    assert logged.peak > 1e8
    share = logged.metrics["train/device/flops_per_sec"] / logged.peak
    assert logged.metrics["train/device/mfu"] == pytest.approx(share, rel=1e-6)


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
        logged_metrics={"train_loss": torch.tensor(2.5), "train/device/items_per_sec": 1234.0},
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
            global_step=step, max_steps=9, is_global_zero=True, logged_metrics=metrics, optimizers=optimizers
        )
        lines.on_train_batch_end(cast(Any, trainer), cast(Any, None), None, torch.zeros(1, 2), 0)
    assert capsys.readouterr().out.count("\n") == 1


def test_other_ranks_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    trainer = SimpleNamespace(global_step=4, max_steps=9, is_global_zero=False)
    LogLines(every_n_steps=4).on_train_batch_end(cast(Any, trainer), cast(Any, None), None, torch.zeros(1, 2), 0)
    assert capsys.readouterr().out == ""
