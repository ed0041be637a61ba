"""Traces written by hand."""

from dataclasses import replace

from starcoder.attribution.corpus import Address
from starcoder.attribution.trace import Chain, Match, Similar, Source, Trace

TEXT = "import os\n\n\ndef area(width, height):\n    total = width * height\n    return total\n\n\nprint(area(2, 3))\n"
SOURCE = Source("ann/lib", "geometry.py", "python", ("MIT",), (10, 12), 3, None, "abc", Address(0, 1), 100, 170)


def match(first: int, last: int, score: float = 500.0, tokens: int = 60, **fields: object) -> Match:
    """A match of whole lines of TEXT in `SOURCE`."""
    lines = TEXT.splitlines(keepends=True)
    start = sum(map(len, lines[: first - 1]))
    end = start + len("".join(lines[first - 1 : last]).rstrip("\n"))
    base = Match(start, end, (first, last), tokens, score, 1.0, 1, (SOURCE,))
    return replace(base, **fields)  # type: ignore[arg-type]


def trace(
    matches: tuple[Match, ...] = (),
    similar: tuple[Similar, ...] = (),
    aside: tuple[Match, ...] = (),
    chains: tuple[Chain, ...] = (),
) -> Trace:
    """A trace of TEXT."""
    return Trace(TEXT, 40, matches, aside, chains, similar)
