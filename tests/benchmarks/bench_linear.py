"""The products of a linear layer in fp32 on CPU by MKL, oneDNN and slices: the tables of `starcoder/linear.py`.

Run by `make bench`, or `python -m tests.benchmarks.bench_linear [--rounds N]`.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from starcoder.linear import linear, multiply_in_slices, onednn

TRAINING_ROWS = 4096
LAYERS = ((2048, 512), (512, 2048), (640, 512))
HEAD = (49_152, 512)
DECODING_ROWS = (1, 2, 8, 32)


def medians(contenders: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Median seconds of each contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def training(n: int, c: int, rounds: int) -> None:
    """GFLOP/s of the three products that a layer's training step makes."""
    x, weight, grad = torch.randn(TRAINING_ROWS, c), torch.randn(n, c), torch.randn(TRAINING_ROWS, n)
    products: dict[str, dict[str, Callable[[], Tensor]]] = {
        "output": {"MKL": lambda: x @ weight.t(), "oneDNN": lambda: onednn(x, weight)},
        "gradient of x": {"MKL": lambda: grad @ weight, "oneDNN": lambda: onednn(grad, weight.t())},
        "gradient of the weight": {"MKL": lambda: grad.t() @ x, "oneDNN": lambda: onednn(grad.t(), x.t())},
    }
    flops = 2 * TRAINING_ROWS * n * c / 1e9
    for product, contenders in products.items():
        rates = {name: flops / seconds for name, seconds in medians(contenders, rounds).items()}
        print(f"{f'({n}, {c})':<14} {product:<24}" + "".join(f"{name} {rate:6.0f}   " for name, rate in rates.items()))


def decoding(rows: int, rounds: int) -> None:
    """GB/s at which the head's weight is read."""
    weight, x = torch.randn(HEAD), torch.randn(rows, HEAD[1])
    contenders: dict[str, Callable[[], Tensor]] = {
        "MKL": lambda: F.linear(x, weight),
        "oneDNN": lambda: onednn(x, weight),
        "slices": lambda: multiply_in_slices(x, weight),
        "here": lambda: linear(x, weight),
    }
    rates = {name: weight.nbytes / seconds / 1e9 for name, seconds in medians(contenders, rounds).items()}
    print(f"{rows:>3} rows  " + "".join(f"{name} {rate:6.1f}   " for name, rate in rates.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    with torch.inference_mode():
        print(f"GFLOP/s with {TRAINING_ROWS} rows, {torch.get_num_threads()} threads")
        for n, c in LAYERS:
            training(n, c, rounds)
        print(f"GB/s of the {HEAD} head")
        for rows in DECODING_ROWS:
            decoding(rows, rounds)


if __name__ == "__main__":
    main()
