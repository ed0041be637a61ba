"""Windows of 50 characters: their hashes, and the chains that found ones make (paper §8).

A window's hash is a function of its 50 code points alone, the same on every machine and in every version of Python: the
polynomial of the code points modulo 2^64, whose bits are then mixed. Code points, not bytes, as windows are counted in
characters: all windows of a text are hashed in a few passes over an array with one number a character.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from starcoder.attribution.hashing import BASE, INVERSE, Hashes, mixed
from starcoder.attribution.squeezed import code_points

WINDOW = 50
"""Characters of a window, and from one stored window to the next."""

_BLOCK = WINDOW * 2**11  # characters that are hashed at a time; the arrays fit in a cache


def _powers(base: int) -> Hashes:
    return np.multiply.accumulate(np.full(_BLOCK + WINDOW, base, np.uint64))


_POWERS, _INVERSES = _powers(BASE), _powers(INVERSE)


def hashes(text: str, stride: int = 1) -> Iterator[Hashes]:
    """Yield the hashes of the windows that begin at 0, `stride`, 2 `stride`, … of a text, in their order, by the block.

    Args:
        text: Fewer than 50 characters have no window.
        stride: A divisor of 50.
    """
    for start in range(0, len(text) - WINDOW + 1, _BLOCK):
        yield _block(text[start : start + _BLOCK + WINDOW - 1], stride)


def _block(text: str, stride: int) -> Hashes:
    values = code_points(text) * _POWERS[: len(text)]
    sums = np.concatenate([np.zeros(1, np.uint64), values.cumsum(dtype=np.uint64)])
    polynomials = sums[WINDOW::stride] - sums[:-WINDOW:stride]
    return mixed(polynomials * _INVERSES[: len(text) - WINDOW + 1 : stride])


def runs(found: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The longest possible chains of found windows that are exactly 50 characters apart; the first miss ends one.

    Args:
        found: Whether the window is found that begins at each character.

    Returns:
        The characters at which the chains begin, and their numbers of windows; by length, then by beginning.
    """
    rows = len(found) // WINDOW + 1
    grid = np.zeros(rows * WINDOW, bool)
    grid[: len(found)] = found
    columns = np.pad(grid.reshape(rows, WINDOW), ((1, 1), (0, 0))).T.ravel().astype(np.int8)  # a miss around each
    turns = np.diff(columns)
    begins = np.flatnonzero(turns == 1)
    windows = np.flatnonzero(turns == -1) - begins
    column, row = np.divmod(begins, rows + 2)
    starts = row * WINDOW + column
    order = np.lexsort((starts, -windows))
    return starts[order], windows[order]


def stretches(found: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """What chains cover: first character, the one behind the last, and the windows of the longest chain there.

    Chains that overlap make one stretch, so that no two overlap: a text that repeats itself has chains from each of 50
    characters. The longest chain is first, then the first of equal ones.
    """
    starts, windows = runs(found)
    if not len(starts):
        return []
    order = np.argsort(starts)
    starts, windows = starts[order], windows[order]
    reached = np.maximum.accumulate(starts + WINDOW * windows)
    firsts = np.flatnonzero(np.append(True, starts[1:] >= reached[:-1]))
    ends = reached[np.append(firsts[1:], len(starts)) - 1]
    longest = np.maximum.reduceat(windows, firsts)
    by_length = np.lexsort((firsts, -longest))
    return [(int(starts[firsts[n]]), int(ends[n]), int(longest[n])) for n in by_length]
