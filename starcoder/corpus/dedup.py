"""Deduplication (paper §5.1): exact copies by hash, near-duplicates by MinHash, LSH and the true Jaccard similarity.

A document is the set of its shingles, the windows of five consecutive words. MinHash signatures of two sets agree in
each of their 256 places with a probability equal to the Jaccard similarity J of the sets. LSH cuts 250 places into 25
bands of 10: two documents are candidates when one band is equal, which happens with probability 1 - (1 - J^10)^25 (0.51
at J = 0.7, 0.94 at 0.8). Candidates are then compared exactly, so that nothing is called a duplicate by chance.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from rensa import RMinHash  # type: ignore[import-untyped]  # it ships no annotations

from starcoder.corpus.document import Document

THRESHOLD = 0.7
_NGRAM = 5
_PERMUTATIONS = 256
_BANDS = 25
_ROWS = 10
_SEED = 42
_CHUNK = 512  # documents whose shingles are in memory at once
# Words only. The released code also keeps the empty strings between adjacent separators, which makes the indentation
# part of the shingles and hides re-indented copies.
_WORD = re.compile(r"[A-Za-z0-9_]+")
_BASE = np.uint64(0x9E3779B97F4A7C15)

Hashes = npt.NDArray[np.uint64]
Signatures = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class NearDuplicate:
    """The `query`-th document is a near-duplicate of the `match`-th one of the index, at this Jaccard similarity."""

    query: int
    match: int
    similarity: float


def drop_exact_duplicates(documents: Iterable[Document]) -> Iterator[Document]:
    """Yield the documents in order; a kept one whose content came before is rejected, naming the first."""
    first: dict[bytes, str] = {}
    for document in documents:
        if document.rejection:
            yield document
            continue
        original = first.setdefault(hashlib.sha256(document.content.encode()).digest(), document.name)
        yield document if original == document.name else document.reject("exact duplicate", original)


def near_duplicates(
    queries: Sequence[str], index: Sequence[str], threshold: float = THRESHOLD
) -> Iterator[NearDuplicate]:
    """Yield at most one text of `index` for each text of `queries` that is at least `threshold` similar to it.

    Texts with fewer than five words have no shingles and are nobody's near-duplicate.
    """
    long = [query for query, text in enumerate(queries) if len(shingles(text))]
    candidates = _candidates(signatures([queries[query] for query in long]), signatures(index))
    for query, matches in zip(long, candidates, strict=True):
        own = shingles(queries[query] if matches else "")
        for match in sorted(matches):
            similarity = jaccard(own, shingles(index[match]))
            if similarity >= threshold:
                yield NearDuplicate(query, match, similarity)
                break


def shingles(text: str) -> Hashes:
    """Return the hashes of the windows of five words in `text`, in their order; empty for fewer than five words."""
    words = np.fromiter(map(_word_hash, _WORD.findall(text)), np.uint64)
    count = max(len(words) - _NGRAM + 1, 0)
    windows = np.zeros(count, np.uint64)
    for start in range(_NGRAM):  # a polynomial in _BASE modulo 2^64: equal words in another order hash differently
        windows = windows * _BASE + words[start : start + count]
    return windows


def jaccard(a: Hashes, b: Hashes) -> float:
    """Return |A ∩ B| / |A ∪ B| of the sets of hashes; 0 when either is empty."""
    common = len(np.intersect1d(a, b))
    return common / (len(np.unique(a)) + len(np.unique(b)) - common) if common else 0.0


def signatures(texts: Sequence[str]) -> Signatures:
    """Return the MinHash signatures of `texts`, shape (number of texts, 256)."""
    rows = [np.empty((0, _PERMUTATIONS), np.uint32)]
    for start in range(0, len(texts), _CHUNK):
        hashes = [shingles(text) for text in texts[start : start + _CHUNK]]
        offsets = np.cumsum([0, *map(len, hashes)], dtype=np.uint64)
        digests = RMinHash.digest_matrix_from_flat_token_hashes(np.concatenate(hashes), offsets, _PERMUTATIONS, _SEED)
        rows.append(np.array(digests.to_rows(), np.uint32))
    return np.concatenate(rows)


def _candidates(queries: Signatures, index: Signatures) -> list[set[int]]:
    """For each row of `queries`, the rows of `index` that have at least one band in common with it."""
    found: list[set[int]] = [set() for _ in queries]
    for band in range(_BANDS):
        places = slice(band * _ROWS, (band + 1) * _ROWS)
        buckets = defaultdict(list)
        for query, row in enumerate(queries[:, places]):
            buckets[row.tobytes()].append(query)
        for match, row in enumerate(index[:, places]):
            for query in buckets.get(row.tobytes(), ()):
                found[query].add(match)
    return found


@lru_cache(maxsize=2**20)
def _word_hash(word: str) -> int:
    """A hash that is the same in every process, unlike Python's own."""
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
