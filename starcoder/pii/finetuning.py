"""Fine-tuning a token classifier (paper §4.2): its values, and the run of Lightning's trainer."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tokenizers
import torch
from lightning import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor
from torch.utils.data import DataLoader

from starcoder.errors import UserError
from starcoder.pii.examples import Example
from starcoder.pii.ner import NerDetector
from starcoder.pii.tagger import Chunks, Row, StarPII, collate
from starcoder.training.preemption import plain_interrupt

_SECONDS_BETWEEN_LINES = 30.0
_TEXTS_TOGETHER = 64

Epochs = Callable[[int], Sequence[Example]]
"""The examples of an epoch by its number."""


@dataclass(frozen=True)
class Tuning:
    """How a classifier is trained; for the values of the paper see recipes/pii/starpii.yaml.

    Attributes:
        max_epochs: Most passes over the examples.
        chunk: Most tokens of a sample; chunks of a text do not overlap.
        empty_at_first: Share of the chunks without any entity that are trained on in the beginning: a short run learns
            what entities look like before it learns how rare they are.
        empty_at_last: That share in the end, in between it grows with the square of what is over; 1 is all of them.
        batch_size: Samples of an optimizer step, on all devices together.
        learning_rate: Peak of AdamW's schedule, a cosine to 0.
        warmup_steps: Optimizer steps of linear warm-up.
        weight_decay: AdamW's, on matrices alone.
        eval_every: Optimizer steps between two measurements of F1, by which the best weights are chosen and training
            ends early; the last weights are taken, unmeasured, when not given.
        patience: Measurements without progress after which training ends.
        threshold: Progress of F1 below this is none.

    Raises:
        UserError: one of them cannot be.
    """

    max_epochs: int = 1000
    chunk: int = 128
    empty_at_first: float = 0.03
    empty_at_last: float = 0.6
    batch_size: int = 16
    learning_rate: float = 2e-3
    warmup_steps: int = 50
    weight_decay: float = 0.01
    eval_every: int | None = None
    patience: int = 15
    threshold: float = 0.01

    def empty(self, progress: float) -> float:
        """Share of the chunks without any entity that are trained on when `progress` of the run, 0 to 1, is over."""
        return self.empty_at_first + (self.empty_at_last - self.empty_at_first) * min(1.0, progress) ** 2

    def __post_init__(self) -> None:
        least = {"max_epochs": 1, "chunk": 1, "batch_size": 1, "warmup_steps": 0, "weight_decay": 0, "patience": 1}
        wrong = [
            f"{name} is {getattr(self, name)}, below {low}" for name, low in least.items() if getattr(self, name) < low
        ]
        if not self.learning_rate > 0:
            wrong.append(f"learning_rate is {self.learning_rate}, not above 0")
        for name in ("empty_at_first", "empty_at_last"):
            if not 0 <= getattr(self, name) <= 1:
                wrong.append(f"{name} is {getattr(self, name)}, not between 0 and 1")
        if self.eval_every is not None and self.eval_every < 1:
            wrong.append(f"eval_every is {self.eval_every}, below 1")
        if wrong:
            raise UserError("tuning: " + "; ".join(wrong))


class ExampleData(LightningDataModule):
    """Chunks of the examples of each epoch, and whole examples to measure with.

    Args:
        tokenizer: The encoder's.
        epochs: The examples of an epoch.
        held_out: Number of examples to measure F1 with.
        chunk: Most tokens of a sample.
        batch_size: Samples a batch.
        seed: What order and cuts are a function of.
        empty: Share of the chunks without any entity that an epoch has, asked when it begins.
    """

    def __init__(
        self,
        tokenizer: tokenizers.Tokenizer,
        epochs: Epochs,
        held_out: int,
        chunk: int,
        batch_size: int,
        seed: int,
        empty: Callable[[], float],
    ) -> None:
        super().__init__()
        self._tokenizer, self._epochs, self._held_out, self._empty = tokenizer, epochs, held_out, empty
        self._chunk, self._batch_size, self._seed = chunk, batch_size, seed

    def train_dataloader(self) -> DataLoader[Row]:
        """Batches of `collate`, shuffled; chunks begin elsewhere in every epoch."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        rng = np.random.default_rng([self._seed, epoch])
        rows = Chunks(self._epochs(epoch), self._tokenizer, self._chunk, rng, self._empty())
        if not len(rows):
            raise UserError("there is nothing to train on: the examples have no text")
        order = torch.Generator().manual_seed(int(rng.integers(2**63)))
        return DataLoader(rows, self._batch_size, shuffle=True, generator=order, collate_fn=collate)

    def val_dataloader(self) -> DataLoader[int]:
        """Numbers of examples."""
        return DataLoader(range(self._held_out), _TEXTS_TOGETHER)  # type: ignore[arg-type]


