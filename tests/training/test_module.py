import json
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from starcoder.errors import UserError
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.pii.encoder_module import StarEncoderModule
from starcoder.pii.pretraining import EncoderDataModule
from starcoder.training.base import cosine_with_warmup
from starcoder.training.checkpoint import Checkpoint, newest
from starcoder.training.data import TokenDataModule
from starcoder.training.module import StarCoderModule, load_trained
from starcoder.training.parallel import ShardedStrategy
from tests.conftest import VOCAB_SIZE, Tiny

ROOT = Path(__file__).parents[2]
SHAPE = {"n_layer": 2, "n_head": 2, "n_embd": 16, "vocab_size": VOCAB_SIZE, "context_length": 32}


class Losses(Callback):
    """The exact loss of every step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Tensor, batch_idx: int) -> None:
        self.values.append(outputs["loss"].item())


def module(**changes: Any) -> StarCoderModule:
    options: dict[str, Any] = {
        "preset": "smoke",
        "overrides": SHAPE | {"dropout": 0.1},
        "learning_rate": 3e-3,
        "warmup_steps": 3,
        "decay_steps": 30,
    }
    return StarCoderModule(**options | changes)


def fit(tiny: Tiny, folder: Path, steps: int, resume: bool = False) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of all steps, and the final weights, of a run in `folder`."""
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=steps,
        max_epochs=-1,
        gradient_clip_val=1.0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[losses, Checkpoint(str(folder), every_n_steps=1000)],
        strategy=ShardedStrategy(),
    )
    # Large batches make short epochs, so that the run crosses their borders.
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=512)
    model = module()
    trainer.fit(model, data, ckpt_path=newest(folder) if resume else None)
    assert model.model is not None
    return losses.values, {name: tensor.clone() for name, tensor in model.model.state_dict().items()}


@pytest.fixture(scope="module")
def undisturbed(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, Tensor]]:
    return fit(tiny, tmp_path_factory.mktemp("undisturbed"), 30)


@pytest.mark.parametrize("stop", [1, 13, 29])
def test_a_resumed_run_equals_the_undisturbed_one_bitwise(
    tiny: Tiny, tmp_path: Path, undisturbed: tuple[list[float], dict[str, Tensor]], stop: int
) -> None:
    before, _ = fit(tiny, tmp_path, stop)
    after, weights = fit(tiny, tmp_path, 30, resume=True)
    expected_losses, expected_weights = undisturbed
    assert before + after == expected_losses
    assert all(torch.equal(weights[name], tensor) for name, tensor in expected_weights.items())


def test_the_runs_above_cross_the_border_of_an_epoch(tiny: Tiny) -> None:
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=512)
    data.setup("fit")
    assert 5 < len(data.train_dataloader()) < 25


@pytest.mark.parametrize("kind", [StarCoderModule, TokenDataModule, StarEncoderModule, EncoderDataModule])
def test_every_option_of_a_recipe_is_explained(kind: type) -> None:
    """Also those whose explanation is the base class's."""
    parser = ArgumentParser()
    parser.add_class_arguments(kind, "part")
    assert [action.dest for action in parser._actions if not action.help] == []


def test_every_rank_and_micro_batch_draws_masks_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = set()
    for rank in (0, 1):
        for micro_batch in (0, 1):
            progress = SimpleNamespace(fit_loop=SimpleNamespace(total_batch_idx=micro_batch - 1))
            monkeypatch.setattr(StarCoderModule, "trainer", progress)
            monkeypatch.setattr(StarCoderModule, "global_rank", rank)
            module().on_train_batch_start(torch.zeros(0), 0)
            seeds.add(torch.initial_seed())
    assert len(seeds) == 4


class WithGradients(StarCoderModule):
    """Notes before each forward pass whether there are gradients."""

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        self.seen.append(any(p.grad is not None for p in self.parameters()))
        return super().training_step(batch, batch_idx)


def test_gradients_do_not_outlive_their_step(tiny: Tiny) -> None:
    """A model's size in memory at the peak of the next forward pass."""
    model = WithGradients("smoke", SHAPE)
    model.seen = []
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=4, global_batch_size=8)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=3,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        strategy=ShardedStrategy(),
    )
    trainer.fit(model, data)
    assert model.seen == [False, True] * 3


