"""Lines of JSON that are appended as they come, so that whatever ends a run loses none that was written."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.rows import Row


class Journal:
    """A file of JSON lines.

    A last line that a killed run left unfinished is cut off.

    Args:
        path: the file; it is made when it does not exist.

    Raises:
        UserError: when a line that is not the last is no JSON object.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _, length = _read(path)
        self._file = path.open("ab")
        self._file.truncate(length)

    def append(self, row: Row) -> None:
        """Write one row, at once."""
        self._file.write(json.dumps(row).encode() + b"\n")
        self._file.flush()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()


def read_journals(folder: Path, pattern: str) -> Iterator[Row]:
    """The rows of the journals in `folder` that match `pattern`, which other processes may be writing."""
    for path in sorted(folder.glob(pattern)):
        yield from _read(path)[0]


def _read(path: Path) -> tuple[list[Row], int]:
    """The rows of the whole lines of a file, and their length in bytes."""
    data = path.read_bytes() if path.exists() else b""
    whole = data[: data.rfind(b"\n") + 1]
    return [_row(path, number, line) for number, line in enumerate(whole.splitlines(), start=1)], len(whole)


def _row(path: Path, number: int, line: bytes) -> Row:
    try:
        row = json.loads(line)
    except ValueError:
        row = None
    if not isinstance(row, dict):
        raise UserError(f"{path}:{number} is no JSON object: mend or remove the line, or start over with --fresh")
    return row