class Progress(Callback):
    """Knows how much of a run is over, ends it when its time is, and says now and then how it goes.

    Args:
        minutes: Time of the run; as long as its steps take when not given.
    """

    def __init__(self, minutes: float | None) -> None:
        self._seconds = minutes * 60 if minutes else float("inf")
        self._began = self._said = time.monotonic()
        self.share = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Any, batch_idx: int
    ) -> None:
        """Look at the clock; all processes at the first one's, so that they end together."""
        now = time.monotonic()
        share = max((now - self._began) / self._seconds, trainer.global_step / trainer.estimated_stepping_batches)
        self.share = trainer.strategy.broadcast(share)
        if self.share >= 1:
            trainer.should_stop = True
        if trainer.is_global_zero and now - self._said > _SECONDS_BETWEEN_LINES:
            self._said = now
            loss = float(trainer.callback_metrics["train_loss"])
            print(f"step {trainer.global_step:>6}  loss {loss:.4f}  {self.share:.0%}", flush=True)


class Best(Callback):
    """Keeps the weights whose `val_f1` is the highest, and puts them back when training is over."""

    def __init__(self) -> None:
        self._f1, self._weights = -1.0, dict[str, Tensor]()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compare."""
        f1 = float(trainer.callback_metrics["val_f1"])
        if trainer.is_global_zero:
            print(f"step {trainer.global_step:>6}  F1 {f1:.4f}", flush=True)
        if f1 > self._f1:
            self._f1 = f1
            self._weights = {name: value.cpu().clone() for name, value in pl_module.state_dict().items()}

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put them back."""
        if self._weights:
            pl_module.load_state_dict(self._weights)


def finetune(
    detector: NerDetector,
    epochs: Epochs,
    held_out: Sequence[Example],
    tuning: Tuning,
    minutes: float | None = None,
    accelerator: str = "auto",
    devices: int = 1,
    seed: int = 1234,
) -> None:
    """Train a detector's model in place.

    Args:
        detector: Holds the model; its window and overlap are those of the measurements.
        epochs: The examples of an epoch.
        held_out: Examples to measure F1 with.
        tuning: How.
        minutes: Most time to train.
        accelerator: `cpu`, `cuda` or `auto`.
        devices: Processes that train together.
        seed: What order and cuts are a function of.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the trainer has shut down.
    """
    progress = Progress(minutes)
    measured: dict[str, Any] = {"limit_val_batches": 0}
    callbacks: list[Callback] = [progress]
    if tuning.eval_every is not None:
        measured = {"val_check_interval": tuning.eval_every, "check_val_every_n_epoch": None}
        callbacks += [Best(), EarlyStopping("val_f1", tuning.threshold, tuning.patience, mode="max")]
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        precision="32-true" if accelerator == "cpu" else "bf16-mixed",
        max_epochs=tuning.max_epochs,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **measured,
    )
    share = tuning.batch_size // devices
    data = ExampleData(
        detector.tokenizer, epochs, len(held_out), tuning.chunk, share, seed, lambda: tuning.empty(progress.share)
    )
    values = tuning.learning_rate, tuning.warmup_steps, tuning.weight_decay
    module = StarPII(detector, held_out, *values, lambda: progress.share)
    detector.model.train()
    with plain_interrupt():
        trainer.fit(module, data)
    detector.model.eval()
