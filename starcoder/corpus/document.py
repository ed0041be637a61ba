"""The one record that every step of the corpus passes on, and its parquet shards.

A folder of documents holds, for each split, the files `<split>-00000-of-00003.parquet`; rejected documents are the
split "rejected", with the reason, and at most an excerpt of their content. Equal documents give equal bytes on disk.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.errors import UserError
from starcoder.storage import atomic_file

_GROUP_ROWS = 1000
_GROUP_CHARACTERS = 8 * 2**20

Kind = Literal["code", "notebook-script", "notebook", "issue", "commit"]


@dataclass(frozen=True, slots=True)
class Rejection:
    """Why a document was left out.

    Attributes:
        reason: Few words that can be counted.
        detail: What is particular to this document.
        stage: The stage of the pipeline that left it out, as the funnel names it; its step fills it in.
    """

    reason: str
    detail: str = ""
    stage: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """A control token that stands before the character `at` of a document's content.

    Attributes:
        at: Place in characters, 0 to the length of the content.
        sentinel: As the tokenizer spells it, such as "<issue_comment>".
    """

    at: int
    sentinel: str


@dataclass(frozen=True, slots=True)
class Document:
    """One text of the corpus: a source file, a notebook, an issue or a commit.

    Attributes:
        repository: Name of the repository it comes from.
        path: POSIX path inside the repository, or what names an issue or a commit there.
        language: Key of the language table ("python", "c++", …); empty when the table has no row for the file.
        extension: Lower-case, without dot.
        licenses: SPDX ids; all of them apply.
        size: Bytes of the file.
        content: The text; empty when it is not read yet, or rejected.
        stars: Stars of the repository, where known.
        rejection: None for a document that is kept.
        kind: What it is; documents of different kinds are never duplicates of each other.
        marks: Where control tokens stand in the content, in ascending order; code has none.
        commit: Revision of the repository, where known.
        sha256: Hash of the content as it was read, in hexadecimal; empty when it is not read.
        source: Name of the source that it was found in.
        evidence: Where its licences are stated.
        copies: Files of the corpus that this one stands for: itself and the duplicates of it that were left out.
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
    kind: Kind = "code"
    marks: tuple[Mark, ...] = ()
    commit: str = ""
    sha256: str = ""
    source: str = ""
    evidence: str = ""
    copies: int = 1

    @property
    def name(self) -> str:
        """Repository and path in one string, unique in a source."""
        return f"{self.repository}/{self.path}"

    def reject(self, reason: str, detail: str = "", stage: str = "") -> Self:
        """Return the document without its content and with the reason why."""
        return replace(self, content="", marks=(), rejection=Rejection(reason, detail, stage))


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
        pa.field("rejection", pa.struct([("reason", pa.string()), ("detail", pa.string()), ("stage", pa.string())])),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("marks", pa.list_(pa.struct([("at", pa.int64()), ("sentinel", pa.string())])), nullable=False),
        pa.field("commit", pa.string(), nullable=False),
        pa.field("sha256", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("evidence", pa.string(), nullable=False),
        pa.field("copies", pa.int64(), nullable=False),
    ]
)
_FIELDS = tuple(field.name for field in fields(Document))


def shard_name(split: str, number: int, count: int) -> str:
    """The file that holds the `number`-th of `count` shards of `split`."""
    return f"{split}-{number:05d}-of-{count:05d}.parquet"


@contextmanager
def open_shard(path: Path) -> Iterator[Callable[[Document], None]]:
    """Yield a function that appends a document to the parquet file `path`, with a group of rows in memory at a time.

    The file appears when all is written. Equal documents give equal bytes.
    """
    group: list[dict[str, Any]] = []
    characters = 0

    def flush() -> None:
        nonlocal characters
        if group:
            file.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
            group.clear()
            characters = 0

    def append(document: Document) -> None:
        nonlocal characters
        group.append(_to_row(document))
        characters += len(document.content)
        if len(group) == _GROUP_ROWS or characters >= _GROUP_CHARACTERS:
            flush()

    with (
        atomic_file(path) as partial,
        pq.ParquetWriter(partial, SCHEMA, compression="zstd", write_page_checksum=True) as file,
    ):
        yield append
        flush()


def write_shard(path: Path, documents: Iterable[Document]) -> None:
    """Write `documents`, in their order, as one parquet file."""
    with open_shard(path) as append:
        for document in documents:
            append(document)


def write_documents(folder: Path, split: str, documents: Sequence[Document], count: int = 1) -> None:
    """Write `documents`, in their order, as the `count` shards of `split` in `folder`."""
    size = -(-len(documents) // count)
    for number in range(count):
        write_shard(folder / shard_name(split, number, count), documents[number * size : (number + 1) * size])


def read_shard(path: Path) -> Iterator[Document]:
    """Yield the documents of one parquet file, a group of rows in memory at a time.

    Raises:
        UserError: The file is missing, corrupt (pages carry checksums), or of another version.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as shard:
            if not shard.schema_arrow.equals(SCHEMA):
                raise UserError(f"{path} does not hold documents of this version: build the corpus again")
            for group in range(shard.num_row_groups):
                yield from map(from_row, shard.read_row_group(group).to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is corrupt ({str(error).splitlines()[0]}): build the corpus again") from error


def shards(folder: Path, split: str) -> list[Path]:
    """Return the parquet files of `split` ("train", "validation" or "rejected") in their order.

    Raises:
        UserError: The folder or one of its shards is missing.
    """
    found = sorted(folder.glob(f"{split}-*-of-*.parquet"))
    if not found:
        raise UserError(f"no {split} documents in {folder}: make them with `starcoder corpus build --output {folder}`")
    count = int(found[0].stem.rpartition("-")[2])
    if [shard.name for shard in found] != [shard_name(split, number, count) for number in range(count)]:
        raise UserError(f"{folder} holds {len(found)} of {count} {split} shards: build the corpus again")
    return found


def read_documents(folder: Path, split: str) -> Iterator[Document]:
    """Yield the documents of `split` ("train", "validation" or "rejected") in the order in which they were written.

    Raises:
        UserError: The folder or one of its shards is missing, or a shard is corrupt.
    """
    for shard in shards(folder, split):
        yield from read_shard(shard)


def _to_row(document: Document) -> dict[str, Any]:
    row = {name: getattr(document, name) for name in _FIELDS}
    rejection = document.rejection
    if rejection:
        row["rejection"] = {"reason": rejection.reason, "detail": rejection.detail, "stage": rejection.stage}
    row["marks"] = [{"at": mark.at, "sentinel": mark.sentinel} for mark in document.marks]
    return row


def from_row(row: dict[str, Any]) -> Document:
    """The document of a row of a shard."""
    row["rejection"] = row["rejection"] and Rejection(**row["rejection"])
    row["licenses"] = tuple(row["licenses"])
    row["marks"] = tuple(Mark(**mark) for mark in row["marks"])
    return Document(**row)
