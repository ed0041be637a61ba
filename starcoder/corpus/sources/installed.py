"""The code installed on this machine: real, with licences and near-duplicates as real code has them; no download."""

import re
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, distributions
from pathlib import Path

from starcoder.corpus.licenses import Declaration, RepositoryLicenses, declared_license, is_license_file
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.files import (
    SKIPPED,
    File,
    candidates,
    digest,
    files_of,
    is_decodable,
    origin,
    read_texts,
    repository_of,
    revision,
    undecodable,
    units_of,
    walk,
)
from starcoder.corpus.sources.metadata import normalise

_OURSELVES = "starcoder-kit"
_CPYTHON = "cpython"
# Beside what is nobody's source: what was written here with paths of this machine, when the interpreter was built.
_SKIPPED = re.compile(rf"{SKIPPED.pattern}|config-\d.*|_sysconfigdata_.*", re.DOTALL)


@dataclass(frozen=True)
class Installed:
    """The distributions of the running interpreter, each a repository, and the standard library of CPython.

    Attributes:
        name: Of the source.
    """

    name: str = "installed"

    def units(self) -> list[Unit]:
        """One unit for each distribution, several for a large one."""
        trees = {name: _tree(name) for name in sorted([*_distributions(), _CPYTHON])}
        return [unit for name, tree in trees.items() for unit in units_of(name, tree.files, tree.revision)]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The files of a distribution in site-packages; its scripts and manuals are elsewhere, and left out."""
        name = repository_of(unit)
        tree = _tree(name)
        licenses = RepositoryLicenses(tree.declared, read_texts(tree.root, tree.licenses))
        start = origin(self.name, name, tree.version)
        return candidates(start, files_of(unit, tree.files), licenses, lambda path: (tree.root / path).read_bytes())


@dataclass(frozen=True)
class _Tree:
    root: Path
    files: tuple[File, ...]
    version: str
    revision: str
    declared: Declaration | None
    licenses: tuple[File, ...]  # the licence files


@cache
def _distributions() -> dict[str, Distribution]:
    """Each distribution once: the one that is imported when several places hold it."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        found.setdefault(normalise((distribution.metadata.get_all("Name") or [""])[0]), distribution)
    return {name: distribution for name, distribution in found.items() if name not in ("", _OURSELVES)}


@cache
def _tree(name: str) -> _Tree:
    return _standard_library() if name == _CPYTHON else _distribution(_distributions()[name])


def _distribution(distribution: Distribution) -> _Tree:
    inside = [path for path in distribution.files or [] if not {"..", "/"} & set(path.parts)]
    everything = [
        File(path.as_posix(), path.size or 0) if is_decodable(path.as_posix()) else undecodable(path.as_posix())
        for path in inside
    ]
    files = [file for file in everything if not any(map(_SKIPPED.fullmatch, file.path.split("/")))]
    return _Tree(
        root=Path(str(distribution.locate_file(""))),
        files=tuple(sorted(files, key=lambda file: file.path)),
        version=distribution.version,
        revision=f"{distribution.version} {digest(distribution.read_text('RECORD') or '')}",
        declared=declared_license(distribution.metadata),
        licenses=tuple(file for file in everything if is_license_file(file.path)),
    )


def _standard_library() -> _Tree:
    """It is one work under one licence, whatever the texts in its LICENSE.txt of the code that it includes."""
    root = Path(sysconfig.get_path("stdlib"))
    files = walk(root, _SKIPPED)
    return _Tree(
        root=root,
        files=tuple(files),
        version=sys.version.split()[0],
        revision=f"{sys.version.split()[0]} {revision(files, sys.version)}",
        declared=Declaration("PSF-2.0", "the licence of CPython"),
        licenses=tuple(file for file in files if "/" in file.path and is_license_file(file.path)),
    )