def test_one_batch_is_learned_by_heart(tiny: Tiny) -> None:
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32, batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE | {"n_embd": 64}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    loss = torch.tensor(math.inf)
    for _ in range(300):
        loss = model.loss(batch[:, :-1], batch[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if loss.item() < 0.05:
            break
    assert loss.item() < 0.05


def test_weight_decay_is_for_matrices_alone() -> None:
    trained = module()
    trained.model = StarCoder(StarCoderConfig.preset("smoke", **SHAPE))
    groups = trained.configure_optimizers()["optimizer"].param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
    assert all(p.ndim == 2 for p in groups[0]["params"])
    assert all(p.ndim == 1 for p in groups[1]["params"])
    assert sum(p.numel() for group in groups for p in group["params"]) == trained.model.config.n_params
    assert groups[0]["betas"] == (0.9, 0.95)
    assert groups[0]["eps"] == 1e-8


def test_the_schedule_is_linear_then_cosine_then_constant() -> None:
    factor = [cosine_with_warmup(step, warmup_steps=10, decay_steps=110, floor=0.1) for step in range(200)]
    assert factor[:10] == pytest.approx([(n + 1) / 10 for n in range(10)])
    assert factor[10] == 1.0
    assert factor[60] == pytest.approx(0.55)
    assert factor[110:] == pytest.approx([0.1] * 90)
    assert all(later <= sooner for sooner, later in pairwise(factor[10:]))


def test_without_an_end_there_is_no_cosine(tiny: Tiny, tmp_path: Path) -> None:
    trainer = Trainer(accelerator="cpu", max_steps=-1, max_epochs=1, logger=False, enable_checkpointing=False)
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=32)
    with pytest.raises(UserError, match="decay_steps"):
        trainer.fit(module(decay_steps=None), data)


@pytest.mark.parametrize(
    ("shape", "context_length", "message"),
    [({"vocab_size": 100}, 32, "512 tokens, the model only 100"), ({}, 33, "33")],
)
def test_data_that_does_not_fit_the_model_is_refused(
    tiny: Tiny, shape: dict[str, int], context_length: int, message: str
) -> None:
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    data = TokenDataModule(tiny.train, tiny.tokenizer, context_length=context_length)
    with pytest.raises(UserError, match=message):
        trainer.fit(module(overrides=SHAPE | shape), data)


def test_fine_tuning_starts_from_the_folder_and_keeps_its_shape(tiny: Tiny, tmp_path: Path) -> None:
    start = StarCoder(StarCoderConfig.preset("smoke", **SHAPE), seed=7)
    start.save_pretrained(tmp_path / "start")
    tuned = module(
        init_from=str(tmp_path / "start"), overrides={"dropout": 0.2}, learning_rate=1e-9, min_learning_rate=0
    )
    trainer = Trainer(accelerator="cpu", max_steps=1, logger=False, enable_checkpointing=False)
    trainer.fit(tuned, TokenDataModule(tiny.train, tiny.tokenizer, context_length=32))
    assert tuned.model is not None
    assert tuned.model.config.dropout == 0.2
    for name, tensor in start.state_dict().items():
        assert torch.allclose(tuned.model.state_dict()[name], tensor, atol=1e-6)


def test_a_checkpoint_gives_its_model_back(tiny: Tiny, tmp_path: Path) -> None:
    _, weights = fit(tiny, tmp_path, 2)
    model = load_trained(tmp_path)
    assert model.config.n_embd == SHAPE["n_embd"]
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in weights.items())


def test_fit_from_the_command_line_logs_loss_rate_and_mfu(tiny: Tiny, tmp_path: Path) -> None:
    options = {
        "data.train": tiny.train,
        "data.validation": tiny.validation,
        "data.tokenizer": tiny.tokenizer,
        "data.context_length": 32,
        "model.overrides": json.dumps(SHAPE),
        "trainer.max_steps": 24,
        "trainer.log_every_n_steps": 1,
        "trainer.default_root_dir": tmp_path,
        "trainer.logger.init_args.save_dir": tmp_path / "metrics",
        "checkpoint.folder": tmp_path / "checkpoints",
    }
    arguments = [part for key, value in options.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "starcoder.cli", "fit", "--config", "recipes/smoke.yaml", *arguments]
    places = {"HOME": str(tmp_path / "home"), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}  # as `make` sets it
    environment = os.environ | places | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "step     24/24  loss" in result.stdout
    assert "tok/s" in result.stdout
    assert "% MFU" in result.stdout
    assert newest(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "step-00000024"
    assert not (tmp_path / "home").exists()
    header = (tmp_path / "metrics" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {
        "train_loss",
        "grad_norm",
        "skipped_steps",
        "lr-AdamW/pg1",
        "tokens_per_sec",
        "mfu",
        "data_wait",
        "memory_gib",
    } <= set(header.split(","))
