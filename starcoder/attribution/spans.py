"""Verbatim spans: the longest pieces of a text that stand word for word in other documents (paper §8).

A span is a sequence of tokens of the query that stands in a document in the same characters, white space aside, and
that no token before or after it extends to a longer one that stands anywhere in that document. It may cross lines.

Windows of `tokens` tokens are joined by their hash. The windows that both sides have, as sequences of names, are sorted
by prefix doubling; the longest match of a place of the query in a document is with a neighbour of it in that order. So
the work grows with the length of the texts, not with the number of pairs of places that match.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from starcoder.attribution.corpus import Address
from starcoder.attribution.lexer import Tokens
from starcoder.attribution.squeezed import Lines, characters, code_points, squeeze

TOKENS = 8
"""The shortest span."""

CHARACTERS = 20
"""The shortest span without superfluous white space."""

Integers = NDArray[np.int64]


class Place(NamedTuple):
    """Where a span stands.

    Attributes:
        address: The document.
        start: Its first character in the document's original text.
        end: Behind its last one.
        lines: Its first and its last line there, counted from 1.
    """

    address: Address
    start: int
    end: int
    lines: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a query that stands in other documents.

    Attributes:
        start: Its first character in the original query.
        end: Behind its last one.
        text: The query's characters between them.
        places: One place in each document that was looked at and has it.
        count: Documents that have it, as far as that is known; never less than places.
    """

    start: int
    end: int
    text: str
    places: tuple[Place, ...]
    count: int


class Spans:
    """The maximal verbatim spans of a query in documents.

    A span that is maximal in one document stands in all that have it, those with more around it too. A query that
    repeats itself has many more spans than tokens, and each in many places: here they are numbers, and `tell` tells
    those that are asked for.

    Args:
        query: The tokens of the text to trace.
        documents: Those of the documents, by their addresses.
        tokens: The shortest span in tokens, at least 2: windows that overlap tell whether a blank is between tokens.
        characters: The shortest span in characters of the query without superfluous white space.
        count: In how many documents a part of the query stands, from its start to its end, as far as is known besides.

    Attributes:
        documents: Those that it was given.
        parts: Start and end of each span in the original query, the longest first, int64 of shape (N, 2).

    Raises:
        ValueError: `tokens` is less than 2.
    """

    def __init__(
        self,
        query: Tokens,
        documents: Mapping[Address, Tokens],
        tokens: int = TOKENS,
        characters: int = CHARACTERS,
        count: Callable[[int, int], int] = lambda start, end: 0,
    ) -> None:
        if tokens < 2:
            raise ValueError(f"spans of {tokens} tokens: 2 or more")
        self.documents, self._query, self._count = documents, query, count
        self._joined = _Joined(query, list(documents.values()), tokens)
        self._spans = _long(query, self._joined.maximal(), characters)
        self.parts = query.originals(self._spans)

    def groups(self, names: Sequence[str]) -> Integers:
        """In how many groups of documents each span stands as far as hashes tell, int64 of shape (N,).

        Args:
            names: The group of each document, such as its repository.
        """
        rows = {name: row for row, name in enumerate(dict.fromkeys(names))}
        stands = np.zeros((len(rows), len(self._spans)), dtype=bool)
        for name, (which, _) in zip(names, self._joined.standing(self._spans), strict=True):
            stands[rows[name], which] = True
        counts: Integers = stands.sum(axis=0)
        return counts

    def tell(self, numbers: Sequence[int]) -> list[Span]:
        """The spans of some numbers, in their order, with the places that are verified: there may be none."""
        chosen = np.array(numbers, np.int64)
        spans = self._spans[chosen]
        places: list[list[Place]] = [[] for _ in spans]
        standing = self._joined.standing(spans)
        for (address, there), (which, first) in zip(self.documents.items(), standing, strict=True):
            for row, place in self._places(address, there, spans[which], first):
                places[which[row]].append(place)
        return [
            Span(start, end, self._query.text[start:end], tuple(at), max(len(at), self._count(start, end)))
            for (start, end), at in zip(self.parts[chosen].tolist(), places, strict=True)
        ]

    def _places(self, address: Address, there: Tokens, spans: Integers, first: Integers) -> Iterator[tuple[int, Place]]:
        """The rows of the spans that are verified to stand at some tokens of a document, and their places."""
        if not len(spans):
            return
        lines = Lines(there.text)
        pieces = np.stack((first, first + spans @ (-1, 1)), 1)
        for row, (own, other) in enumerate(zip(spans.tolist(), pieces.tolist(), strict=True)):
            if self._query.piece(*own) == there.piece(*other):
                part = there.original(*other)
                yield row, Place(address, *part, lines.of(*part))


def verify(query: str, span: Span, place: Place, document: str) -> bool:
    """Whether a span of a query stands at a place of a document: independent of how it was found, and never wrong.

    Both must be the same characters when white space is squeezed, begin and end between tokens, and be described truly.
    """
    there = document[place.start : place.end]
    first = document.count("\n", 0, place.start) + 1
    return (
        bool(there)
        and span.text == query[span.start : span.end]
        and squeeze(span.text).text == squeeze(there).text
        and place.lines == (first, first + there.count("\n"))
        and all(
            _between(text, at) for text, part in ((query, span), (document, place)) for at in (part.start, part.end)
        )
    )


def _between(text: str, at: int) -> bool:
    """Whether no token goes on from the character before `at` to the one behind."""
    return not characters(r"\w")[code_points(text[max(0, at - 1) : at + 1])].all() or at in (0, len(text))


