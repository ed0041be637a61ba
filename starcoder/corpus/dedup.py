"""Deduplication (paper §5.1): MinHash and LSH find candidates, and the true Jaccard similarity decides.

A document is the set of its shingles, the windows of five consecutive words. MinHash signatures of two sets agree in
each of their 250 places with a probability equal to the Jaccard similarity J of the sets. LSH cuts them into 25 bands
of 10: two documents are candidates when one band is equal, which happens with probability 1 - (1 - J^10)^25 (0.51 at
J = 0.7, 0.94 at 0.8). Chains of candidates make clusters, in which the ends of a chain need not be similar at all: so
each cluster is cut into stars. The best document is kept and takes away what is truly similar to it, then the best of
the others, and so on. Nothing is left out by chance, or for its likeness to something that was itself left out.

A document of fewer than five words has one shingle, itself: only an exact copy is its duplicate.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # type: ignore[import-untyped]  # it ships no annotations

from starcoder.corpus.document import Document

THRESHOLD = 0.7
BANDS = 25
ROWS = 10
_NGRAM = 5
_SEED = 42
_BASE = np.uint64(0x9E3779B97F4A7C15)
_PIECE = 2000  # documents of a cluster that are compared with each other
# Words only. The released code also keeps the empty strings between adjacent separators, which makes the indentation
# part of the shingles and hides re-indented copies.
_WORD = re.compile(r"[A-Za-z0-9_]+")

Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Match:
    """The place of the document that is kept instead, and the Jaccard similarity to it."""

    kept: int
    similarity: float


class _WordHashes(dict[str, int]):
    """Hashes of words that are the same in every process, unlike Python's own; each is computed once."""

    _MOST = 2**20

    def __missing__(self, word: str) -> int:
        if len(self) >= self._MOST:
            self.clear()
        value = self[word] = _hash(word)
        return value


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


_word_hashes = _WordHashes()


def shingles(text: str, kind: str = "code") -> Hashes:
    """Return the set of shingles of `text`, as sorted hashes; texts of different kinds have none in common."""
    return np.unique(windows(text, kind))


def windows(text: str, kind: str = "code") -> Hashes:
    """Return the shingles of `text` in their order, with repetitions: all that a signature needs."""
    words = _WORD.findall(text)
    if len(words) < _NGRAM:
        return np.array([_hash(f"{kind}\0{text}")], np.uint64)
    hashes = np.fromiter(map(_word_hashes.__getitem__, words), np.uint64, len(words))
    count = len(words) - _NGRAM + 1
    mixed = np.full(count, 0 if kind == "code" else _hash(kind), np.uint64)
    for start in range(_NGRAM):  # a polynomial in _BASE modulo 2^64: equal words in another order hash differently
        mixed = mixed * _BASE + hashes[start : start + count]
    return mixed


def jaccard(a: Hashes, b: Hashes) -> float:
    """Return |A ∩ B| / |A ∪ B| of two sets of shingles."""
    common = len(np.intersect1d(a, b, assume_unique=True))
    return common / (len(a) + len(b) - common) if common else 0.0


def signatures(sets: Sequence[Hashes]) -> Signatures:
    """Return the MinHash signatures of sets of shingles, repeated or not: shape (number of sets, bands, rows)."""
    if not sets:
        return np.empty((0, BANDS, ROWS), np.uint32)
    offsets = np.cumsum([0, *map(len, sets)], dtype=np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(sets), offsets, BANDS * ROWS, _SEED)
    return np.array(digests.to_rows(), np.uint32).reshape(-1, BANDS, ROWS)


def stars(sets: Sequence[Hashes], threshold: float = THRESHOLD) -> list[Match | None]:
    """Cut a cluster of candidates into stars.

    Args:
        sets: Shingles of each document, the one to keep most willingly first.
        threshold: Least Jaccard similarity of a document to the one that is kept instead.

    Returns:
        For each document None when it is kept, or its match: a kept document before it. In clusters of more than 2,000
        different sets, those of about equal size are compared: some near-duplicates stay, none is removed wrongly.
    """
    first: dict[bytes, int] = {}
    originals = [first.setdefault(members.tobytes(), place) for place, members in enumerate(sets)]
    matches: list[Match | None] = [None] * len(sets)
    by_size = sorted(first.values(), key=lambda place: len(sets[place]))
    for start in range(0, len(by_size), _PIECE):
        places = sorted(by_size[start : start + _PIECE])
        for place, match in zip(places, _stars([sets[place] for place in places], threshold), strict=True):
            matches[place] = match and Match(places[match.kept], match.similarity)
    for place, original in enumerate(originals):
        if place != original:
            matches[place] = matches[original] or Match(original, 1.0)
    return matches


def _stars(sets: Sequence[Hashes], threshold: float) -> list[Match | None]:
    sizes = np.array([len(members) for members in sets])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    distinct, ids = np.unique(np.concatenate(sets), return_inverse=True)
    of_center = np.zeros(len(distinct), bool)
    matches: list[Match | None] = [None] * len(sets)
    undecided = np.ones(len(sets), bool)
    for center in range(len(sets)):
        if not undecided[center]:
            continue
        undecided[center] = False
        own = ids[starts[center] : starts[center + 1]]
        of_center[own] = True
        common = np.add.reduceat(of_center[ids], starts[:-1], dtype=np.int64)
        of_center[own] = False
        similarity = common / (sizes + sizes[center] - common)
        for place in np.flatnonzero(undecided & (similarity >= threshold)):
            matches[place] = Match(center, float(similarity[place]))
            undecided[place] = False
    return matches


# What the licences of a copy ask of its user, least first; any other asks for more than attribution.
_FREE = {"0BSD", "CC0-1.0", "MIT-0", "Unlicense", "WTFPL"}
_ATTRIBUTION = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "ISC", "MIT", "PSF-2.0", "Zlib"}


def preference(document: Document) -> tuple[bool, int, int, int, str]:
    """A sorting key of the copies of a document: the one to keep comes first.

    First what the filters let pass, so that nothing is lost to a copy that they leave out; then the licence that asks
    for least, then fewer licences, then more stars, then the name.
    """
    burdens = [0 if name in _FREE else 1 if name in _ATTRIBUTION else 2 for name in document.licenses]
    return (
        document.rejection is not None,
        max(burdens, default=3),
        len(burdens),
        -(document.stars or 0),
        f"{document.name}\0{document.source}",
    )
