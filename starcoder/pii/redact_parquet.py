"""A parquet file with one column redacted: the other columns, the schema and its metadata stay."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.errors import UserError, one_line
from starcoder.pii.contents import NULL, NoText, Tally, redact_contents
from starcoder.pii.redaction import PYTHON, Redactor
from starcoder.processes import share_out
from starcoder.storage import atomic_file

_SLICE_BYTES, _SLICE_ROWS = 2**21, 1000  # of one task
_BYTES: dict[Any, Any] = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}


@dataclass(frozen=True, slots=True)
class _Slice:
    """Rows of one row group of the file: their texts in bytes, and their languages."""

    group: int
    texts: list[bytes | None]
    languages: list[str]


@dataclass(frozen=True, slots=True)
class _Redacted:
    """A slice after redaction."""

    group: int
    texts: list[bytes | None]
    tally: Tally


def redact_parquet(
    source: Path, target: Path, redactor: Redactor, workers: int, limit: int, column: str, language: str
) -> Tally:
    """Copy the file `source` to `target` with one column redacted, few groups of rows in memory at a time.

    Args:
        source: The file.
        target: Another file, or the same.
        redactor: What redacts.
        workers: Processes at a time.
        limit: Bytes of the largest text to look at.
        column: The column of the texts.
        language: The column of their programming language, if there is one.

    Raises:
        UserError: The file cannot be read or has no such column of texts, or a process died.
    """
    tally, groups = Tally(), dict[int, pa.Table]()
    with _readable(source):
        file = pq.ParquetFile(source)
    with file, atomic_file(target) as unfinished:
        field, schema = _field(source, file.schema_arrow, column), file.schema_arrow
        with pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
            slices = _slices(source, file, field, language, groups)
            redacted = share_out(partial(_redact_slice, limit), slices, redactor, workers)
            for group, parts in groupby(redacted, lambda part: part.group):
                arrays = [_array(part.texts, field.type) for part in _counted(parts, tally)]
                table = groups.pop(group)
                place = schema.get_field_index(column)
                writer.write_table(table.set_column(place, field, pa.chunked_array(arrays, field.type)))
        shutil.copymode(source, unfinished)
    return tally


@contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{file} cannot be read as parquet ({one_line(error)})") from error


def _field(source: Path, schema: pa.Schema, column: str) -> Any:
    if schema.get_field_index(column) < 0:
        raise UserError(f"{source} has no column {column}; name one by --column: {', '.join(schema.names)}")
    field = schema.field(column)
    if field.type not in _BYTES:
        raise UserError(f"the column {column} of {source} holds {field.type}, no texts")
    return field


def _slices(
    source: Path, file: pq.ParquetFile, field: Any, language: str, groups: dict[int, pa.Table]
) -> Iterator[_Slice]:
    """Read the groups one after another, and put each into `groups` before its slices are yielded."""
    for number in range(file.num_row_groups):
        with _readable(source):
            table = groups[number] = file.read_row_group(number)
        texts, names = table.column(field.name), _languages(table, language)
        rows = max(1, min(_SLICE_ROWS, _SLICE_BYTES * len(texts) // max(1, texts.nbytes)))
        for start in range(0, len(texts), rows):
            part = texts.slice(start, rows).combine_chunks()
            yield _Slice(number, part.view(_BYTES[field.type]).to_pylist(), names[start : start + rows])


def _languages(table: pa.Table, column: str) -> list[str]:
    if column not in table.schema.names:
        return [""] * len(table)
    names = (str(name or "").lower() for name in table.column(column).to_pylist())
    return [PYTHON if name == PYTHON else "" for name in names]


def _redact_slice(limit: int, redactor: Redactor, part: _Slice) -> _Redacted:
    contents = [NoText(NULL) if text is None else text for text in part.texts]
    changes, tally = redact_contents(redactor, contents, part.languages, limit)
    texts = [text if change is None else change for text, change in zip(part.texts, changes, strict=True)]
    return _Redacted(part.group, texts, tally)


def _counted(parts: Iterable[_Redacted], tally: Tally) -> Iterator[_Redacted]:
    for part in parts:
        tally.add(part.tally)
        yield part


def _array(texts: list[bytes | None], type: Any) -> Any:
    """The texts as they are, even where they are not UTF-8: a view does not look at them."""
    return pa.array(texts, _BYTES[type]).view(type)
