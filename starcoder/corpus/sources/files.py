"""What the sources of files share: walking a folder, skipping what is not source, units of equal size, candidates."""

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.languages import language_of
from starcoder.corpus.licenses import Declaration, RepositoryLicenses, is_license_file
from starcoder.corpus.sources.base import Candidate, Unit

SKIPPED = re.compile(r"site-packages|dist-packages|__pycache__|\.git|\.hg|\.svn|.*\.(dist|egg)-info", re.DOTALL)
"""Names of what is not the source of a repository: other projects, compiled files, what tools keep for themselves."""
TEXT_BYTES = 2**20
"""Largest licence file or package metadata that is looked at."""
_UNIT_BYTES = 16_000_000
_NO_LICENSE = Declaration("", "")


@dataclass(frozen=True, slots=True)
class File:
    """A file of a repository.

    Attributes:
        path: POSIX path inside the repository.
        size: In bytes.
        state: Changes when the content does.
        problem: Why it cannot be read; None for a regular file.
    """

    path: str
    size: int = 0
    state: str = ""
    problem: Rejection | None = None


def walk(
    root: Path, skipped: re.Pattern[str] = SKIPPED, wanted: Callable[[str], bool] = lambda path: True
) -> list[File]:
    """The files below `root`, sorted by path; links are never followed.

    Links, special files, folders that cannot be read and names that are not UTF-8 are in the list, with the problem.

    Args:
        root: Folder to walk.
        skipped: Names of files and folders to leave out.
        wanted: Whether the file or folder at a path is looked at.
    """
    found: list[File] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(root / folder) as listing:
                entries = [entry for entry in listing if not skipped.fullmatch(entry.name)]
        except OSError as error:
            found.append(_unreadable(folder, error))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            if not wanted(path):
                continue
            if entry.is_dir(follow_symlinks=False) and is_decodable(path):
                folders.append(path)
            else:
                found.append(_file(path, entry))
    return sorted(found, key=lambda file: file.path)


def undecodable(path: str) -> File:
    """A file whose name is not UTF-8, under a name that is."""
    return File(path.encode(errors="backslashreplace").decode(), problem=Rejection("undecodable name"))


def is_decodable(path: str) -> bool:
    """Whether a name from the file system, or from an archive, is text: the bytes that are not came as surrogates."""
    return not re.search("[\ud800-\udfff]", path)


def digest(text: str) -> str:
    """A short name for a long state."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def revision(files: Iterable[File], *others: str) -> str:
    """Changes when one of the files or `others` does: no file is read for it."""
    return digest("\n".join((*others, *(f"{file.path}\0{file.size}\0{file.state}" for file in files))))


def units_of(name: str, files: Sequence[File], revision: str) -> list[Unit]:
    """One unit for the repository `name`; several, `name#0`, `name#1`, …, when its files are large."""
    parts = _parts(files)
    sizes = [sum(map(_bytes_to_read, part)) for part in parts]
    if len(parts) == 1 and "#" not in name:
        return [Unit(name, sizes[0], revision)]
    return [Unit(f"{name}#{number}", size, revision) for number, size in enumerate(sizes)]


def repository_of(unit: Unit) -> str:
    """The name of the repository that `units_of` made `unit` for."""
    name, numbered, _ = unit.name.rpartition("#")
    return name if numbered else unit.name


def files_of(unit: Unit, files: Sequence[File]) -> list[File]:
    """The files, of all those of its repository, that are in `unit`."""
    _, numbered, number = unit.name.rpartition("#")
    if not numbered:
        return list(files)
    parts = _parts(files)
    return parts[int(number)] if int(number) < len(parts) else []  # files may have vanished since the units were made


def read_texts(root: Path, files: Iterable[File], wanted: Callable[[str], bool] = is_license_file) -> dict[str, bytes]:
    """The contents of the `wanted` files that can be read and are as short as such texts are."""
    found = {}
    for file in files:
        if wanted(file.path) and not file.problem and file.size <= TEXT_BYTES:
            with suppress(OSError):
                found[file.path] = (root / file.path).read_bytes()
    return found


def candidates(
    origin: Document, files: Iterable[File], licenses: RepositoryLicenses, read: Callable[[str], bytes]
) -> Iterator[Candidate]:
    """The candidates for `files`.

    Args:
        origin: What all their documents have in common: source, repository and commit.
        files: Of one repository.
        licenses: Of that repository.
        read: Returns the bytes of the file at a path. Raises OSError.
    """
    for file in files:
        language, extension = language_of(file.path) or ("", PurePosixPath(file.path).suffix.lower().removeprefix("."))
        document = replace(origin, path=file.path, language=language, extension=extension, size=file.size)
        if file.problem:
            yield Candidate(document.reject(file.problem.reason, file.problem.detail), _NO_LICENSE)
        else:
            yield Candidate(document, licenses.of(file.path), partial(read, file.path))


def unusable(origin: Document, reason: str, detail: str = "") -> Candidate:
    """One candidate for all of a repository, an archive or a data file that cannot be read."""
    return Candidate(origin.reject(reason, detail), _NO_LICENSE)


def origin(source: str, repository: str, commit: str = "") -> Document:
    """A document with nothing but where it comes from."""
    return Document(repository, "", "", "", (), 0, commit=commit, source=source)


def _unreadable(path: str, error: OSError) -> File:
    return File(path, problem=Rejection("unreadable", error.strerror or type(error).__name__))


def _file(path: str, entry: os.DirEntry[str]) -> File:
    if not is_decodable(path):
        return undecodable(path)
    try:
        state = entry.stat(follow_symlinks=False)
    except OSError as error:
        return _unreadable(path, error)
    if stat.S_ISREG(state.st_mode):
        return File(path, state.st_size, str(state.st_mtime_ns))
    return File(path, problem=Rejection("link" if stat.S_ISLNK(state.st_mode) else "not a file"))


def _parts(files: Sequence[File]) -> list[list[File]]:
    parts: list[list[File]] = [[]]
    size = 0
    for file in files:
        more = _bytes_to_read(file)
        if size and more and size + more > _UNIT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(file)
        size += more
    return parts


def _bytes_to_read(file: File) -> int:
    """Only a file in some language, or a notebook, will be read."""
    return file.size if language_of(file.path) or file.path.endswith(".ipynb") else 0
