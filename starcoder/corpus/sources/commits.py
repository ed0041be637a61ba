"""Commits of local git repositories that change one file: before, message, after (paper §3.4).

    git log ─► one-file commits ─► message filters ─► change filters ─► one commit a file ─► whole files, or a window

    <commit_before>… <commit_msg>subject <commit_after>…

Every choice at random is a keyed hash of seed, repository and commit, so it does not depend on what else there is.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from starcoder.corpus.document import Document, Rejection
from starcoder.corpus.filters import STAGE
from starcoder.corpus.formatting import structured
from starcoder.corpus.languages import language_of
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sampling import random_key
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.folder import Tree
from starcoder.corpus.sources.history import (
    Change,
    GitError,
    Read,
    head,
    history_bytes,
    is_repository,
    one_file_changes,
    text_reader,
)
from starcoder.errors import UserError
from starcoder.tokenizer import Sentinel

LONGEST_FILE = 100_000
"""Characters that a file must not reach, before or after the commit (the authors looked at the file before only)."""
SHORT_CHANGE, LONG_CHANGE = 2, 200
EXTREME_CHANGE_RATE = 0.1
"""Share of commits kept whose change spans at most 2, or at least 200 lines."""
SHORT_MESSAGE_RATE = 0.5
"""Share of commits kept whose message has fewer than 5 words."""
DATA_RATE = 0.5
"""Share of commits kept that change JSON, YAML or HTML. (XML itself has no row in the table of languages.)"""
WHOLE_FILE_RATE = 0.2
"""Share of commits shown with the whole file; the others with up to 31 lines on either side of the change."""
WINDOW = 32

Draw = Callable[[str], float]
"""A number in [0, 1) for each purpose."""


def judge_message(subject: str, draw: Draw) -> Rejection | None:
    """Return why a commit with this subject line is left out, or None."""
    words, plain = subject.split(), subject.lower()
    if not words:
        return Rejection("empty commit message")
    if any(part in plain for part in _EMPTY_PHRASES) or plain in _EMPTY_MESSAGES:
        return Rejection("uninformative commit message", subject)
    if re.fullmatch(r"v?\d+\.\d+\.\d+\S*", plain.strip()):
        return Rejection("commit message is a version", subject)
    if len(subject) / len(words) > 20 or (subject.startswith(" ") and len(words) == 1):
        return Rejection("commit message without words", subject)
    if len(words) < 5 and draw("message") >= SHORT_MESSAGE_RATE:
        return Rejection("short commit message", "sampled out")
    return None


def judge_change(old: str, new: str, draw: Draw) -> Rejection | None:
    """Return why a commit that turns the text `old` into `new` is left out, or None."""
    if not new:
        return Rejection("file is empty after the commit")
    if max(len(old), len(new)) >= LONGEST_FILE:
        return Rejection("file too long", f"{max(len(old), len(new))} characters")
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    first, last = _changed_lines(before, after)
    span = max(len(before), len(after)) - last - first
    if not SHORT_CHANGE < span < LONG_CHANGE and draw("change") >= EXTREME_CHANGE_RATE:
        return Rejection("small change" if span <= SHORT_CHANGE else "large change", f"{span} lines, sampled out")
    return None


def excerpt(old: str, new: str, draw: Draw) -> tuple[str, str]:
    """Return what is shown of the file before and after: all of it, or the same window around the change.

    The authors' window always begins with the file, and their span with it, since they took the minimum of the first
    changed line and 0. Here both begin with the change, as the paper describes them.
    """
    if draw("whole file") < WHOLE_FILE_RATE:
        return old, new
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    first, last = _changed_lines(before, after)
    start = max(first - int(draw("lines above") * WINDOW), 0)
    rest = max(last - int(draw("lines below") * WINDOW), 0)
    return "".join(before[start : len(before) - rest]), "".join(after[start : len(after) - rest])


_DATA_LANGUAGES = ("json", "yaml", "html")
_EMPTY_PHRASES = ("auto commit", "update contributing", "<?xml")
_EMPTY_MESSAGES = {
    *("readme", "update", "dummy", "updated", "debug", "test"),
    *("update readme", "update readme.md", "updated readme", "updated readme.md"),
}


def _changed_lines(before: list[str], after: list[str]) -> tuple[int, int]:
    """How many lines at the top and at the bottom are the same."""
    pairs = zip(before, after, strict=False)
    first = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    tails = zip(reversed(before[first:]), reversed(after[first:]), strict=False)
    return first, sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], tails))


@dataclass(frozen=True)
class Commits:
    """Checkouts, or bare repositories, of git; each is a unit, with the history of its HEAD.

    Attributes:
        path: A repository, or a folder in which repositories lie as `name` or `owner/name`.
        license: SPDX expression of all of them; without it each checkout declares its own, a bare repository none.
        seed: Of the choices at random.
        name: Unique among the sources of a corpus.
    """

    path: Path
    license: str = ""
    seed: int = 1234
    name: str = "commits"

    def units(self) -> list[Unit]:
        """The repositories, sorted by name.

        Raises:
            UserError: git is not installed, or there is no repository.
        """
        return [
            Unit(name, history_bytes(folder), f"{head(folder)} {self.seed} {self.license}".strip())
            for name, folder in sorted(self._folders().items())
        ]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The one-file commits of a repository, file by file: at most one of each is kept."""
        folder = self._folders()[unit.name]
        tree = Tree(folder)
        repository = tree.name() if "/" in tree.name() else unit.name
        licenses = tree.licenses(tree.files(), self.license or None)
        try:
            by_file: dict[str, list[Change]] = {}
            for change in one_file_changes(folder):
                by_file.setdefault(change.path, []).append(change)
            with text_reader(folder, 4 * LONGEST_FILE) as read:  # a character has at most four bytes
                for _, changes in sorted(by_file.items()):
                    yield from self._choose(repository, changes, read, licenses.of(changes[0].path))
        except GitError as error:
            document = Document(repository, "", "", "", (), 0, kind="commit", source=self.name)
            yield Candidate(document.reject("history unreadable", str(error)), licenses.of(""))

    def _folders(self) -> dict[str, Path]:
        if is_repository(self.path):
            return {self.path.resolve().name: self.path}
        first = [folder for folder in self.path.glob("*/") if folder.is_dir()]
        below = [folder for owner in first if not is_repository(owner) for folder in owner.glob("*/")]
        found = {folder.relative_to(self.path).as_posix(): folder for folder in first + below if is_repository(folder)}
        if not found:
            raise UserError(f"{self.path} is no git repository, and no folder of git repositories")
        return found

    def _choose(self, repository: str, changes: list[Change], read: Read, license: Declaration) -> Iterator[Candidate]:
        """Take the changes of a file in random order, up to the first that passes the filters."""
        kept = False
        for change in sorted(changes, key=lambda change: random_key(self.seed, f"{repository}@{change.sha}")):
            document, texts = self._document(repository, change), ("", "")
            if kept:
                document = document.reject("another commit of the file", "", STAGE)
            else:
                document, texts = self._judge(document, change, read)
            kept = kept or document.rejection is None
            yield Candidate(document, license, file=change.path, texts=tuple(filter(None, texts)))

    def _document(self, repository: str, change: Change) -> Document:
        language, extension = language_of(change.path) or ("", "")
        path = f"{change.path}@{change.sha[:12]}"
        commit, source = change.sha, self.name
        return Document(repository, path, language, extension, (), 0, kind="commit", commit=commit, source=source)

    def _judge(self, document: Document, change: Change, read: Read) -> tuple[Document, tuple[str, str]]:
        """Fill in what is shown of the change, or the reason to leave it out; and the text before and after it."""

        def draw(purpose: str) -> float:
            key = random_key(self.seed, f"{document.repository}@{change.sha} {purpose}")
            return int.from_bytes(key[:6]) / 2**48  # six bytes are exact in a float

        rejection = _judge_language(document.language, draw) or judge_message(change.subject, draw)
        if rejection:
            return document.reject(rejection.reason, rejection.detail, STAGE), ("", "")
        old, new = read(change.old), read(change.new)
        if isinstance(old, Rejection):
            return document.reject(old.reason, old.detail), ("", "")
        if isinstance(new, Rejection):
            return document.reject(new.reason, new.detail), ("", "")
        rejection = judge_change(old, new, draw)
        if rejection:
            return document.reject(rejection.reason, rejection.detail, STAGE), ("", "")
        before, after = excerpt(old, new, draw)
        content, marks = structured(
            (Sentinel.COMMIT_BEFORE, before, Sentinel.COMMIT_MSG, change.subject, Sentinel.COMMIT_AFTER, after)
        )
        return replace(document, content=content, marks=marks, size=len(content.encode())), (old, new)


def _judge_language(language: str, draw: Draw) -> Rejection | None:
    if not language:
        return Rejection("extension not in the table")
    sampled_out = language in _DATA_LANGUAGES and draw("data") >= DATA_RATE
    return Rejection("data file", "sampled out") if sampled_out else None
