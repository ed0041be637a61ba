"""The corpus as attribution sees it: documents that are found again by where they are."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Self

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.corpus.document import SCHEMA, Document, from_row, read_shard, shards
from starcoder.corpus.summary import read_summary
from starcoder.errors import UserError, one_line
from starcoder.text import shown

_FOOTER = 2**16
_GROUPS = 16  # of documents that are kept
_FACTS = 256  # without their contents


class Address(NamedTuple):
    """Where a document is: the number of its shard, and its row there."""

    shard: int
    row: int


class Corpus:
    """The training documents of a corpus.

    Args:
        folder: Its folder.

    Raises:
        UserError: There is none, or it is damaged or of another version.
    """

    def __init__(self, folder: Path) -> None:
        near = shown(folder)  # which is what errors name
        read_summary(near)
        self.folder = folder
        self.shards = [folder / path.name for path in shards(near, "train")]
        self._group = lru_cache(_GROUPS)(self._read_group)
        self._facts = lru_cache(_FACTS)(self._read_facts)
        self._starts = lru_cache(None)(self._read_starts)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The corpus in a folder, see above."""
        return cls(folder)

    @property
    def fingerprints(self) -> list[str]:
        """A text for each shard that changes when its file does: a hash of its size and of its end, its footer."""
        return [_fingerprint(path) for path in self.shards]

    @property
    def repositories(self) -> set[str]:
        """The names of all that it has documents of."""
        names: set[str] = set()
        for path in self.shards:
            with _opened(path) as file:
                names.update(map(str, file.read(["repository"])["repository"].unique().to_pylist()))
        return names

    def documents(self, shard: int) -> Iterator[tuple[int, Document]]:
        """Yield the rows and documents of a shard in their order, few in memory at a time."""
        yield from enumerate(read_shard(self.shards[shard]))

    def document(self, address: Address) -> Document:
        """The document at an address.

        Raises:
            UserError: There is none, or its shard is damaged.
        """
        number, place = self._place(address)
        (row,) = self._group(address.shard, number).slice(place, 1).to_pylist()
        return from_row(row)

    def facts(self, address: Address) -> Document:
        """The document at an address without its content, which takes much longer to read.

        Raises:
            UserError: There is none, or its shard is damaged.
        """
        number, place = self._place(address)
        (row,) = self._facts(address.shard, number).slice(place, 1).to_pylist()
        return from_row(row | {"content": ""})

    def _place(self, address: Address) -> tuple[int, int]:
        """The group of a row, and its place there."""
        starts = self._starts(address.shard)
        if not 0 <= address.row < starts[-1]:
            raise UserError(f"{shown(self.shards[address.shard])} has no row {address.row}: make the index again")
        number = bisect_right(starts, address.row) - 1
        return number, address.row - starts[number]

    def _read_facts(self, shard: int, number: int) -> pa.Table:
        return self._read_group(shard, number, [name for name in SCHEMA.names if name != "content"])

    def _read_group(self, shard: int, number: int, columns: list[str] | None = None) -> pa.Table:
        with _opened(self.shards[shard]) as file:
            return file.read_row_group(number, columns)

    def _read_starts(self, shard: int) -> list[int]:
        """Row at which each group of a shard begins, and the number of rows."""
        with _opened(self.shards[shard]) as file:
            metadata = file.metadata
        starts = [0]
        for group in range(metadata.num_row_groups):
            starts.append(starts[-1] + metadata.row_group(group).num_rows)
        return starts


@contextmanager
def _opened(path: Path) -> Iterator[pq.ParquetFile]:
    """A shard; a `UserError` for what cannot be read of it."""
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shown(path)} is corrupt ({one_line(error)}): build the corpus again") from error


def _fingerprint(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _FOOTER))
        return hashlib.sha256(str(size).encode() + b"\n" + file.read()).hexdigest()[:32]
