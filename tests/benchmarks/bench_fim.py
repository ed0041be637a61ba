"""What fill-in-the-middle costs a data worker: windows of 8,193 tokens of real code to a batch, per CPU second.

Contenders take turns in one run: no FIM, FIM, and FIM as the released training code did it, that is by decoding and
encoding with `tokenizers`. Run by `make bench`, or `python -m tests.benchmarks.bench_fim [--windows N] [--rounds N]`.
"""

import argparse
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starcoder.tokenizer import EOD, Tokenizer
from starcoder.training.fim import fim_permute, sample_rng
from tests.benchmarks.bench_tokenizer import code, measure, show, tokenizers

WINDOW = 8193
BATCH = 4


class PlainTokenizer(Tokenizer):
    """Encodes and decodes with `tokenizers`."""

    def encode(self, text: str) -> list[int]:
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int], errors: str = "replace") -> str:
        return self.backend.decode(ids, skip_special_tokens=False)


def windows(tokenizer: Tokenizer, count: int) -> list[NDArray[np.uint16]]:
    """Real files packed back to back, as token shards hold them."""
    flat = [i for text in code(5 * WINDOW * count, seed=3) for i in [*tokenizer.encode(text), EOD]]
    packed = np.array(flat, dtype=np.uint16)
    return [packed[start : start + WINDOW] for start in range(0, len(packed) - WINDOW, WINDOW)][:count]


def collate(samples: list[NDArray[np.uint16]]) -> Tensor:
    """(T + 1,) each -> (B, T + 1) int64."""
    return torch.from_numpy(np.stack(samples).astype(np.int64))


def load_all(samples: list[NDArray[np.uint16]], tokenizer: Tokenizer, rate: float) -> Callable[[], int]:
    def run() -> int:
        tokens = 0
        for start in range(0, len(samples), BATCH):
            batch = [
                fim_permute(sample, sample_rng(0, 0, start + i), tokenizer, rate=rate)
                for i, sample in enumerate(samples[start : start + BATCH])
            ]
            tokens += collate(batch).numel()
        return tokens

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--windows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    for title, tokenizer in tokenizers().items():
        samples = windows(tokenizer, arguments.windows)
        contenders = {
            "FIM 0.5 with tokenizers + collation": load_all(samples, PlainTokenizer(tokenizer.backend), 0.5),
            "FIM 0.5 + collation": load_all(samples, tokenizer, 0.5),
            "FIM 1.0 + collation": load_all(samples, tokenizer, 1.0),
            "collation alone": load_all(samples, tokenizer, 0.0),
        }
        show(title, measure(contenders, arguments.rounds))


if __name__ == "__main__":
    main()
