"""What a run tells: tokens per second, FLOP/s and MFU, and one plain line every few steps."""

import time
from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ThroughputMonitor
from torch import Tensor
from typing_extensions import override

from starcoder.linear import linear


class Throughput(ThroughputMonitor):
    """Lightning's monitor for token batches (B, T+1); on a CPU the peak is measured, since no table lists it.

    Logs `train/device/items_per_sec` (tokens), `train/device/flops_per_sec` and `train/device/mfu`.

    Args:
        window_size: micro-batches that the rates are averaged over.
    """

    def __init__(self, window_size: int = 20) -> None:
        super().__init__(batch_size_fn=len, length_fn=_n_tokens, window_size=window_size)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if trainer.strategy.root_device.type == "cpu":
            dtype = torch.bfloat16 if "bf16" in str(trainer.precision) else torch.float32
            self.available_flops = int(matmul_peak(dtype))
            for throughput in self._throughputs.values():
                throughput.available_flops = self.available_flops


class LogLines(Callback):
    """Prints step, loss, learning rate, tokens/s and MFU every few steps, on rank 0.

    Args:
        every_n_steps: optimizer steps between two lines; best a multiple of `trainer.log_every_n_steps`.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self.printed_step = 0

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: Tensor, batch_idx: int
    ) -> None:
        step = trainer.global_step
        if not trainer.is_global_zero or step == self.printed_step:  # micro-batches of one step
            return
        if step % self.every_n_steps and step != trainer.max_steps:
            return
        self.printed_step = step
        metrics = trainer.logged_metrics
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        line = f"step {step:>6}/{trainer.max_steps}  loss {float(metrics['train_loss']):.4f}  lr {rate:.2e}"
        if "train/device/items_per_sec" in metrics:
            line += f"  {metrics['train/device/items_per_sec']:,.0f} tok/s"
        if "train/device/mfu" in metrics:
            line += f"  {metrics['train/device/mfu']:.1%} MFU"
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


def _n_tokens(batch: Tensor) -> int:
    return batch.size(0) * (batch.size(1) - 1)
