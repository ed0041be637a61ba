"""Reading rows of JSON, JSON lines (gzipped or not), parquet and CSV, and saying which line is wrong."""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from starcoder.errors import UserError, one_line

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """The rows of a file, in order; the name says what it is: `.json`, `.jsonl`, each with `.gz`, or `.parquet`.

    Raises:
        UserError: when the file cannot be read as what its name says; for JSON lines it says which line.
    """
    try:
        if file.suffix == ".parquet":
            return _parquet(file)
        data = file.read_bytes()
        text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode()
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)})") from error
    return list(_lines(file, text)) if ".jsonl" in file.name else _array(file, text)


def read_object(file: Path) -> Row:
    """The one JSON object that a file holds.

    Raises:
        UserError: when the file cannot be read, or holds something else.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({one_line(error)})") from error
    return _object(file, 1, text)


def read_csv(file: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """The rows of a CSV file, each value a text.

    Args:
        file: the file, in UTF-8.
        columns: names of its columns when its first line is no header.

    Raises:
        UserError: when the file cannot be read, or a line has fewer or more columns than there are names.
    """
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, columns)
            rows: list[Row] = []
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"{file}:{reader.line_num} has not {len(reader.fieldnames or ())} columns")
                rows.append(row)
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{file} cannot be read as CSV ({one_line(error)})") from error
    return rows


def _lines(file: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield _object(file, number, line)


def _object(file: Path, number: int, line: str) -> Row:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{file}:{number} is no JSON ({one_line(error)})") from None
    if not isinstance(row, dict):
        raise UserError(f"{file}:{number} is no JSON object")
    return row


def _array(file: Path, text: str) -> list[Row]:
    try:
        rows = json.loads(text)
    except ValueError as error:
        raise UserError(f"{file} is no JSON ({one_line(error)})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{file} holds no list of JSON objects")
    return rows


def _parquet(file: Path) -> list[Row]:
    from pyarrow import ArrowException, parquet

    try:
        rows: list[Row] = parquet.read_table(file).to_pylist()
    except ArrowException as error:
        raise UserError(f"{file} cannot be read as parquet ({one_line(error)})") from error
    return rows
