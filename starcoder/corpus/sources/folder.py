"""Repositories in a folder: checkouts of git with what is tracked in them, or plain folders with all that is there."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from starcoder.corpus.licenses import Declaration, RepositoryLicenses
from starcoder.corpus.sources import git
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.files import (
    SKIPPED,
    File,
    candidates,
    files_of,
    is_decodable,
    origin,
    read_texts,
    repository_of,
    revision,
    undecodable,
    units_of,
    unusable,
    walk,
)
from starcoder.corpus.sources.metadata import METADATA_FILES, read_package
from starcoder.errors import UserError

# https://host/owner/name.git, ssh://git@host:22/group/sub/name, git@host:owner/name; a path on a disk tells no owner.
_REMOTE = re.compile(r"(?:(?!file:)\w+://[^/]+/|[^/:]+:(?!//))/*(?P<name>[^/]+/(?:[^/]+/)*?[^/]+?)(?:\.git)?/*")


@dataclass(frozen=True)
class Folder:
    """A folder whose sub-folders are repositories; files beside them belong to none.

    Attributes:
        path: The folder.
        license: Licence expression of all the repositories; without it, each declares its own.
        name: Of the source.
    """

    path: Path
    license: str | None = None
    name: str = "folder"

    def units(self) -> list[Unit]:
        """One unit for each sub-folder, several for a large one.

        Raises:
            UserError: The folder is missing or has no sub-folders.
        """
        try:
            with os.scandir(self.path) as entries:
                roots = sorted(entry.name for entry in entries if entry.is_dir() and not SKIPPED.fullmatch(entry.name))
        except OSError as error:
            raise UserError(f"{self.path} is not a folder of repositories: {error.strerror}") from error
        if not roots:
            raise UserError(f"{self.path} is not a folder of repositories: each repository is a sub-folder of it")
        return [unit for root in roots for unit in _units(self.path / root, self.license)]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The tracked files of a checkout, all files of any other folder."""
        return _candidates(self.name, self.path / repository_of(unit), self.license, unit)


@dataclass(frozen=True)
class Checkout:
    """One repository, in a folder of its own.

    Attributes:
        path: The folder.
        license: Licence expression of the repository; without it, the repository declares its own.
        name: Of the source.
    """

    path: Path
    license: str | None = None
    name: str = "repository"

    def units(self) -> list[Unit]:
        """The repository, as several units when it is large.

        Raises:
            UserError: The folder is missing or holds no files.
        """
        tree = Tree(self.path.resolve())
        files = tree.files() if self.path.is_dir() else []
        if not files:
            raise UserError(f"{self.path} is not a folder with files")
        return tree.units(files, self.license)

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The tracked files of a checkout, all files of any other folder."""
        return _candidates(self.name, self.path.resolve(), self.license, unit)


@dataclass(frozen=True)
class Tree:
    """The working tree of a repository."""

    root: Path

    def name(self) -> str:
        """Owner, or group and those inside it, and name, as the remote `origin` has them, or the name of the folder."""
        remote = _REMOTE.fullmatch(self._git("config", "--get", "remote.origin.url") or "")
        name = remote["name"] if remote else self.root.name
        return name if is_decodable(name) else undecodable(name).path

    def commit(self) -> str:
        """The revision of HEAD; empty when there is none."""
        return self._git("rev-parse", "--verify", "--quiet", "HEAD^{commit}") or ""

    def files(self, skipped: re.Pattern[str] = SKIPPED, untracked: bool = False) -> list[File]:
        """What git tracks and is there; all that is there when git does not know.

        Args:
            skipped: Names of files and folders to leave out.
            untracked: Whether to take what git does not track, but does not ignore either, too.
        """
        others = ("--cached", "--others", "--exclude-standard") if untracked else ()
        listing = self._git("ls-files", "-z", *others)
        if listing is None:
            return walk(self.root, skipped)
        tracked = set(listing.split("\0"))
        tracked |= {str(parent) for path in tracked for parent in PurePosixPath(path).parents}
        return walk(self.root, skipped, tracked.__contains__)

    def licenses(self, files: list[File], license: str | None) -> RepositoryLicenses:
        """What `license`, or else the metadata, and the licence files among `files` say."""
        metadata = read_texts(self.root, files, METADATA_FILES.__contains__)
        stated = Declaration(license, f"stated for the source: {license}") if license else None
        return RepositoryLicenses(stated or read_package(metadata).license, read_texts(self.root, files))

    def units(self, files: list[File], license: str | None) -> list[Unit]:
        """One unit, or several when `files` are large."""
        return units_of(self.root.name, files, revision(files, self.commit(), self.name(), license or ""))

    def _git(self, *arguments: str) -> str | None:
        """What a git command prints, without its last line break; None when there is no repository, or a broken one.

        Raises:
            UserError: There is a checkout, but no git on this machine.
        """
        if not os.path.lexists(self.root / ".git"):
            return None
        try:
            return os.fsdecode(git.run(self.root, *arguments)).rstrip("\n")
        except git.GitError:
            return None


def _units(root: Path, license: str | None) -> list[Unit]:
    if not is_decodable(root.name):
        return [Unit(undecodable(root.name).path, 0, "")]
    if root.is_symlink():
        return [Unit(root.name, 0, "")]
    tree = Tree(root)
    return tree.units(tree.files(), license)


def _candidates(source: str, root: Path, license: str | None, unit: Unit) -> Iterator[Candidate]:
    if root.is_symlink() or not root.is_dir():
        reason = "link" if root.is_symlink() else "unreadable"
        return iter([unusable(origin(source, root.name), reason)])
    tree = Tree(root)
    files = tree.files()
    start, licenses = origin(source, tree.name(), tree.commit()), tree.licenses(files, license)
    return candidates(start, files_of(unit, files), licenses, lambda path: (root / path).read_bytes())
