"""Where documents come from: repositories on this machine, found without any download.

By default these are the distributions installed in the running interpreter and the standard library of CPython: real
code, with licences and near-duplicates as real code has them. A folder of repositories is the other source.
"""

import hashlib
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from starcoder.corpus.licenses import declared_license
from starcoder.errors import UserError

_OURSELVES = "starcoder-kit"
# Not the source: other projects, compiled files, what was written here with paths of this machine, undecodable names.
_SKIPPED = re.compile(
    r"site-packages|dist-packages|__pycache__|\.git|config-\d.*|_sysconfigdata_.*|.*\.(dist|egg)-info|.*[\ud800-\udfff].*"
)


@dataclass(frozen=True)
class Repository:
    """A project with one declared licence.

    Attributes:
        name: Unique among the repositories of a source.
        license: SPDX expression, or what the project says instead of one.
        root: Folder that the paths are relative to.
        paths: POSIX paths of its files, sorted.
        revision: Changes when the files do.
    """

    name: str
    license: str
    root: Path
    paths: tuple[str, ...]
    revision: str


def find_repositories(folder: Path | None = None, license: str | None = None) -> list[Repository]:
    """Return the repositories of this machine, or those in `folder`, sorted by name.

    Args:
        folder: A folder whose sub-folders are repositories; without it, the installed distributions and CPython.
        license: SPDX expression of all repositories in `folder`.

    Raises:
        UserError: `folder` is missing or has no sub-folders, or one of the two arguments is given without the other.
    """
    found: Iterable[Repository]
    if folder is None and license is None:
        found = [*_installed(), _cpython()]
    elif folder is not None and license is not None:
        found = _in_folder(folder, license)
    else:
        raise UserError("a folder of repositories needs the licence they are under, and only such a folder does")
    return sorted(found, key=lambda repository: repository.name)


def single_repository(root: Path, license: str) -> Repository:
    """The repository in the folder `root`.

    Raises:
        UserError: `root` is missing or holds no files.
    """
    root = root.resolve()
    if not _walk(root):
        raise UserError(f"{root} is not a folder with files")
    return _in_root(root, license)


def fingerprint(repositories: list[Repository]) -> str:
    """Return a digest of what the repositories hold, from their revisions alone: no file is read for it."""
    digest = hashlib.sha256()
    for repository in repositories:
        digest.update(f"{repository.name}\0{repository.license}\0{repository.revision}\n".encode())
    return digest.hexdigest()


def _installed() -> Iterator[Repository]:
    """Each distribution once: the one that is imported when several places hold it."""
    seen = {"", _OURSELVES}
    for distribution in distributions():
        name = re.sub(r"[-_.]+", "-", (distribution.metadata.get_all("Name") or [""])[0]).lower()
        if name not in seen:
            seen.add(name)
            yield _from_distribution(name, distribution)


def _from_distribution(name: str, distribution: Distribution) -> Repository:
    """The files of a distribution in site-packages; scripts and manuals are installed elsewhere and left out."""
    inside = [path for path in distribution.files or [] if not {"..", "/"} & set(path.parts)]
    return Repository(
        name=name,
        license=declared_license(distribution.metadata),
        root=Path(str(distribution.locate_file(""))),
        paths=tuple(sorted(path.as_posix() for path in inside if not any(map(_SKIPPED.fullmatch, path.parts)))),
        revision=f"{distribution.version} {_digest(distribution.read_text('RECORD') or '')}",
    )


def _cpython() -> Repository:
    root = Path(sysconfig.get_path("stdlib"))
    return Repository("cpython", "PSF-2.0", root, _walk(root), sys.version)


def _in_folder(folder: Path, license: str) -> Iterator[Repository]:
    roots = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not roots:
        raise UserError(f"{folder} is not a folder of repositories: each repository is a sub-folder of it")
    yield from (_in_root(root, license) for root in roots)


def _in_root(root: Path, license: str) -> Repository:
    paths = _walk(root)
    stats = ((path, (root / path).lstat()) for path in paths)
    states = "\n".join(f"{path} {stat.st_size} {stat.st_mtime_ns}" for path, stat in stats)
    return Repository(root.name, license, root, paths, _digest(states))


def _walk(root: Path) -> tuple[str, ...]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not _SKIPPED.fullmatch(name)]
        inside = Path(folder).relative_to(root)
        found += [(inside / name).as_posix() for name in files if not _SKIPPED.fullmatch(name)]
    return tuple(sorted(found))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
