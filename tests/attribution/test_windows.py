import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from starcoder.attribution.windows import _BLOCK, WINDOW, hashes, runs, stretches

BASE = 0x9E3779B97F4A7C15


def whole(text: str, stride: int = 1) -> list[int]:
    return [value for block in hashes(text, stride) for value in block.tolist()]


def by_definition(window: str) -> int:
    """The hash with Python's own integers."""
    number = sum(ord(letter) * BASE**place for place, letter in enumerate(window)) % 2**64
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB % 2**64
    return number ^ (number >> 31)


def chains_by_definition(found: list[bool]) -> list[tuple[int, int]]:
    chains = []
    for start in range(len(found)):
        if found[start] and not (start >= WINDOW and found[start - WINDOW]):
            chains.append((start, 1))
            while start + WINDOW * chains[-1][1] < len(found) and found[start + WINDOW * chains[-1][1]]:
                chains[-1] = (start, chains[-1][1] + 1)
    return sorted(chains, key=lambda chain: (-chain[1], chain[0]))


def test_hashes_are_what_they_are_in_every_version() -> None:
    """Stored filters are read with these: another number here is another version of the format."""
    assert whole("a" * 50) == [0xA90C9DDA4EA97E86]
    assert whole("".join(map(chr, range(0x1F600, 0x1F632)))) == [
        by_definition("".join(map(chr, range(0x1F600, 0x1F632))))
    ]


@given(st.text(min_size=40, max_size=130))
def test_a_hash_is_that_of_the_fifty_characters_alone(text: str) -> None:
    assert whole(text) == [by_definition(text[start : start + 50]) for start in range(len(text) - 49)]
    assert whole(text, 50) == whole(text)[::50]


def test_long_texts_are_hashed_by_the_block() -> None:
    draw = random.Random(1)
    for length in (_BLOCK - 1, _BLOCK + 48, _BLOCK + 49, _BLOCK + 50, 2 * _BLOCK + 77):
        text = "".join(draw.choices("abc \ud83dé😀", k=length))
        every = whole(text)
        assert len(every) == length - 49
        assert whole(text, 50) == every[::50]
        for start in (0, _BLOCK - 50, _BLOCK - 49, _BLOCK - 1, _BLOCK, length - 50):
            if start < len(every):
                assert every[start] == by_definition(text[start : start + 50])


def test_windows_that_are_alike_have_hashes_that_are_not() -> None:
    """Those of a Thue-Morse sequence, and all with one or two letters exchanged: no hash is met twice."""
    morse = "".join("ab"[place.bit_count() % 2] for place in range(2**12))
    windows = {morse[start : start + 50] for start in range(len(morse) - 49)}
    line = "for (int index = 0; index < length; index++) { sum"
    for first in range(50):
        for second in range(first, 50):
            for letters in ("xy", "01", "\0\0", "ij"):
                changed = list(line)
                changed[first], changed[second] = letters
                windows.add("".join(changed))
    values = [by_hash for window in windows for by_hash in whole(window)]
    assert len(set(values)) == len(windows)
    for low in (np.array(values, np.uint64) & np.uint64(255), np.array(values, np.uint64) >> np.uint64(56)):
        counts = np.bincount(low.astype(np.int64), minlength=256)
        statistic = ((counts - len(values) / 256) ** 2).sum() / (len(values) / 256)
        assert statistic < 340  # chi-squared of 255 degrees of freedom: passed once in 3,000


@given(st.lists(st.booleans(), max_size=400), st.sampled_from([0.0, 0.5, 0.95]), st.integers(0, 10**6))
def test_a_chain_ends_at_the_first_miss(found: list[bool], share: float, seed: int) -> None:
    draw = random.Random(seed)
    found = [here or draw.random() < share for here in found]
    starts, windows = runs(np.array(found, bool))
    assert list(zip(starts.tolist(), windows.tolist(), strict=True)) == chains_by_definition(found)


@given(st.lists(st.integers(0, 700), max_size=12))
def test_stretches_cover_what_is_found_and_nothing_else(places: list[int]) -> None:
    found = np.zeros(701, bool)
    found[places] = True
    covered = {place + n for place in places for n in range(WINDOW)}
    parts = stretches(found)
    assert sorted(n for start, end, _ in parts for n in range(start, end)) == sorted(covered)
    assert [part[2] for part in parts] == sorted((part[2] for part in parts), reverse=True)
    for start, end, longest in parts:
        inside = [count for first, count in chains_by_definition(found.tolist()) if start <= first < end]
        assert longest == max(inside)
    assert not any(end == start for _, end, _ in parts for start, _, _ in parts if (end - start) % WINDOW)
