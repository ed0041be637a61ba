"""The files that a command was pointed at, and their texts; what cannot be read is told, and stops nothing."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from starcoder.corpus.document import Rejection
from starcoder.corpus.filters import decode
from starcoder.corpus.sources.files import File
from starcoder.corpus.sources.folder import Tree
from starcoder.errors import UserError

_HISTORY = re.compile(r"\.git")


@dataclass(frozen=True, slots=True)
class Found:
    """A file to look at.

    Attributes:
        path: Where it is.
        name: What reports call it: the path as it was given, and what is below it.
        size: In bytes.
        problem: Why it cannot be read; empty when it can, as far as is known without reading.
    """

    path: Path
    name: str
    size: int
    problem: str = ""


def find_files(paths: Iterable[Path], max_bytes: int) -> list[Found]:
    """The files that `paths` name or hold, each once: of a checkout what git does not ignore, of other folders all.

    Args:
        paths: Files and folders.
        max_bytes: Largest file to read.

    Raises:
        UserError: One of the paths does not exist.
    """
    return list({found.name: found for path in paths for found in _below(path, max_bytes)}.values())


def read_text(found: Found) -> str | Rejection:
    """The text of a file, or why it has none; line endings and marks of order stay as they are."""
    if found.problem:
        return Rejection(found.problem)
    try:
        return decode(found.path.read_bytes())
    except OSError as error:
        return Rejection("unreadable", error.strerror or "")


def _below(path: Path, max_bytes: int) -> Iterator[Found]:
    if path.is_dir():
        for file in Tree(path).files(_HISTORY, untracked=True):
            yield _found(path / file.path, (path / file.path).as_posix(), file, max_bytes)
    elif path.exists() or path.is_symlink():
        yield _found(path, path.as_posix(), _named(path), max_bytes)
    else:
        raise UserError(f"{path} does not exist")


def _found(path: Path, name: str, file: File, max_bytes: int) -> Found:
    if file.problem:
        return Found(path, name, 0, file.problem.reason)
    return Found(path, name, file.size, f"larger than {max_bytes:,} bytes" if file.size > max_bytes else "")


def _named(path: Path) -> File:
    """A file that was named itself: a link to one is meant."""
    if not path.is_file():
        return File(path.name, problem=Rejection("no regular file"))
    return File(path.name, path.stat().st_size)
