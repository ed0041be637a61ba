"""Decontamination speed per CPU second: one automaton and 13-grams beside the original's loop, taking turns in one run.

The texts are source files of the installed packages, which hold no benchmark: what is found in them is printed. The
loop gets fewer of them, as it goes through all strings for each. Run by `make bench`, or
`python -m tests.benchmarks.bench_decontamination [--benchmarks DIR] [--characters N] [--rounds N]`.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

from starcoder.corpus.benchmarks import load_benchmarks
from starcoder.corpus.decontamination import Decontaminator
from tests.benchmarks.bench_tokenizer import code, measure

PUBLISHED = Path(__file__).parents[2] / "../shared/data"


def over(texts: list[str], search: Callable[[str], object]) -> Callable[[], int]:
    """A contender that searches all texts and returns their bytes in UTF-8."""
    size = sum(len(text.encode()) for text in texts)

    def run() -> int:
        for text in texts:
            search(text)
        return size

    return run


def loop(strings: list[str]) -> Callable[[str], list[str]]:
    """The original way: the lower-cased text is searched for each lower-cased string."""

    def search(text: str) -> list[str]:
        folded = text.lower()
        return [string for string in strings if string in folded]

    return search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", type=Path, default=PUBLISHED)
    parser.add_argument("--characters", type=int, default=30_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    benchmarks = load_benchmarks(arguments.benchmarks)
    decontaminator = Decontaminator(benchmarks)
    texts, few = code(arguments.characters, seed=1), code(arguments.characters // 300, seed=1)
    found = list(filter(None, map(decontaminator.find, texts)))
    print(f"{len(benchmarks.strings):,} strings, {len(texts):,} files, found in {len(found)}: {found}")
    contenders = {
        "loop of `string in text`": over(few, loop([string.text.lower() for string in benchmarks.strings])),
        "substring (automaton)": over(texts, decontaminator._substring),
        "13-grams": over(texts, decontaminator._overlap),
        "both, as `find`": over(texts, decontaminator.find),
    }
    rates = measure(contenders, arguments.rounds)
    for name, values in rates.items():
        print(f"{name:<28} {statistics.median(values) / 1e6:8.3f} MB/s")


if __name__ == "__main__":
    main()
