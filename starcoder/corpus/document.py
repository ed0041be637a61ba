"""The one record that every step of the corpus passes on, and its parquet shards.

A folder of documents holds, for each split, the files `<split>-00000-of-00003.parquet`; rejected documents are the
split "rejected", without their content and with the reason. Equal documents give equal bytes on disk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.errors import UserError

SHARD_BYTES = 32 * 2**20
_ROWS_PER_GROUP = 1000


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a document was left out: a `reason` that can be counted, and the `detail` of this one."""

    reason: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Document:
    """One source file.

    Attributes:
        repository: Name of the repository it comes from.
        path: POSIX path inside the repository.
        language: Key of the language table ("python", "c++", …); empty when the table has no row for the file.
        extension: Lower-case, without dot.
        licenses: SPDX ids; all of them apply.
        size: Bytes of the file.
        content: The text; empty when it is not read yet, or rejected.
        stars: Stars of the repository, where known.
        rejection: None for a document that is kept.
    """

    repository: str
    path: str
    language: str
    extension: str
    licenses: tuple[str, ...]
    size: int
    content: str = ""
    stars: int | None = None
    rejection: Rejection | None = None

    @property
    def name(self) -> str:
        """Repository and path in one string, unique in a corpus."""
        return f"{self.repository}/{self.path}"

    def reject(self, reason: str, detail: str = "") -> Self:
        """Return the document without its content and with the reason why."""
        return replace(self, content="", rejection=Rejection(reason, detail))


SCHEMA = pa.schema(
    [
        pa.field("repository", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("extension", pa.string(), nullable=False),
        pa.field("licenses", pa.list_(pa.string()), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("content", pa.string(), nullable=False),
        pa.field("stars", pa.int64()),
        pa.field("rejection", pa.struct([("reason", pa.string()), ("detail", pa.string())])),
    ]
)


def write_documents(folder: Path, split: str, documents: Sequence[Document]) -> None:
    """Write `documents`, in their order, as the shards of `split` in `folder` (about `SHARD_BYTES` of text each)."""
    shards = _cut(documents)
    for number, shard in enumerate(shards):
        table = pa.Table.from_pylist([_to_row(document) for document in shard], schema=SCHEMA)
        path = folder / f"{split}-{number:05d}-of-{len(shards):05d}.parquet"
        pq.write_table(table, path, compression="zstd", row_group_size=_ROWS_PER_GROUP, write_page_checksum=True)


def read_documents(folder: Path, split: str) -> Iterator[Document]:
    """Yield the documents of `split` ("train", "validation" or "rejected") in the order in which they were written.

    Raises:
        UserError: The folder or one of its shards is missing, or a shard is corrupt (pages carry checksums).
    """
    for shard in _shards(folder, split):
        yield from _read_shard(shard)


def _cut(documents: Sequence[Document]) -> list[list[Document]]:
    shards: list[list[Document]] = [[]]
    filled = 0
    for document in documents:
        if shards[-1] and filled + len(document.content) > SHARD_BYTES:
            shards.append([])
            filled = 0
        shards[-1].append(document)
        filled += len(document.content)
    return shards


def _shards(folder: Path, split: str) -> list[Path]:
    shards = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    if not shards:
        raise UserError(f"no {split} documents in {folder}: make them with `starcoder corpus build --output {folder}`")
    count = int(shards[0].stem.rpartition("-")[2])
    if [shard.name for shard in shards] != [f"{split}-{n:05d}-of-{count:05d}.parquet" for n in range(count)]:
        raise UserError(f"{folder} holds {len(shards)} of {count} {split} shards: build the corpus again")
    return shards


def _read_shard(path: Path) -> Iterator[Document]:
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            if not shard.schema_arrow.equals(SCHEMA):
                raise UserError(f"{path} does not hold documents of this version: build the corpus again")
            for batch in shard.iter_batches(batch_size=_ROWS_PER_GROUP):
                yield from map(_from_row, batch.to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is corrupt ({str(error).splitlines()[0]}): build the corpus again") from error


def _to_row(document: Document) -> dict[str, Any]:
    row = {name: getattr(document, name) for name in SCHEMA.names}
    rejection = document.rejection
    row["rejection"] = rejection and {"reason": rejection.reason, "detail": rejection.detail}
    return row


def _from_row(row: dict[str, Any]) -> Document:
    rejection = row["rejection"] and Rejection(**row["rejection"])
    return Document(**row | {"licenses": tuple(row["licenses"]), "rejection": rejection})
