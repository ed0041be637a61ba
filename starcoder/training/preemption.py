"""A run that is told to stop saves first, all ranks at the same step, and its exit code says that it can go on."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from starcoder.distributed import mean_over_ranks
from starcoder.training.checkpoint import Checkpoint

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h, given by rank 0: start the same command again."""
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_ASK_SECONDS = 10.0


@contextmanager
def plain_interrupt() -> Iterator[None]:
    """Let Ctrl-C be a `KeyboardInterrupt` again, which Lightning's trainer turns into exit code 1."""
    try:
        yield
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


class Preemption(Callback):
    """Ends training after SIGTERM or SIGUSR1, on whichever rank it arrives.

    Ranks ask each other every ten seconds, after each step when steps are longer, and as often as steps are logged when
    they are short: asking makes the host wait for the device. Lightning's own way makes it wait at every micro-batch,
    hears rank 0 alone, and communicates inside the signal's handler.
    """

    def __init__(self) -> None:
        self.told = False
        self.stopped = False

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen from here on: loading a large model takes minutes."""
        self.handlers = {number: signal.signal(number, self._hear) for number in _SIGNALS}

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen no more; a run that was told to stop may be told again, and still has to give its exit code."""
        if not self.stopped:
            for number, handler in self.handlers.items():
                signal.signal(number, handler)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in _SIGNALS:  # Lightning has put its own there
            signal.signal(number, self._hear)
        loop: Any = trainer.fit_loop.epoch_loop
        loop._broadcast_sigterm_tensor = _ask_nobody
        self.asked = (trainer.global_step, time.monotonic())
        self.next_step = trainer.global_step + 1

    @override
    def on_train_batch_end(
        self, trainer: Any, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step < self.next_step:
            return
        told, pace = self._ask(trainer)
        self.next_step = trainer.global_step + max(1, min(int(_ASK_SECONDS / pace), trainer.log_every_n_steps))
        self.stopped = told > 0
        if self.stopped:
            trainer.should_stop = True
            trainer.limit_val_batches = 0  # there is no time for the validation with which Lightning ends
            for callback in trainer.callbacks:
                if isinstance(callback, Checkpoint):
                    callback.save(trainer)
            if trainer.is_global_zero:
                print(
                    f"told to stop: saving step {trainer.global_step}, from which the same command goes on", flush=True
                )

    def _ask(self, trainer: Trainer) -> tuple[float, float]:
        """Which share of the ranks was told to stop, and seconds of a step since the last time; all hear the same."""
        now, (step, then) = time.monotonic(), self.asked
        self.asked = (trainer.global_step, now)
        pace = (now - then) / (trainer.global_step - step)
        answers = torch.tensor([float(self.told), pace], device=trainer.strategy.root_device)
        told, pace = mean_over_ranks(answers).tolist()
        return told, pace

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.told = True


def ignore_signals() -> None:
    """Let nothing come between a run that was told to stop, maybe twice, and its exit code."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _ask_nobody() -> None:
    """In the place of Lightning's broadcast."""
