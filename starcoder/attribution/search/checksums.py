"""Whether the files of an embedded index are as they were written.

Each ends in a footer: a JSON text with the CRC-32 of what is before it, the length of that text, and a magic number.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from starcoder.errors import UserError, one_line

_MAGIC = 1337
_TAIL = struct.Struct("<II")
_BLOCK = 2**22
_PARTS = ("fast", "fieldnorm", "idx", "pos", "store", "term")


def verify(folder: Path) -> None:
    """Read all files of the last commit.

    Raises:
        UserError: One is missing or damaged.
    """
    try:
        for path in _files(folder):
            if not _intact(path):
                raise UserError(f"the search index in {folder} is damaged ({path.name}): make it again")
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise UserError(f"the search index in {folder} is damaged ({one_line(error)[:200]}): make it again") from error


def _files(folder: Path) -> Iterator[Path]:
    """The files of the segments that the last commit is made of; others are of a process that was killed."""
    for segment in json.loads((folder / "meta.json").read_text())["segments"]:
        name = segment["segment_id"].replace("-", "")
        deletes = segment["deletes"]
        if deletes:
            yield folder / f"{name}.{deletes['opstamp']}.del"
        yield from (folder / f"{name}.{part}" for part in _PARTS)


def _intact(path: Path) -> bool:
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(size - _TAIL.size)
        length, magic = _TAIL.unpack(file.read())
        if magic != _MAGIC or length > size:
            return False
        file.seek(size - _TAIL.size - length)
        expected = json.loads(file.read(length))["crc"]
        file.seek(0)
        left, checksum = size - _TAIL.size - length, 0
        while left:
            block = file.read(min(left, _BLOCK))
            checksum = zlib.crc32(block, checksum)
            left -= len(block)
    return bool(checksum == expected)
