"""Verbatim stretches of completions in token shards of any size, without an index: the shards are read once.

    completions ──► hashes of all n tokens in a row ─┐
    token shards, block by block ────────────────────┴─► stretches that may be copies ──► exact search for them

Equal tokens have equal hashes, so that no copy escapes; what only looks like one does not survive the exact search. The
memory is that of one block and of the stretches, each of which is kept once.

Shapes: T tokens in a row, n tokens that make a copy.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from starcoder.tokenizer import EOD
from starcoder.training.stream import Shards

Hashes = NDArray[np.uint64]

_BASE = 0x9E3779B97F4A7C15
_BLOCK = 2**17  # tokens that are searched at a time
_SIEVE = np.uint64(64 - 24)  # the leading 24 bits of a hash tell nearly always that it is not wanted
_HEADER = 12  # bytes before the ids in a chunk


@dataclass(frozen=True)
class Copy:
    """The longest stretch of a completion that stands in the training data.

    Args:
        completion: number of the completion, counted from 0.
        start: its token at which the stretch begins.
        tokens: length of the stretch.
        shards: folder of the token shards in which it stands.
        position: token of the shards at which it stands there, as `starcoder corpus inspect --position` takes it.
    """

    completion: int
    start: int
    tokens: int
    shards: str
    position: int

    def of(self, completions: Sequence[Sequence[int]]) -> list[int]:
        """Its token ids."""
        return list(completions[self.completion][self.start : self.start + self.tokens])


def find_copies(completions: Sequence[Sequence[int]], data: Sequence[Shards], n: int) -> list[Copy]:
    """The longest copy in each completion that has one of at least `n` tokens.

    Args:
        completions: token ids, none of them `<|endoftext|>`.
        data: token shards in folders.
        n: least number of tokens in a row.
    """
    wanted = np.unique(np.concatenate([window_hashes(np.array(ids, np.uint64), n) for ids in completions]))
    sieve = np.zeros(2**64 >> int(_SIEVE), np.bool_)
    sieve[wanted >> _SIEVE] = True
    overlap = max(n, *map(len, completions)) - 1  # so that every copy lies in one block, whole
    stretches: dict[str, tuple[str, int]] = {}
    for each in data:
        with tqdm(desc=each.location, total=each.n_tokens, unit="token", unit_scale=True, disable=None) as progress:
            for position, ids in _blocks(each, overlap):
                for start, text in _candidates(ids, wanted, sieve, n):
                    stretches.setdefault(text, (each.location, position + start))
                progress.update(position + len(ids) - progress.n)
    return list(_longest(completions, stretches, n))


def _blocks(shards: Shards, overlap: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """All tokens, some at a time and each time after the last `overlap` of those before: their position, and they."""
    position, block = 0, np.empty(0, shards.metadata.dtype)
    for chunk in shards.metadata.chunks:
        ids = np.memmap(Path(shards.location, chunk.filename), shards.metadata.dtype, "r", offset=_HEADER)
        for start in range(0, len(ids), _BLOCK):
            again = min(overlap, len(block))
            position += len(block) - again
            block = np.concatenate([block[len(block) - again :], ids[start : start + _BLOCK]])
            yield position, block


def _candidates(ids: NDArray[Any], wanted: Hashes, sieve: NDArray[np.bool_], n: int) -> Iterator[tuple[int, str]]:
    """Where a stretch begins of which every `n` tokens in a row have a wanted hash, and the stretch."""
    hashes = window_hashes(ids, n)
    places = np.flatnonzero(sieve[hashes >> _SIEVE])
    likely = hashes[places]
    found = places[np.searchsorted(wanted, likely, "right") > np.searchsorted(wanted, likely)]
    for run in np.split(found, np.flatnonzero(np.diff(found) > 1) + 1):
        if len(run):
            yield int(run[0]), _as_text(ids[run[0] : run[-1] + n].tolist())


def window_hashes(ids: NDArray[Any], n: int) -> Hashes:
    """Polynomial hashes modulo 2^64 of all `n` tokens in a row of ids (T,): (T-n+1,), or none where T < n."""
    single = hashes = ids.astype(np.uint64)
    width = 1
    for bit in f"{n:b}"[1:]:
        hashes = hashes[:-width] * np.uint64(pow(_BASE, width, 2**64)) + hashes[width:]
        width *= 2
        if bit == "1":
            hashes = hashes[:-1] * np.uint64(_BASE) + single[width:]
            width += 1
    return hashes


def _as_text(ids: Sequence[int]) -> str:
    """A string with a character for each token: Python searches strings fast."""
    return "".join(map(chr, ids))


def _longest(completions: Sequence[Sequence[int]], stretches: Mapping[str, tuple[str, int]], n: int) -> Iterator[Copy]:
    """What of the completions really stands in one of the stretches, which have a shards' folder and a position."""
    between = chr(EOD)  # which no completion holds
    everything = between.join([*stretches, between])
    starts = list(accumulate((len(text) + 1 for text in stretches), initial=0))
    origins = list(stretches.values())
    for number, ids in enumerate(completions):
        start, tokens, place = _longest_common(_as_text(ids), everything, n)
        if tokens:
            stretch = bisect_right(starts, place) - 1
            shards, position = origins[stretch]
            yield Copy(number, start, tokens, shards, position + place - starts[stretch])


def _longest_common(text: str, everything: str, n: int) -> tuple[int, int, int]:
    """Begin and length of the longest part of `text` that stands in `everything`, and its place there.

    A part of less than `n` characters does not count: the length is then 0. `everything` ends with what `text` has not.
    """
    found, start, length = (0, 0, 0), 0, n - 1
    while start + length < len(text):
        place = everything.find(text[start : start + length + 1])
        if place < 0:
            start += 1
            continue
        while start + length < len(text) and everything[place + length] == text[start + length]:
            length += 1
        found = start, length, place
    return found
