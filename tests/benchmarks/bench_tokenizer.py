"""Encoding speed per CPU second: ours (tiktoken over the same merges) beside `tokenizers`, taking turns in one run.

Run by `make bench`, or `python -m tests.benchmarks.bench_tokenizer [--characters N] [--rounds N]`.
"""

import argparse
import random
import statistics
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from starcoder.tokenizer import Tokenizer, load, train

RELEASED = Path(__file__).parents[2] / "../shared/data/starcoder-tokenizer"
SUFFIXES = {".py", ".pyi", ".js", ".h", ".md", ".json", ".css", ".rst"}


def code(characters: int, seed: int) -> list[str]:
    """Source files of the installed packages in random order, about `characters` in all."""
    files = [file for file in Path(sysconfig.get_path("purelib")).rglob("*") if file.suffix in SUFFIXES]
    random.Random(seed).shuffle(files := sorted(files))

    def texts() -> Iterator[str]:
        left = characters
        for file in files:
            text = file.read_bytes().decode("utf-8", "replace")[:200_000]
            left -= len(text)
            yield text
            if left < 0:
                return

    return list(texts())


def tokenizers() -> dict[str, Tokenizer]:
    """A vocabulary learned here, and the released one where it lies beside the repository."""
    learned = train(code(8_000_000, seed=1), 16_384)
    found = {"released": load(RELEASED)} if RELEASED.is_dir() else {}
    return {f"learned {learned.vocab_size}": learned, **found}


def measure(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Tokens per CPU second of each contender, in each round; a contender returns its number of tokens."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            start = time.process_time()
            tokens = contender()
            rates[name].append(tokens / (time.process_time() - start))
    return rates


def show(title: str, rates: dict[str, list[float]]) -> None:
    """Print the median of each contender and its median ratio to the first."""
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{title:>16}  {name:<36} {statistics.median(values) / 1e6:6.2f} Mtok/s  x {ratio:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=3_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    texts = code(arguments.characters, seed=2)
    for title, tokenizer in tokenizers().items():
        backend = tokenizer.backend
        contenders = {
            "tokenizers encode": lambda backend=backend: sum(len(backend.encode(text).ids) for text in texts),
            "tokenizers encode_batch": lambda backend=backend: sum(len(e.ids) for e in backend.encode_batch(texts)),
            "starcoder encode": lambda tokenizer=tokenizer: sum(len(tokenizer.encode(text)) for text in texts),
            "starcoder encode and decode": lambda tokenizer=tokenizer: sum(
                len(ids) for ids in tokenizer.encode_batch(texts) if tokenizer.decode(ids)
            ),
        }
        show(title, measure(contenders, arguments.rounds))


if __name__ == "__main__":
    main()
