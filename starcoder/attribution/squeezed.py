"""The view of a text in which white space hides nothing, re-indented and re-wrapped code looks alike; and its lines."""

import re
import sys
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

_BLANK = ord(" ")


@dataclass(frozen=True)
class Squeezed:
    """A text whose runs of white space are one blank, with none at its ends.

    Attributes:
        text: The characters that are left.
        places: Place of each of them in the original, and behind the last one the place where that ends, int64 of
            shape (T + 1,); a blank is where its run begins.
    """

    text: str
    places: NDArray[np.int64]

    def original(self, start: int, end: int) -> tuple[int, int]:
        """Start and end in the original of the characters from `start` to `end`, at least one."""
        return int(self.places[start]), int(self.places[end - 1]) + 1


def squeeze(text: str) -> Squeezed:
    """The view of a text."""
    codes = code_points(text)
    blank = characters(r"\s")[codes]
    keep = ~blank
    keep[1:] |= ~blank[:-1]  # the first blank of a run
    ink = np.flatnonzero(~blank)
    end = int(ink[-1]) + 1 if len(ink) else 0
    keep[end:] = False
    keep[:1] &= ~blank[:1]
    kept = np.flatnonzero(keep)
    left = np.where(blank[kept], np.uint32(_BLANK), codes[kept])
    return Squeezed(left.tobytes().decode("utf-32-le", "surrogatepass"), np.append(kept, end))


def squeezed(text: str) -> str:
    """The text of `squeeze`, without the places: much faster."""
    return " ".join(text.split())


class Lines:
    """The lines of a text, which end with a line feed.

    Attributes:
        count: How many there are.
    """

    def __init__(self, text: str) -> None:
        self._breaks = np.flatnonzero(code_points(text) == ord("\n"))
        self.count = len(self._breaks) + (not text.endswith("\n"))

    def of(self, start: int, end: int) -> tuple[int, int]:
        """First and last line, counted from 1, of the characters from `start` to before `end`, at least one."""
        first, last = np.searchsorted(self._breaks, (start, end - 1)).tolist()
        return first + 1, last + 1


def code_points(text: str) -> NDArray[np.uint32]:
    """The number of each character."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")


@cache
def characters(kind: str) -> NDArray[np.bool_]:
    r"""For every character there is, whether it is of a kind: a regular expression for one character, such as `\s`."""
    table = np.zeros(sys.maxunicode + 1, dtype=bool)
    for run in re.finditer(f"(?:{kind})+", "".join(map(chr, range(sys.maxunicode + 1)))):
        table[run.start() : run.end()] = True
    return table
