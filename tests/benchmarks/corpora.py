"""The corpus that attribution is measured on: the largest of those that `make` builds."""

from argparse import ArgumentParser
from pathlib import Path

CORPORA = (Path("build/pii/corpus"), Path("build/smoke/corpus"))
"""Of all installed packages (`make pii`), and of a few (`make smoke`)."""


def add_corpus(parser: ArgumentParser) -> None:
    """Let a benchmark be told its corpus, the largest there is unless it is."""
    parser.add_argument("corpus", type=Path, nargs="?", default=next(filter(Path.exists, CORPORA), CORPORA[-1]))


def is_there(corpus: Path) -> bool:
    """Whether there is a corpus; said if not."""
    if not (corpus / "corpus.json").exists():
        print(f"not measured: no corpus in {corpus}; make one with `make smoke` or `make pii`, or name another")
        return False
    return True
