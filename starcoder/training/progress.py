"""What a run tells: speed, waiting and memory when the trainer logs, and one plain line every few steps.

Nothing here makes the host wait for the device but at the steps that are logged, where it waits anyhow.
"""

import gc
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from torch import Tensor
from typing_extensions import override

from starcoder.linear import linear
from starcoder.training.base import TrainingModule
from starcoder.training.loader import TrainingLoader
from starcoder.training.planner.hardware import peak_of_device

_SHOWN = ("train_loss", "grad_norm", "skipped_steps", "tokens_per_sec", "mfu", "data_wait")


class Throughput(Callback):
    """Logs speed, waiting and memory whenever the trainer logs, averaged since the last time.

    `tokens_per_sec` of all devices, `tokens_per_sec_per_device`, `steps_per_sec`; `mfu`, the share of the device's peak
    that forward and backward use by PaLM's convention (`StarCoderConfig.flops_per_token`: recomputation is not counted,
    the whole attention square is); `data_wait`, the share of time spent waiting for batches; `memory_gib`, the peak on
    this device, or of this process on a CPU, since the run began. The peak rate of a CPU is measured at the start.
    """

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        self.peak_flops = matmul_peak(torch.float32) if device.type == "cpu" else peak_of_device(device)
        self._begin(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the time of validation out."""
        if trainer.training or trainer.state.fn == "fit":
            self._begin(trainer)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        tokens, flops = pl_module.work(batch)
        self.tokens += tokens * trainer.world_size
        self.flops += flops
        if trainer.global_step == self.step or trainer.global_step % _log_every_n_steps(trainer):
            return
        if trainer.strategy.root_device.type == "cuda":
            torch.cuda.synchronize()
        pl_module.log_dict(self._metrics(trainer))
        self._begin(trainer)

    def _begin(self, trainer: Trainer) -> None:
        self.step, self.tokens, self.flops = trainer.global_step, 0, 0
        self.waited = _seconds_waited(trainer)
        self.start = time.perf_counter()

    def _metrics(self, trainer: Trainer) -> dict[str, float]:
        seconds = time.perf_counter() - self.start
        per_device = self.tokens / seconds / trainer.world_size
        metrics = {
            "tokens_per_sec": self.tokens / seconds,
            "tokens_per_sec_per_device": per_device,
            "steps_per_sec": (trainer.global_step - self.step) / seconds,
            "data_wait": (_seconds_waited(trainer) - self.waited) / seconds,
            "memory_gib": _peak_memory(trainer.strategy.root_device) / 2**30,
        }
        if self.peak_flops:
            metrics["mfu"] = self.flops / seconds / self.peak_flops
        return metrics


class ProgressBar(TQDMProgressBar):
    """Lightning's bar with loss, gradient norm, skipped steps, tokens/s and MFU of the last step that was logged.

    Whatever is logged for Lightning's own is fetched from the device at every micro-batch.
    """

    @override
    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        if trainer.global_step % _log_every_n_steps(trainer) == 0:
            metrics = trainer.callback_metrics
            self.shown = {name: f"{float(metrics[name]):.4g}" for name in _SHOWN if name in metrics}
        return super().get_metrics(trainer, pl_module) | getattr(self, "shown", {})


class QuietCollector(Callback):
    """Python's garbage collector at fixed steps instead of any moment: on many ranks each pause is a pause of all.

    Args:
        every_n_steps: optimizer steps between two collections.
    """

    def __init__(self, every_n_steps: int = 1000) -> None:
        self.every_n_steps = every_n_steps
        self.collected_step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.collected_step = trainer.global_step
        gc.collect()
        gc.disable()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if step != self.collected_step and step % self.every_n_steps == 0:
            self.collected_step = step
            gc.collect(1)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        gc.enable()


class LogLines(Callback):
    """Prints step, loss, learning rate, tokens/s and MFU every few steps, on rank 0.

    Args:
        every_n_steps: optimizer steps between two lines; best a multiple of `trainer.log_every_n_steps`.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self.printed_step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.printed_step = trainer.global_step

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and "val_loss" in trainer.callback_metrics:
            print(
                f"step {trainer.global_step:>6}  validation loss {trainer.callback_metrics['val_loss']:.4f}", flush=True
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self.printed_step:  # micro-batches of one step
            return
        if step % self.every_n_steps and step != trainer.max_steps:
            return
        self.printed_step = step
        metrics = trainer.callback_metrics
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = f"step {step:>6}/{trainer.max_steps}  loss {float(metrics['train_loss']):.4f}  lr {rate:.2e}"
        if "tokens_per_sec" in metrics:
            line += f"  {metrics['tokens_per_sec']:,.0f} tok/s"
        if "mfu" in metrics:
            line += f"  {metrics['mfu']:.1%} MFU"
        print(line, flush=True)


def matmul_peak(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """FLOP/s of the best of a few square products on the CPU: torch's and ours, with the threads that torch uses."""
    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    best = min(_seconds(product, a, b) for product in (torch.mm, linear) for _ in range(repeats + 1))
    return 2 * size**3 / best


def _seconds(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    start = time.perf_counter()
    product(a, b)
    return time.perf_counter() - start


def _log_every_n_steps(trainer: Any) -> int:
    """A setting that Lightning keeps on the trainer without declaring it."""
    return int(trainer.log_every_n_steps)


def _seconds_waited(trainer: Trainer) -> float:
    loader = trainer.train_dataloader
    return loader.seconds_waited if isinstance(loader, TrainingLoader) else 0.0


def _peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
