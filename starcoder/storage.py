"""Writing so that nobody ever reads half an artefact: write under a temporary name, then rename."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starcoder.errors import UserError


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success flush it to disk and rename it to `path`, on error remove it.

    Raises:
        UserError: when `path` is a folder.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        _flush(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: Path, marker: str) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces `path`, on error it is removed.

    Raises:
        UserError: when `path` holds anything, but not the file `marker` that tells an older artefact of the same kind.
    """
    path = path.resolve()
    check_replaceable(path, marker)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file() and not file.is_symlink():
                _flush(file)
        replace_folder(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(path: Path, marker: str) -> None:
    """Refuse to write over what is not ours.

    Raises:
        UserError: when `path` is a file, or a folder that is neither empty nor holds the file `marker`.
    """
    if path.is_file() or (path.is_dir() and any(path.iterdir()) and not (path / marker).is_file()):
        raise UserError(f"{path} holds something else than this writes: name another place, or remove it yourself")


def replace_folder(source: Path, target: Path) -> None:
    """Rename folder `source` to `target`, moving an older `target` aside first: a rename needs an empty place.

    Aside is a hidden name: whoever keeps a copy of `target` as `target.old` shall find it again.
    """
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    source.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def sha256(path: Path) -> str:
    """Hash of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
