"""What git knows about a repository on this machine: the commits that change one file, and the texts of files."""

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from starcoder.corpus.document import Rejection
from starcoder.corpus.sources.git import GitError, first_line, run, start

__all__ = ["Change", "GitError", "Read", "head", "history_bytes", "is_repository", "one_file_changes", "text_reader"]

_FILE_MODES = {b"000000", b"100644", b"100755"}  # not there, or a file; no symbolic link and no submodule
_CHUNK = 2**20
_COMMIT_BYTES = 20_000  # the texts of a file before and after it
Read = Callable[[str], str | Rejection]
"""The text with an id; the empty id, of a file that is not there, has the empty text."""


@dataclass(frozen=True, slots=True)
class Change:
    """A commit that changes one file.

    Attributes:
        sha: Id of the commit.
        subject: First paragraph of its message, in one line.
        path: The file's, after the commit where that renames it.
        old: Id of the text before; empty when the commit creates the file.
        new: Id of the text after; empty when the commit deletes the file.
    """

    sha: str
    subject: str
    path: str
    old: str
    new: str


def is_repository(folder: Path) -> bool:
    """Whether the folder is a checkout, or bare repository, itself."""
    bare = (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
    return bare or (folder / ".git").exists()


def head(folder: Path) -> str:
    """Id of the commit that HEAD names, or "" if there is none."""
    try:
        return run(folder, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    except GitError:
        return ""


def history_bytes(folder: Path) -> int:
    """Bytes to read of the history of HEAD, about: the same however git stores it."""
    try:
        return int(run(folder, "rev-list", "--count", "HEAD", "--")) * _COMMIT_BYTES
    except GitError:
        return 0


def one_file_changes(folder: Path) -> Iterator[Change]:
    """Yield the commits in the history of HEAD, no merges, that change the content of exactly one file; newest first.

    Raises:
        GitError: There is no history, or it is damaged.
    """
    # Where a shallow history begins, a commit seems to create all files.
    shallow = folder / os.fsdecode(run(folder, "rev-parse", "--git-path", "shallow").rstrip(b"\n"))
    cut = set(shallow.read_text().split()) if shallow.is_file() else set()
    options = ("--no-merges", "--find-renames", "--raw", "--no-abbrev", "-z", "--encoding=UTF-8", "--format=%H%x00%s")
    with TemporaryFile() as errors, start(folder, "log", *options, stderr=errors) as git:
        assert git.stdout is not None
        for sha, subject, entries in _log(_fields(git.stdout)):
            change = _change(sha, subject, *entries[0]) if len(entries) == 1 and sha not in cut else None
            if change:
                yield change
        if git.wait():
            errors.seek(0)
            raise GitError(first_line(errors.read()))


@contextmanager
def text_reader(folder: Path, most_bytes: int) -> Iterator[Read]:
    """A function that reads texts of at most so many bytes by their ids; what is no such text is a rejection."""
    with start(folder, "cat-file", "--batch", stderr=subprocess.DEVNULL, stdin=subprocess.PIPE) as git:
        assert git.stdin is not None
        assert git.stdout is not None
        requests, answers = git.stdin, git.stdout

        def read(blob: str) -> str | Rejection:
            if not blob:
                return ""
            try:
                requests.write(f"{blob}\n".encode())
                requests.flush()
            except OSError as error:
                raise GitError(f"git cat-file ended: {error.strerror}") from None
            size = answers.readline().split()[2:]
            if not size:
                return Rejection("content missing", blob)
            data = _read_exactly(answers, int(size[0]), most_bytes)
            if answers.read(1) != b"\n":
                raise GitError("git cat-file ended early")
            return Rejection("file too long", f"{int(size[0])} bytes") if data is None else _decode(data)

        yield read


def _fields(stream: IO[bytes]) -> Iterator[bytes]:
    """Split the stream at NUL bytes."""
    rest = b""
    while chunk := stream.read(_CHUNK):
        *complete, rest = (rest + chunk).split(b"\0")
        yield from complete
    if rest:
        yield rest


def _log(fields: Iterator[bytes]) -> Iterator[tuple[str, str, list[tuple[bytes, bytes]]]]:
    """Yield (commit, subject, its entries): id, subject, then ":modes ids status", path, and a new path if renamed."""
    commit: tuple[str, str, list[tuple[bytes, bytes]]] | None = None
    for field in fields:
        if commit and field.lstrip(b"\n").startswith(b":"):
            path = next(fields)
            renamed = field.split()[-1][:1] in (b"R", b"C")
            commit[2].append((field.strip(), next(fields) if renamed else path))
        else:
            if commit:
                yield commit
            commit = field.decode(), next(fields).decode(errors="replace"), []
    if commit:
        yield commit


def _change(sha: str, subject: str, entry: bytes, path: bytes) -> Change | None:
    old_mode, new_mode, old, new = entry.lstrip(b":").split()[:4]
    if {old_mode, new_mode} <= _FILE_MODES and old != new:
        return Change(sha, subject, path.decode(errors="backslashreplace"), _blob(old), _blob(new))
    return None


def _blob(blob: bytes) -> str:
    return blob.decode() if blob.strip(b"0") else ""


def _read_exactly(stream: IO[bytes], size: int, most: int) -> bytes | None:
    """Read `size` bytes; pass over them in pieces and return None if they are more than `most`."""
    if size <= most:
        return stream.read(size)
    while size:
        size -= len(stream.read(min(size, _CHUNK))) or size
    return None


def _decode(data: bytes) -> str | Rejection:
    if b"\0" in data:
        return Rejection("binary")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return Rejection("not UTF-8", f"byte {error.start}")
