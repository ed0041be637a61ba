"""Whether a text stands in the corpus: a Bloom filter of its windows, as in Data Portraits (paper §8).

    corpus ──► squeezed ──► windows at 0, 50, 100, … ──────────► filter
    query  ──► squeezed ──► windows at 0, 1, 2, … ──► found? ──► chains of found windows 50 characters apart

What it guarantees: every part of a corpus text that has 99 characters or more after squeezing holds a whole stored
window, wherever the part begins, and a stored window is always found. A shorter copy is found if it holds a stored
window. What is found may be chance: each window that was never stored is found with the probability `rate` as long as
no more than `capacity` windows are stored, so that a text of L characters has about L × rate windows found by chance,
chains of two windows or more nearly never. A filter cannot forget: after an opt-out, it is made again.
"""

import hashlib
import json
import math
import operator
import os
import string
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from rbloom import Bloom

from starcoder.attribution.hashing import Hashes
from starcoder.attribution.squeezed import Squeezed, squeeze, squeezed
from starcoder.attribution.windows import WINDOW, hashes, stretches
from starcoder.errors import UserError, one_line
from starcoder.storage import atomic_folder, sha256

_HEADER, _FILTER = "membership.json", "windows.bloom"
_FORMAT = {"format": "starcoder membership", "version": 1, "window": WINDOW, "stride": WINDOW}


@dataclass(frozen=True)
class Chain:
    """A stretch of a text that is covered by chains of found windows; chains that overlap make one stretch.

    Attributes:
        start: Its first character in the original text.
        end: The one behind its last.
        windows: Of the longest chain in it.
        badness: These by how many a copy of the whole text has on average; about 1 or more if all of it is a copy.
    """

    start: int
    end: int
    windows: int
    badness: float


