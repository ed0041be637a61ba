"""Where documents come from: code installed here, folders, checkouts, archives, The Stack, issues and commits."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from starcoder.corpus.document import Rejection
from starcoder.corpus.licenses import judge_license
from starcoder.corpus.sources.base import Candidate, Source, Unit
from starcoder.errors import UserError

__all__ = ["Candidate", "Source", "SourceSpec", "Unit", "fingerprint", "open_sources"]


@dataclass(frozen=True)
class SourceSpec:
    """A source as a recipe names it.

    Attributes:
        kind: "installed": the distributions of the running interpreter and its standard library. "folder": a folder
            whose sub-folders are repositories. "repository": a folder that is one repository. "archives": a folder of
            sdists, wheels, npm packages and crates, or a single one. "stack": parquet files of The Stack. "issues":
            dumps of issues. "commits": the history of the checkouts in a folder, or of one checkout.
        path: Where it is; "stack" can also be on "s3://…" or "hf://datasets/…". None for "installed" alone.
        license: SPDX expression, or `LicenseRef-…`, that all of it is under. Without it each repository declares its
            own; "installed" and "archives" always do. For "stack", only data without a column of licences needs it.
        name: What the corpus calls it; by default the last part of the path, or else the kind.
    """

    kind: Literal["installed", "folder", "repository", "archives", "stack", "issues", "commits"]
    path: str | None = None
    license: str | None = None
    name: str | None = None


def open_sources(specs: Sequence[SourceSpec]) -> tuple[list[Source], list[str]]:
    """Return the sources, each under a name of its own, and what there is to tell about them.

    Raises:
        UserError: A path or a licence is missing, wrong, or has no meaning for the kind of source; all are told.
    """
    problems = [f"{spec.kind}: {problem}" for spec in specs for problem in _problems(spec)]
    if problems or not specs:
        raise UserError("; ".join(problems) or "there are no sources: name at least one")
    names, messages = _unique_names(specs)
    return [_open(spec, name) for spec, name in zip(specs, names, strict=True)], messages


def fingerprint(sources: Sequence[Source]) -> str:
    """A digest that changes when what the sources hold does, from the revisions of their units: no file is read."""
    digest = hashlib.sha256()
    for source in sources:
        for unit in source.units():
            digest.update(f"{source.name}\0{unit.name}\0{unit.revision}\n".encode())
    return digest.hexdigest()


def _problems(spec: SourceSpec) -> list[str]:
    found = []
    if spec.kind == "installed":
        found += ["it takes no path"] if spec.path else []
    elif not spec.path:
        found += ["the path is missing"]
    elif "://" in spec.path and spec.kind != "stack":
        found += [f"{spec.path} must be a local path"]
    elif "://" not in spec.path and not _local(spec.path).exists():
        found += [f"{spec.path} does not exist"]
    if spec.license and spec.kind in ("installed", "archives"):
        found += [f"the licence {spec.license} has no meaning here: each package declares its own"]
    elif spec.license:
        verdict = judge_license(spec.license)
        unknown = isinstance(verdict, Rejection) and verdict.reason == "licence unknown"
        found += [f"{spec.license} is no SPDX licence expression"] if unknown else []
    return found


def _unique_names(specs: Sequence[SourceSpec]) -> tuple[list[str], list[str]]:
    wanted = [spec.name or _last_part(spec) for spec in specs]
    names: list[str] = []
    messages: list[str] = []
    for spec, name in zip(specs, wanted, strict=True):
        number, unique = 2, name
        while unique in names or (unique != name and unique in wanted):
            number, unique = number + 1, f"{name}-{number}"
        if unique != name:
            where = spec.path or spec.kind
            messages.append(f"there is another source of the name {name}: that of {where} is called {unique}")
        names.append(unique)
    return names, messages


def _last_part(spec: SourceSpec) -> str:
    if not spec.path:
        return spec.kind
    path = spec.path.partition("?")[0] if "://" in spec.path else str(_local(spec.path).resolve())
    return path.rstrip("/").rpartition("/")[2] or spec.kind


def _local(path: str) -> Path:
    return Path(path).expanduser()


def _open(spec: SourceSpec, name: str) -> Source:
    """Each kind's module is imported only when it is used."""
    if spec.kind == "installed":
        from starcoder.corpus.sources.installed import Installed

        return Installed(name)
    assert spec.path
    if spec.kind == "stack":
        from starcoder.corpus.sources.stack import Stack

        return Stack(spec.path, spec.license, name)
    path = _local(spec.path)
    if spec.kind == "archives":
        from starcoder.corpus.sources.archives import Archives

        return Archives(path, name)
    if spec.kind == "issues":
        from starcoder.corpus.sources.issues import Issues

        return Issues(path, license=spec.license or "", name=name)
    if spec.kind == "commits":
        from starcoder.corpus.sources.commits import Commits

        return Commits(path, license=spec.license or "", name=name)
    from starcoder.corpus.sources.folder import Checkout, Folder

    return (Folder if spec.kind == "folder" else Checkout)(path, spec.license, name)
