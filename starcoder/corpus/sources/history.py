"""What git knows about a repository on this machine: the commits that change one file, and the texts of files.

The repository may be somebody else's: git runs none of its programs, and fetches nothing that is missing.
"""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from starcoder.corpus.document import Rejection
from starcoder.errors import UserError

_FILE_MODES = {b"000000", b"100644", b"100755"}  # not there, or a file; no symbolic link and no submodule
_CHUNK = 2**20
_GIT = (
    *("git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false"),
    *("-c", "log.showSignature=false", "-c", "log.showRoot=true"),
)

Read = Callable[[str], str | Rejection]
"""The text with an id; the empty id, of a file that is not there, has the empty text."""


class GitError(Exception):
    """What git cannot do with a repository, in its words."""


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
        return _run(folder, "rev-parse", "--verify", "HEAD^{commit}").decode().strip()
    except GitError:
        return ""


def stored_bytes(folder: Path) -> int:
    """Bytes of the repository's objects as they are stored."""
    try:
        counted = _run(folder, "count-objects", "-v").decode()
    except GitError:
        return 0
    return 1024 * sum(int(size) for size in re.findall(r"^size(?:-pack)?: (\d+)$", counted, re.MULTILINE))


def one_file_changes(folder: Path) -> Iterator[Change]:
    """Yield the commits in the history of HEAD, no merges, that change the content of exactly one file; newest first.

    Raises:
        GitError: There is no history, or it is damaged.
    """
    # Where a shallow history begins, a commit seems to create all files.
    shallow = folder / os.fsdecode(_run(folder, "rev-parse", "--git-path", "shallow").rstrip(b"\n"))
    cut = set(shallow.read_text().split()) if shallow.is_file() else set()
    options = ("--no-merges", "--find-renames", "--raw", "--no-abbrev", "-z", "--encoding=UTF-8", "--format=%H%x00%s")
    with TemporaryFile() as errors, _start(folder, "log", *options, stderr=errors) as git:
        assert git.stdout is not None
        for sha, subject, entries in _log(_fields(git.stdout)):
            change = _change(sha, subject, *entries[0]) if len(entries) == 1 and sha not in cut else None
            if change:
                yield change
        if git.wait():
            errors.seek(0)
            raise GitError(_first_line(errors.read()))


@contextmanager
def text_reader(folder: Path, most_bytes: int) -> Iterator[Read]:
    """A function that reads texts of at most so many bytes by their ids; what is no such text is a rejection."""
    with _start(folder, "cat-file", "--batch", stderr=subprocess.DEVNULL, stdin=subprocess.PIPE) as git:
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


def _environment(folder: Path) -> dict[str, str]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return outside | {
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_CEILING_DIRECTORIES": str(folder.resolve().parent),  # a damaged repository is not the one around it
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }


def _start(
    folder: Path, *command: str, stderr: int | IO[bytes], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [*_GIT, *command],
            cwd=folder,
            env=_environment(folder),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
    except FileNotFoundError:
        raise UserError("git is not installed; commits are read with it") from None


def _run(folder: Path, *command: str) -> bytes:
    with _start(folder, *command, stderr=subprocess.PIPE) as git:
        output, errors = git.communicate()
    if git.returncode:
        raise GitError(_first_line(errors))
    return output


def _first_line(errors: bytes) -> str:
    return errors.decode(errors="replace").partition("\n")[0] or "git failed"


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