class Membership:
    """The windows of a corpus.

    Attributes:
        capacity: Windows that it is made for.
        rate: Share of other windows that are found once it is full.
        count: Windows that were added, repeated ones each time.
    """

    def __init__(self, bloom: Bloom, capacity: int, rate: float, count: int) -> None:
        self._bloom, self.capacity, self.rate, self.count = bloom, capacity, rate, count

    @classmethod
    def create(cls, capacity: int, rate: float) -> Self:
        """An empty one.

        Args:
            capacity: Most windows that are added; the characters of the corpus / 50 are always enough.
            rate: Share of the windows that are not in the corpus, but are found all the same. 1e-6 takes 28.8 bits for
                each window, a tenth of it 4.8 more.

        Raises:
            UserError: They are impossible, or the filter does not fit in memory.
        """
        if capacity < 1 or not 0 < rate < 1:
            raise UserError(f"capacity is {capacity}, rate {rate}: they are at least 1, and between 0 and 1")
        size = int(-capacity * math.log(rate) / math.log(2) ** 2 / 8)
        _check_memory(size)
        return cls(Bloom(capacity, rate, operator.index), capacity, rate, 0)

    def add(self, text: str) -> int:
        """Store the windows of a text and return how many these are.

        Raises:
            UserError: There is no room for them.
        """
        view = squeezed(text)
        windows = len(view) // WINDOW
        self._reserve(windows)
        for block in hashes(view, WINDOW):
            self._bloom.update(block.tolist())
        return windows

    def add_hashes(self, blocks: Iterable[Hashes]) -> None:
        """Store windows by their hashes, such as `hashes` yields them.

        Raises:
            UserError: There is no room for them.
        """
        for block in blocks:
            self._reserve(len(block))
            self._bloom.update(block.tolist())

    def merge(self, other: Self) -> None:
        """Store all windows of another one, which has the same parameters: that of another shard.

        Raises:
            UserError: It has others, or there is no room.
        """
        if (self.capacity, self.rate) != (other.capacity, other.rate):
            mine, others = (f"capacity {each.capacity} and rate {each.rate:g}" for each in (self, other))
            raise UserError(f"filters of {mine} and of {others} do not merge: make both with those of the whole corpus")
        self._reserve(other.count)
        self._bloom.update(other._bloom)

    def found(self, view: Squeezed) -> NDArray[np.bool_]:
        """Whether each window is stored: bool of shape (T - 49,), or of none where T < 50."""
        blocks = [
            np.fromiter(map(self._bloom.__contains__, block.tolist()), bool, len(block)) for block in hashes(view.text)
        ]
        return np.concatenate(blocks) if blocks else np.zeros(0, bool)

    def chains(self, text: str) -> list[Chain]:
        """The stretches of a text that stand in the corpus, those with the longest chain first."""
        view = squeeze(text)
        whole = expected(len(view.text))
        return [
            Chain(*view.original(start, end), windows, windows / whole)
            for start, end, windows in stretches(self.found(view))
        ]

    def measured_rate(self, samples: int = 100_000, seed: int = 0) -> float:
        """Share of random windows of letters and digits, which no corpus holds, that are found."""
        letters = np.frombuffer((string.ascii_letters + string.digits).encode(), np.uint8)
        drawn = np.random.default_rng(seed).choice(letters, samples * WINDOW).tobytes().decode()
        return sum(h in self._bloom for block in hashes(drawn, WINDOW) for h in block.tolist()) / samples

    def save(self, path: Path) -> None:
        """Write a folder that `open` reads; an older one is replaced, and nothing else.

        Raises:
            UserError: The folder holds something else.
        """
        with atomic_folder(path, _HEADER) as folder:
            self._bloom.save(str(folder / _FILTER))
            content = {"bytes": (folder / _FILTER).stat().st_size, "sha256": sha256(folder / _FILTER)}
            header = _FORMAT | {"capacity": self.capacity, "rate": self.rate, "count": self.count} | content
            (folder / _HEADER).write_text(json.dumps(header | {"checksum": _checksum(header)}, indent=1) + "\n")

    @classmethod
    def open(cls, path: Path) -> Self:
        """The one in a folder.

        Raises:
            UserError: There is none, or it is damaged or of another version.
        """
        header = _read_header(path / _HEADER)
        file = path / _FILTER
        try:
            size, content = file.stat().st_size, sha256(file)
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): make the index again") from None
        if size != header["bytes"]:
            raise UserError(f"{file} has {size:,} of its {header['bytes']:,} bytes: make the index again")
        if content != header["sha256"]:
            raise UserError(f"{file} is corrupt: make the index again")
        _check_memory(size)
        bloom = Bloom.load(str(file), operator.index)
        return cls(bloom, header["capacity"], header["rate"], header["count"])

    def _reserve(self, windows: int) -> None:
        if self.count + windows > self.capacity:
            raise UserError(
                f"a membership filter for {self.capacity:,} windows is full: make it again with a higher capacity, "
                f"such as the characters of the corpus / {WINDOW}"
            )
        self.count += windows


def expected(characters: int) -> float:
    """Windows of the longest chain on average if a squeezed text of so many characters stands in the corpus once."""
    return max(0, characters - WINDOW + 1) / WINDOW


def _read_header(file: Path) -> dict[str, Any]:
    try:
        header = json.loads(file.read_text())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"there is no membership filter in {file.parent}: make the index first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)}): make the index again") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT["format"]:
        raise UserError(f"{file} is no header of a membership filter: make the index again")
    for name, value in _FORMAT.items():
        if header.get(name) != value:
            raise UserError(f"{file} has {name} {header.get(name)}, this program {value}: make the index again")
    checksum = header.pop("checksum", None)
    if checksum != _checksum(header):
        raise UserError(f"{file} is corrupt: make the index again")
    return header


def _checksum(header: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(header, sort_keys=True).encode()).hexdigest()


def _check_memory(size: int) -> None:
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size > memory:
        raise UserError(
            f"a membership filter of {size / 1e9:,.1f} GB does not fit in the {memory / 1e9:,.1f} GB of this machine: "
            "choose a higher rate or a smaller corpus"
        )
