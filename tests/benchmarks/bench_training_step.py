"""Training step against transformers' GPTBigCode: the same weights, batches and fused AdamW, turn by turn.

A model of 6 × 512 (42 M parameters, 8 heads, MQA, V = 49152, dropout 0) does forward, backward and AdamW on 4 × 1024
random tokens, with fp32 parameters and with bf16 ones (`model.to`) on both sides; transformers runs SDPA without a
cache of keys and values. Ratio: median over the rounds of their time divided by ours. Peak memory is that of separate
processes that run nothing else. Run by `make bench`, or
`python tests/benchmarks/bench_training_step.py [--rounds N] [--dtypes float32 bfloat16]`.
"""

import argparse
import multiprocessing
import platform
import resource
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import Tensor

from starcoder.model import StarCoder, StarCoderConfig

CONFIG = StarCoderConfig(context_length=1024, n_layer=6, n_head=8, n_embd=512, n_inner=2048, dropout=0.0)
BATCH, LENGTH = 4, 1024
GOALS = {"float32": 1.5, "bfloat16": 1.3}
SIDES = ("transformers", "here")

Loss = Callable[[Tensor, Tensor], Tensor]


def build(side: str, dtype: torch.dtype) -> tuple[torch.nn.Module, Loss]:
    """One side's model and its loss; both start from the same weights, rounded to dtype."""
    ours = StarCoder(CONFIG, seed=1)
    if side == "here":
        model = ours.to(dtype)
        return model, model.loss
    from transformers import GPTBigCodeConfig, GPTBigCodeForCausalLM  # the other side's memory must not pay for it

    from starcoder.release.folder import to_transformers

    settings = to_transformers(CONFIG) | {"use_cache": False, "attn_implementation": "sdpa"}
    theirs = GPTBigCodeForCausalLM(GPTBigCodeConfig(**settings))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    theirs.to(dtype).train()
    return theirs, lambda tokens, targets: theirs(tokens, labels=targets, shift_labels=targets).loss


def batch(index: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(index)
    window = torch.randint(CONFIG.vocab_size, (BATCH, LENGTH + 1), generator=generator)
    return window[:, :-1].contiguous(), window[:, 1:].contiguous()


class Trainer:
    """One side with its optimizer."""

    def __init__(self, side: str, dtype: torch.dtype) -> None:
        self.model, self.loss = build(side, dtype)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)

    def step(self, index: int) -> tuple[float, float, float]:
        """Wall seconds, CPU seconds of the main thread, and the loss."""
        tokens, targets = batch(index)
        wall, cpu = time.perf_counter(), time.thread_time()
        loss = self.loss(tokens, targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return time.perf_counter() - wall, time.thread_time() - cpu, loss.item()


def peak_memory(side: str, dtype: torch.dtype) -> float:
    """GiB at the peak of three steps, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, (side, dtype))


def _peak_memory(side: str, dtype: torch.dtype) -> float:
    trainer = Trainer(side, dtype)
    for index in range(3):
        trainer.step(index)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def compare(name: str, rounds: int, memory: list[float]) -> None:
    """Print one dtype's table."""
    from starcoder.training.progress import matmul_peak  # imports Lightning, which the memory must not pay for

    dtype = getattr(torch, name)
    with torch.no_grad():
        expected = build("here", torch.float32)[1](*batch(0)).item()
    trainers = [Trainer(side, dtype) for side in SIDES]
    first = [trainer.step(0) for trainer in trainers]
    steps = [[trainer.step(index) for trainer in trainers] for index in range(1, rounds + 1)]
    peak = matmul_peak(dtype) / 1e9

    print(f"\n{name}: {peak:.0f} GFLOP/s measured for a product of 2048 × 2048")
    for i, side in enumerate(SIDES):
        seconds = statistics.median(step[i][0] for step in steps)
        rate = BATCH * LENGTH / seconds
        flops = rate * CONFIG.flops_per_token(LENGTH) / 1e9
        print(
            f"  {side:<14}{rate:7.0f} tok/s  {flops:6.0f} GFLOP/s = {flops / peak:4.0%} of it   "
            f"peak {memory[i]:.2f} GiB   first loss {first[i][2]:.5f}, {first[i][2] - expected:+.1e} from fp32"
        )
    for i, clock in enumerate(("wall", "CPU time of the main thread")):
        ratios = sorted(theirs[i] / ours[i] for theirs, ours in steps)
        goal = f", goal {GOALS[name]}" if clock == "wall" else ""
        print(f"  ratio {statistics.median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f}) in {clock}{goal}")
    print(f"  peak memory {memory[1] / memory[0]:.2f} of theirs, goal 0.5", flush=True)


def processor() -> str:
    """Name of the CPU, as Linux gives it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtypes", nargs="+", choices=list(GOALS), default=list(GOALS))
    arguments = parser.parse_args()
    print(f"training step, {BATCH} x {LENGTH} tokens, {CONFIG.n_params / 1e6:.1f} M parameters")
    print(f"{processor()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {datetime.now(UTC):%Y-%m-%d}")
    # A child's peak counts from its parent's size at the start, so this comes before any model is built here.
    memory = {name: [peak_memory(side, getattr(torch, name)) for side in SIDES] for name in arguments.dtypes}
    for name in arguments.dtypes:
        compare(name, arguments.rounds, memory[name])


if __name__ == "__main__":
    main()