def _long(query: Tokens, spans: Integers, characters: int) -> Integers:
    """Those of at least so many characters, the longest first."""
    sizes = query.ends[spans[:, 1] - 1] - query.starts[spans[:, 0]]
    order = np.lexsort((spans[:, 0], -sizes))
    return spans[order[sizes[order] >= characters]]


class _Joined:
    """The windows that a query and documents have in common, in lexicographic order of what follows them.

    Args:
        asked: The query.
        documents: The documents.
        size: Tokens of a window.
    """

    def __init__(self, asked: Tokens, documents: Sequence[Tokens], size: int) -> None:
        self.size = size
        self.names = 0
        names, places = self._common(asked, documents)
        self.place = np.concatenate(places)
        self.bounds = np.cumsum([0, *map(len, places)])
        self.left = _left(self.place, self.bounds)
        self.ranks = _ranks(np.concatenate(names), self.left, int(self.left[: len(places[0])].max(initial=1)))
        self.order = [start + np.argsort(self.ranks[-1][start:end], kind="stable") for start, end in self._blocks()]

    def maximal(self) -> Integers:
        """First token and end of every span that is maximal in some document, in the order of their starts: (N, 2)."""
        found = [np.empty((0, 2), np.int64)]
        for number in range(len(self.order)):
            at = self._within(np.arange(self.bounds[1]), number)
            first, end = self.place[at], self.place[at] + self._longest(at, number)[0]
            found.append(np.stack((first, end), 1)[end > _before(end)])
        return np.unique(np.concatenate(found), axis=0)

    def standing(self, spans: Integers) -> Iterator[tuple[Integers, Integers]]:
        """For each document which of the spans stand in it, and the token of it at which each begins."""
        at = np.searchsorted(self.place[: self.bounds[1]], spans[:, 0])
        starts, sizes = np.unique(at), spans @ (-1, 1)
        firsts = np.zeros(self.bounds[1], np.int64)
        for number in range(len(self.order)):
            lengths = np.zeros(self.bounds[1], np.int64)
            within = self._within(starts, number)
            lengths[within], firsts[within] = self._longest(within, number)
            which = np.flatnonzero(lengths[at] >= sizes)
            yield which, firsts[at[which]]

    def _common(self, asked: Tokens, documents: Sequence[Tokens]) -> tuple[list[Integers], list[Integers]]:
        """Names and first tokens of the windows in common: the query's, then each document's."""
        hashes = asked.hashes(self.size)
        known, mine = np.unique(hashes, return_inverse=True)
        self.names = len(known)
        names, places = [], []
        for hashed in (document.hashes(self.size) for document in documents):
            at = np.searchsorted(known, hashed)
            hit = np.flatnonzero(known[np.minimum(at, len(known) - 1)] == hashed) if len(known) else at[:0]
            names.append(at[hit])
            places.append(hit)
        present = self._present(np.concatenate([mine[:0], *names]))[mine]
        return [mine[present], *names], [np.flatnonzero(present), *places]

    def _present(self, names: Integers) -> NDArray[np.bool_]:
        present = np.zeros(self.names, dtype=bool)
        present[names] = True
        return present

    def _blocks(self) -> list[tuple[int, int]]:
        return list(zip(self.bounds[1:-1].tolist(), self.bounds[2:].tolist(), strict=True))

    def _within(self, at: Integers, number: int) -> Integers:
        """Those windows of the query that a document has."""
        start, end = self._blocks()[number]
        return at[self._present(self.ranks[0][start:end])[self.ranks[0][at]]]

    def _longest(self, at: Integers, number: int) -> tuple[Integers, Integers]:
        """Length of the longest match of each window of the query in a document that has it, and its first token."""
        order = self.order[number]
        after = np.searchsorted(self.ranks[-1][order], self.ranks[-1][at])
        sides = [order[np.clip(after - side, 0, len(order) - 1)] if len(order) else after for side in (0, 1)]
        lengths = [self._matching(at, side) for side in sides]
        best = np.where(lengths[0] >= lengths[1], *sides)
        return np.maximum(*lengths) + self.size - 1, self.place[best]

    def _matching(self, one: Integers, two: Integers) -> Integers:
        """How many windows match from each of two places on."""
        length = np.zeros(len(one), np.int64)
        room = np.minimum(self.left[one], self.left[two])
        for level in reversed(range(len(self.ranks))):
            fits = np.flatnonzero(length + 2**level <= room)
            equal = self.ranks[level][one[fits] + length[fits]] == self.ranks[level][two[fits] + length[fits]]
            length[fits[equal]] += 2**level
        return length


def _left(place: Integers, bounds: Integers) -> Integers:
    """How many windows follow one another without a gap from each on, itself included."""
    last = np.ones(len(place), dtype=bool)
    last[:-1] = np.diff(place) != 1
    last[bounds[1:][bounds[1:] > 0] - 1] = True
    ends = np.flatnonzero(last)
    return ends[np.searchsorted(ends, np.arange(len(place)))] - np.arange(len(place)) + 1


def _ranks(names: Integers, left: Integers, longest: int) -> list[Integers]:
    """For each level the order of the 2^level windows from each place on, up to the length of the longest sequence."""
    ranks = [names]
    while 2 ** (len(ranks) - 1) < longest:
        step = 2 ** (len(ranks) - 1)
        keys = ranks[-1] * (len(names) + 1)
        more = np.flatnonzero(left > step)
        keys[more] += ranks[-1][more + step] + 1
        ranks.append(np.unique(keys, return_inverse=True)[1])
    return ranks


def _before(ends: Integers) -> Integers:
    """The greatest of all the values before each; 0 before the first."""
    return np.concatenate((np.zeros(1, np.int64), np.maximum.accumulate(ends)[:-1])) if len(ends) else ends
