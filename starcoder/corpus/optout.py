"""Authors who do not want their code in the corpus: before it is built, and in a finished one (paper §3).

The Stack let developers ask for the removal of their repositories. Here the list is a text file: an owner or an
owner/repository on each line, upper and lower case alike, also as the address on GitHub or another host; `#` starts a
comment. A group, as on GitLab, is an owner, and so is each group inside it: `group/sub`.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.corpus.document import Document, read_shard, shards, write_shard
from starcoder.errors import UserError

STAGE = "opt-out"
REASON = "opted out"

_KEPT = ("train", "validation")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_ADDRESS = re.compile(
    r"\A(?:\w+://(?:[^/@\s]*@)?[^/:\s]+(?::\d+)?(?:[/:]|\Z)|(?:[\w.-]+@[\w.-]+:|git@[\w.-]+/)/*"
    r"|(?:www\.)?(?:(?:github|gitlab)\.com|(?:bitbucket|codeberg)\.org)(?:[/:]|\Z))",
    re.IGNORECASE,
)
# A page of a repository, such as owner/repository/tree/main, is no repository inside a group.
_ENTRY = re.compile(
    r"[@~]?[\w.-]+(?:/[\w.-]+(?:/(?!(?:-|tree|blob|commits?|issues|pulls?|wiki|releases)(?:/|$))[\w.-]+)*)?"
)


@dataclass(frozen=True)
class OptOut:
    """Owners and repositories that asked to be left out.

    Attributes:
        entries: `owner`, `owner/repository`, or `group/sub/repository` to any depth, in lower case.
    """

    entries: frozenset[str]

    @classmethod
    def none(cls) -> Self:
        """The list of nobody."""
        return cls(frozenset())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a list.

        Raises:
            UserError: The file is missing or not UTF-8, or a line is neither an owner nor an owner/repository.
        """
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"the opt-out list {path} cannot be read: {error}") from None
        entries = set()
        for number, line in enumerate(lines, 1):
            stated = _COMMENT.sub("", line).strip()
            if stated and not _ENTRY.fullmatch(bare_name(stated)):
                raise UserError(f"{path}, line {number}: {stated[:80]!r} is neither an owner nor an owner/repository")
            if stated:
                entries.add(bare_name(stated))
        return cls(frozenset(entries))

    def matches(self, repository: str) -> str | None:
        """Return the entry that `repository` falls under: its own one, or that of a group around it, or its owner's.

        A repository without an owner, such as the installed distribution "requests", has only its own. `@owner` is the
        scope of that name on npm, and the owner: that is how people are mentioned on GitHub.
        """
        parts = bare_name(repository).split("/")
        names = ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
        return next((entry for entry in (*names, f"@{parts[0]}") if entry in self.entries), None)

    def __contains__(self, repository: str) -> bool:
        return self.matches(repository) is not None

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def digest(self) -> str:
        """Hash of the entries, in hexadecimal: the same for lists that ask for the same."""
        return hashlib.sha256("\n".join(sorted(self.entries)).encode()).hexdigest()


def bare_name(name: str) -> str:
    """The name of a repository or an owner in lower case, without the address around it."""
    return _ADDRESS.sub("", name.strip()).strip("/").removesuffix(".git").lower()


def apply_to_corpus(folder: Path, opt_out: OptOut) -> Counter[str]:
    """Take the documents of opted-out repositories out of a finished corpus.

    They move, without their content, from the splits "train" and "validation" to "rejected"; documents that were
    rejected before lose their excerpt. Only shards that hold such documents are written again, each at once or not at
    all. What a run that was killed had left to do, the next one does; on a corpus that is done it changes nothing.
    Duplicates that others had of the documents stay left out: their content is not in the corpus.

    Returns:
        For each split the number of documents that left it, or lost their excerpt; nothing for a split without such.

    Raises:
        UserError: A shard is missing or corrupt.
    """
    changed: Counter[str] = Counter()
    affected = {split: [shard for shard in shards(folder, split) if _holds(shard, opt_out)] for split in _KEPT}
    # First they appear among the rejected, then they leave their split: a killed run never loses one.
    changed["rejected"] = _reject(folder, opt_out, [shard for split in _KEPT for shard in affected[split]])
    for split, found in affected.items():
        for shard in found:
            changed[split] += sum(1 for _ in _gone(shard, opt_out))
            write_shard(shard, (document for document in read_shard(shard) if document.repository not in opt_out))
    return +changed


def _reject(folder: Path, opt_out: OptOut, sources: list[Path]) -> int:
    """Append what leaves `sources` to the rejected documents; return how many of these lose an excerpt."""
    rejected = shards(folder, "rejected")
    moving = {_key(document): document for shard in sources for document in _gone(shard, opt_out)}
    erased = 0
    for shard in rejected:
        excerpts = 0
        for document in read_shard(shard):
            excerpts += bool(document.content) and document.repository in opt_out
            if document.rejection and document.rejection.stage == STAGE:
                moving.pop(_key(document), None)
        last = shard == rejected[-1]
        if excerpts or (last and moving):
            write_shard(shard, _without_excerpts(shard, opt_out, list(moving.values()) if last else []))
        erased += excerpts
    return erased


def _gone(shard: Path, opt_out: OptOut) -> Iterator[Document]:
    for document in read_shard(shard):
        entry = opt_out.matches(document.repository)
        if entry is not None:
            yield document.reject(REASON, entry, STAGE)


def _without_excerpts(shard: Path, opt_out: OptOut, more: list[Document]) -> Iterator[Document]:
    for document in read_shard(shard):
        yield replace(document, content="", marks=()) if document.repository in opt_out else document
    yield from more


def _key(document: Document) -> Document:
    """What tells a rejected document from others, whichever entry it was rejected for."""
    return replace(document, rejection=None)


def _holds(shard: Path, opt_out: OptOut) -> bool:
    """Whether any document of a shard is opted out; only its column of repositories is read."""
    try:
        with pq.ParquetFile(shard) as file:
            batches = file.iter_batches(columns=["repository"])
            return any(str(name) in opt_out for batch in batches for name in batch.column(0).unique().to_pylist())
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{shard} is corrupt ({str(error).splitlines()[0]}): build the corpus again") from error
