"""The Stack's parquet files (paper §3), from a disk, an object store or the Hub; in memory is a batch of rows."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from starcoder.corpus.languages import THRESHOLDS, language_of
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.files import origin, unusable
from starcoder.errors import UserError, one_line

_BATCH_BYTES = 8 * 2**20
_BATCH_ROWS = 256
_READ_BYTES = 4 * 2**20
# What a column is called in The Stack and StarCoderData, in The Stack v2, and in github-code.
_COLUMNS = {
    "content": ("content", "code"),
    "repository": ("max_stars_repo_name", "repo_name"),
    "path": ("max_stars_repo_path", "path"),
    "licenses": ("max_stars_repo_licenses", "detected_licenses", "license"),
    "stars": ("max_stars_count", "star_events_count"),
    "commit": ("max_stars_repo_head_hexsha", "revision_id"),
    "language": ("lang", "language"),
    "extension": ("ext", "extension"),
}
_REQUIRED = ("content", "repository", "path")
_LANGUAGES = {"c#": "c-sharp", "f#": "f-sharp"}
# Pages that do not decompress, columns of other types, connections that end.
_UNREADABLE = (pa.ArrowException, OSError, ValueError)


@dataclass(frozen=True)
class Stack:
    """Parquet files with one source file a row, and the licences that were detected in its repository.

    Attributes:
        path: A file, or a folder with files at any depth: a local path, "s3://bucket/folder" (credentials, region and
            endpoint as AWS's own tools find them) or "hf://datasets/owner/name/folder" (the Hub).
        license: Licence expression of all rows of a data set without a column of licences, such as StarCoderData;
            where there is a column, it counts alone.
        name: Of the source.
    """

    path: str
    license: str | None = None
    name: str = "stack"

    def units(self) -> list[Unit]:
        """One unit for each file.

        Raises:
            UserError: There are no parquet files, or the store cannot be reached.
        """
        try:
            store, root = open_store(self.path)
            there = store.get_file_info(root)
            found = [there] if there.is_file else store.get_file_info(fs.FileSelector(root, recursive=True))
        except _UNREADABLE as error:
            raise UserError(f"{self.path} cannot be read: {one_line(error)}") from error
        files = sorted((file for file in found if file.is_file and file.extension == "parquet"), key=lambda f: f.path)
        if not files:
            raise UserError(f"{self.path} holds no parquet files")
        return [
            Unit(_inside(root, file.path), file.size or 0, f"{file.size} {file.mtime_ns} {self.license or ''}".rstrip())
            for file in files
        ]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The rows of a file, in their order; what follows a damaged page is one rejected candidate."""
        whole = replace(origin(self.name, self.name), path=unit.name)
        done = 0
        try:
            store, root = open_store(self.path)
            path = root if _inside(root, root) == unit.name else f"{root}/{unit.name}"
            with store.open_input_file(path) as file, _parquet(file) as parquet:
                columns = _columns(parquet.schema_arrow.names)
                missing = [name for name in _REQUIRED if name not in columns]
                if missing:
                    yield unusable(whole, "parquet columns missing", ", ".join(missing))
                    return
                for rows in _batches(parquet, columns):
                    yield from (self._candidate(row, columns) for row in rows)
                    done += len(rows)
        except _UNREADABLE as error:
            yield unusable(whole, "parquet file cannot be read", f"after row {done}: {one_line(error)}")

    def _candidate(self, row: Mapping[str, Any], columns: Mapping[str, str]) -> Candidate:
        content = row["content"] if isinstance(row["content"], bytes) else None
        language, extension = _language(row)
        document = replace(
            origin(self.name, _text(row["repository"]), _text(row["commit"])),
            path=_text(row["path"]),
            language=language,
            extension=extension,
            size=len(content or b""),
            stars=_stars(row["stars"]),
        )
        if content is None or not document.path or not document.repository:
            return unusable(document, "row without content, path or repository")
        return Candidate(document, self._declaration(row["licenses"], columns), lambda: content)

    def _declaration(self, licenses: Any, columns: Mapping[str, str]) -> Declaration:
        if "licenses" not in columns:
            stated = f"stated for the source: {self.license}" if self.license else "no column of licences"
            return Declaration(self.license or "", stated)
        ids = dict.fromkeys(map(_text, licenses if isinstance(licenses, list) else [licenses]))
        joined = " AND ".join(f"({name})" if " " in name else name for name in ids if name)
        return Declaration(joined, columns["licenses"])


def open_store(location: str) -> tuple[fs.FileSystem, str]:
    """The file system that a location is in, and its path there.

    Raises:
        ValueError: The location has an unknown scheme, or another mistake.
        OSError: The store cannot be reached.
    """
    scheme, separator, rest = location.partition("://")
    if scheme == "hf":
        from huggingface_hub import HfFileSystem

        handler = fs.FSSpecHandler(HfFileSystem())  # type: ignore[abstract]  # the stubs lack what it implements
        return fs.PyFileSystem(handler), rest.rstrip("/")
    if separator:
        store, path = fs.FileSystem.from_uri(location)
        return store, path.rstrip("/")
    return fs.LocalFileSystem(), str(Path(location).expanduser().resolve())


def _inside(root: str, path: str) -> str:
    """The name of a file: its path in the folder `root`, or its own when it is all there is."""
    return PurePosixPath(path).name if path == root else PurePosixPath(path).relative_to(root).as_posix()


def _parquet(file: Any) -> pq.ParquetFile:
    """Read through a small buffer, instead of whole columns of a row group ahead."""
    return pq.ParquetFile(file, buffer_size=_READ_BYTES, pre_buffer=False, page_checksum_verification=True)


def _columns(names: Sequence[str]) -> dict[str, str]:
    """Our name of each column → the file's."""
    found = {ours: next((name for name in theirs if name in names), None) for ours, theirs in _COLUMNS.items()}
    return {ours: theirs for ours, theirs in found.items() if theirs}


def _batches(parquet: pq.ParquetFile, columns: Mapping[str, str]) -> Iterator[list[dict[str, Any]]]:
    """Rows by our names of the columns; None for what is null or has no column."""
    for number in range(parquet.num_row_groups):
        group = parquet.metadata.row_group(number)
        mean = group.total_byte_size // max(group.num_rows, 1)
        rows = min(max(_BATCH_BYTES // max(mean, 1), 1), _BATCH_ROWS)
        for batch in parquet.iter_batches(rows, row_groups=[number], columns=list(columns.values())):
            values = {ours: _values(batch.column(theirs)) for ours, theirs in columns.items()}
            for_each_row = zip(*values.values(), strict=True)
            yield [dict.fromkeys(_COLUMNS) | dict(zip(values, row, strict=True)) for row in for_each_row]


def _values(column: Any) -> list[Any]:
    """The values of a column, text as bytes: nothing guarantees that it is UTF-8."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        column = column.cast(pa.large_binary())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        column = column.cast(pa.large_list(pa.large_binary()))
    elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):  # a cast of them loses what they hold
        return [row.values.cast(pa.large_binary()).to_pylist() if row.is_valid else None for row in column]
    values: list[Any] = column.to_pylist()
    return values


def _text(value: Any) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else ""


def _stars(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _language(row: Mapping[str, Any]) -> tuple[str, str]:
    """The language that the data set names, if the table has it with this extension; without a name, by the path."""
    path, named = _text(row["path"]), _text(row["language"]).lower()
    extension = (_text(row["extension"]) or PurePosixPath(path).suffix).lower().removeprefix(".")
    if not named:
        return language_of(path) or ("", extension)
    language = _LANGUAGES.get(named, named.replace(" ", "-"))
    return (language, extension) if (language, extension) in THRESHOLDS else ("", extension)
