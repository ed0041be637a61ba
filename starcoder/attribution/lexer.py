"""The tokens of code in any language, on the view of a text in which white space hides nothing (paper §8).

A token is a run of letters, digits and underscores (identifiers, keywords, numbers, the words of strings and comments),
or any other single character but white space: `x+=10.5` is `x`, `+`, `=`, `10`, `.`, `5`. That needs no grammar, and a
piece of code has the same tokens wherever it stands: in a file, or alone.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from starcoder.attribution.hashing import BASE, INVERSE, Hashes, mixed
from starcoder.attribution.squeezed import Squeezed, characters, code_points, squeeze


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text.

    Attributes:
        text: The text.
        view: It without superfluous white space.
        starts: Where each token begins in the view's text, int64 of shape (T,).
        ends: Where each of them ends there, of the same shape.
    """

    text: str
    view: Squeezed
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def texts(self) -> list[str]:
        """The tokens themselves."""
        return [self.view.text[a:b] for a, b in zip(self.starts.tolist(), self.ends.tolist(), strict=True)]

    def piece(self, first: int, end: int) -> str:
        """The view's text from token `first` to before token `end`, at least one."""
        return self.view.text[self.starts[first] : self.ends[end - 1]]

    def original(self, first: int, end: int) -> tuple[int, int]:
        """Start and end in the text of the tokens from `first` to before `end`, at least one."""
        return self.view.original(int(self.starts[first]), int(self.ends[end - 1]))

    def originals(self, parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """The same for many parts: first token and end of each, of shape (N, 2), as what is returned."""
        starts, ends = self.starts[parts[:, 0]], self.ends[parts[:, 1] - 1]
        return np.stack((self.view.places[starts], self.view.places[ends - 1] + 1), 1)

    def within(self, parts: NDArray[np.int64]) -> NDArray[np.int64]:
        """First token and end, of shape (N, 2), of the tokens that begin in each part of the text: start and end."""
        return np.searchsorted(self.view.places[self.starts], parts)

    def hashes(self, length: int = 1) -> Hashes:
        """A hash for every sequence of `length` tokens, of the characters from its start to its end.

        Equal pieces of equal or different texts have equal hashes, in this and any other process. They are not made
        to resist somebody who looks for two pieces with the same one.

        Returns:
            uint64 of shape (T - length + 1,), or of no elements.
        """
        count = max(0, len(self) - length + 1)
        starts, ends = self.starts[:count], self.ends[len(self) - count :]
        sums, inverses = self._sums
        return mixed((sums[ends] - sums[starts]) * inverses[starts] + (ends - starts).astype(np.uint64))

    @cached_property
    def _sums(self) -> tuple[Hashes, Hashes]:
        """Σ c·B^i of the characters before each place of the view's text, and B^-i."""
        codes = code_points(self.view.text)
        terms = (mixed(codes.astype(np.uint64)) * _powers(BASE, len(codes))).cumsum(dtype=np.uint64)
        return np.concatenate((np.zeros(1, np.uint64), terms)), _powers(INVERSE, len(codes) + 1)


def lex(text: str) -> Tokens:
    """The tokens of a text."""
    view = squeeze(text)
    codes = code_points(view.text)
    word = characters(r"\w")[codes]
    other = ~word & ~characters(r"\s")[codes]
    starts, ends = word | other, word | other
    starts[1:] &= ~(word[1:] & word[:-1])
    ends[:-1] &= ~(word[1:] & word[:-1])
    return Tokens(text, view, np.flatnonzero(starts), np.flatnonzero(ends) + 1)


def _powers(base: int, count: int) -> Hashes:
    factors = np.full(count, base, dtype=np.uint64)
    factors[:1] = 1
    return factors.cumprod(dtype=np.uint64)
