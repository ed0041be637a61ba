"""Reading rows of JSON, JSON lines (gzipped or not) and parquet, and saying which line is wrong."""

import gzip
import json
import zlib
from collections.abc import Iterator
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
