"""Packages as registries hand them out: sdists, wheels, npm packages and crates, read without unpacking them.

Nothing in an archive is trusted: what a header says about sizes is limited before it is believed, and the names are
only names, since nothing is written to disk.
"""

import errno
import gzip
import lzma
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from typing_extensions import override

from starcoder.corpus.document import Rejection
from starcoder.corpus.licenses import RepositoryLicenses, is_license_file
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.files import (
    SKIPPED,
    TEXT_BYTES,
    File,
    candidates,
    is_decodable,
    origin,
    revision,
    undecodable,
    unusable,
    walk,
)
from starcoder.corpus.sources.metadata import METADATA_FILES, read_package
from starcoder.errors import UserError, one_line

_TAR = (".tar.gz", ".tgz", ".crate")
_ZIP = (".zip", ".whl")
_WHEEL_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
# Limits that no package of source code reaches; sizes are in bytes.
_LARGEST_READ = 2**28
_LARGEST_TAR = 2**33
_MOST_MEMBERS = 500_000
_MOST_TEXT = 2**26
# All that the readers of the standard library raise for a file that is damaged, or made to harm.
_CORRUPT = (
    *(OSError, EOFError, ValueError, LookupError, ArithmeticError, RuntimeError, struct.error),
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)


@dataclass(frozen=True)
class Archives:
    """A folder of archives, at any depth, or a single one; each is a repository.

    Attributes:
        path: The folder or the archive: .tar.gz, .tgz, .crate, .zip or .whl.
        name: Of the source.
    """

    path: Path
    name: str = "archives"

    def units(self) -> list[Unit]:
        """One unit for each archive.

        Raises:
            UserError: There is no archive.
        """
        found = walk(self.path) if self.path.is_dir() else [_single(self.path)]
        archives = [file for file in found if file.path.lower().endswith((*_TAR, *_ZIP)) and not file.problem]
        if not archives:
            raise UserError(f"{self.path} holds no archives ({' '.join((*_TAR, *_ZIP))})")
        return [Unit(file.path, file.size, revision([file])) for file in archives]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The files of an archive in its order; each is to be read before the next one is asked for."""
        path = self.path / unit.name if self.path.is_dir() else self.path
        with ExitStack() as stack:
            try:
                archive = stack.enter_context(closing(_open(path)))
                contents = _scan(archive, wheel=path.suffix.lower() == ".whl")
            except _CORRUPT as error:
                yield unusable(origin(self.name, _stem(unit.name)), "corrupt archive", _message(error))
                return
            package = read_package(contents.metadata)
            start = origin(self.name, package.name or _stem(unit.name), package.version)
            licenses = RepositoryLicenses(package.license, contents.licenses)
            yield from candidates(start, contents.files, licenses, partial(_read, archive, contents))


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    problem: Rejection | None
    handle: Any  # what the reader of the archive finds it by


class _Archive(Protocol):
    def members(self) -> Iterator[_Member]:
        """All members but folders; each can be read at once without going back in the archive."""

    def read(self, member: _Member) -> bytes: ...

    def close(self) -> None: ...


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def members(self) -> Iterator[_Member]:
        for entry in self._zip.infolist():
            link = Rejection("link") if stat.S_ISLNK(entry.external_attr >> 16) else None
            if not entry.is_dir():
                yield _Member(entry.filename, entry.file_size, link, entry)

    def read(self, member: _Member) -> bytes:
        return self._zip.read(member.handle)

    def close(self) -> None:
        self._zip.close()


class _Gzip(gzip.GzipFile):
    """Refuses to give in one piece what only a bomb has: tarfile believes what a header says about its own length."""

    @override
    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError("a member larger than can be read")
        return super().read(size)


class _Tar:
    def __init__(self, path: Path) -> None:
        self._data = _Gzip(path)
        try:
            self._tar = tarfile.TarFile(fileobj=self._data)
        except BaseException:
            self._data.close()
            raise

    def members(self) -> Iterator[_Member]:
        for member in self._tar:
            self._check(member.offset_data + max(member.size, 0))
            if not member.isdir():
                link = member.issym() or member.islnk()
                problem = None if member.isreg() else Rejection("link" if link else "not a file")
                yield _Member(member.name, member.size, problem, member)
        while self._data.read(2**20):  # up to the checksum
            self._check(self._data.tell())

    def read(self, member: _Member) -> bytes:
        file = self._tar.extractfile(member.handle)
        return file.read() if file else b""

    def close(self) -> None:
        self._tar.close()
        self._data.close()

    def _check(self, position: int) -> None:
        if position > _LARGEST_TAR:
            raise tarfile.ReadError(f"more than {_LARGEST_TAR} bytes when decompressed")


@dataclass
class _Contents:
    """What one pass over an archive finds; paths are without the folder that holds everything."""

    files: list[File] = field(default_factory=list)
    members: dict[str, _Member] = field(default_factory=dict)
    licenses: dict[str, bytes] = field(default_factory=dict)
    metadata: dict[str, bytes] = field(default_factory=dict)


def _open(path: Path) -> _Archive:
    return _Zip(path) if path.suffix.lower() in _ZIP else _Tar(path)


def _scan(archive: _Archive, wheel: bool) -> _Contents:
    """Look at every member once; of several of one name, the last counts, as it does when they are unpacked."""
    members: dict[str, _Member] = {}
    texts: dict[str, bytes] = {}
    for member in archive.members():
        path = "/".join(part for part in member.name.split("/") if part not in ("", "."))
        members[path] = replace(member, problem=member.problem or _leaves(member.name))
        wanted = is_license_file(path) or PurePosixPath(path).name in METADATA_FILES
        if wanted and not members[path].problem and member.size <= TEXT_BYTES:
            texts[path] = archive.read(member)
        if len(members) > _MOST_MEMBERS or sum(map(len, texts.values())) > _MOST_TEXT:
            raise ValueError("more files than a package has")
    return _contents(members, texts, "" if wheel else _top(members))


def _contents(members: dict[str, _Member], texts: dict[str, bytes], top: str) -> _Contents:
    contents = _Contents(members={path.removeprefix(top): member for path, member in members.items()})
    for path, member in contents.members.items():
        if not any(map(SKIPPED.fullmatch, path.split("/"))):
            named = File(path, member.size, problem=member.problem) if is_decodable(path) else undecodable(path)
            contents.files.append(named)
    for path, text in texts.items():
        inside = path.removeprefix(top)
        if is_license_file(inside):
            contents.licenses[inside] = text
        elif inside in METADATA_FILES:
            contents.metadata[inside] = text
        elif _WHEEL_METADATA.fullmatch(inside):
            contents.metadata["METADATA"] = text
    return contents


def _leaves(name: str) -> Rejection | None:
    """Why a member's name is no path inside the archive."""
    leaves = name.startswith("/") or ".." in name.split("/")
    return Rejection("path leaves the archive") if leaves else None


def _top(members: dict[str, _Member]) -> str:
    """The folder that all sound members are in, with a slash at its end; empty when there is none."""
    tops = {path.partition("/")[:2] for path, member in members.items() if not member.problem}
    top, slash = tops.pop() if len(tops) == 1 else ("", "")
    return top + slash if slash else ""


def _read(archive: _Archive, contents: _Contents, path: str) -> bytes:
    try:
        return archive.read(contents.members[path])
    except _CORRUPT as error:
        raise OSError(errno.EIO, _message(error)) from error


def _single(path: Path) -> File:
    if not path.is_file():
        raise UserError(f"there is no archive or folder of archives {path}")
    state = path.stat()
    return File(path.name, state.st_size, str(state.st_mtime_ns))


def _stem(name: str) -> str:
    """The name of an archive without its folder and its extension."""
    base = PurePosixPath(name).name
    return next((base[: -len(ending)] for ending in (*_TAR, *_ZIP) if base.lower().endswith(ending)), base)


def _message(error: Exception) -> str:
    return one_line(error).encode(errors="backslashreplace").decode() or type(error).__name__
