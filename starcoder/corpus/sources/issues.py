"""GitHub issues and pull requests from dumps in the schema of The Stack's (paper §3.3).

    <issue_start>Title: …⏎username_0: … <issue_comment>username_1: … <issue_closed>

A row of a dump is an issue: `repo` (with `org`, or "org/repo"), `issue_number`, and `events` of {action, author,
comment, description, title}. Rows that have a title, a description and a comment themselves are issues of one event.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.corpus.document import Document, Mark, Rejection
from starcoder.corpus.filters import STAGE
from starcoder.corpus.formatting import structured
from starcoder.corpus.licenses import Declaration
from starcoder.corpus.sources.base import Candidate, Unit
from starcoder.corpus.sources.conversations import Event, Issue, clean
from starcoder.errors import UserError
from starcoder.tokenizer import Sentinel

_ENDS = (".jsonl", ".jsonl.gz", ".parquet")
_LICENSE_FIELDS = ("license", "licenses")
_UNREADABLE = (OSError, EOFError, zlib.error, UnicodeDecodeError, pa.ArrowException)


@dataclass(frozen=True)
class Issues:
    """Dumps of issues; each file is a unit.

    Attributes:
        path: A file (.jsonl, .jsonl.gz or .parquet), a folder of such files at any depth, or a list of files.
        license: SPDX expression of all issues in whose row no `license` or `licenses` stands.
        name: Unique among the sources of a corpus.
    """

    path: Path | Sequence[Path]
    license: str = ""
    name: str = "issues"

    def units(self) -> list[Unit]:
        """The files, sorted by name.

        Raises:
            UserError: A file is missing or of another kind, or the folder holds none.
        """
        states = [(name, path.stat()) for name, path in sorted(self._files().items())]
        return [
            Unit(name, state.st_size, f"{state.st_size} {state.st_mtime_ns} {self.license}".rstrip())
            for name, state in states
        ]

    def candidates(self, unit: Unit) -> Iterator[Candidate]:
        """The issues of a file, cleaned, or with the reason to leave them out."""
        for number, row in enumerate(_read_rows(self._files()[unit.name]), start=1):
            if isinstance(row, Rejection):
                document = self._document(unit.name, f"row {number}").reject(row.reason, row.detail)
                yield Candidate(document, Declaration("", ""))
            else:
                yield Candidate(self._read(unit, number, row), self._declaration(unit, row))

    def _files(self) -> dict[str, Path]:
        """The dumps by name: the path in their folder, or the name of a file that is given itself."""
        if isinstance(self.path, Path) and self.path.is_dir():
            found = [path for path in self.path.rglob("*") if path.name.endswith(_ENDS) and path.is_file()]
            files = {path.relative_to(self.path).as_posix(): path for path in found}
        else:
            given = [self.path] if isinstance(self.path, Path) else list(self.path)
            wrong = [path for path in given if not (path.name.endswith(_ENDS) and path.is_file())]
            if wrong:
                raise UserError(f"no file of issues ({', '.join(_ENDS)}): {', '.join(map(str, wrong))}")
            folder = Path(os.path.commonpath([path.parent for path in given])) if given else Path()
            files = {path.relative_to(folder).as_posix(): path for path in given}
        if not files:
            raise UserError(f"{self.path} holds no files of issues ({', '.join(_ENDS)})")
        return files

    def _document(self, repository: str, path: str) -> Document:
        return Document(repository, path, "issues", "", (), 0, kind="issue", source=self.name)

    def _read(self, unit: Unit, number: int, row: dict[str, Any]) -> Document:
        document = self._document(_repository(row) or unit.name, f"issues/{_issue_number(row) or f'row-{number}'}")
        issue = read_issue(row)
        if not issue.events:
            return document.reject("issue without events")
        cleaned = clean(issue)
        if isinstance(cleaned, Rejection):
            return document.reject(cleaned.reason, cleaned.detail, STAGE)
        content, marks = conversation(cleaned)
        try:
            size = len(content.encode())
        except UnicodeEncodeError as error:  # JSON can spell half a surrogate pair
            return document.reject("not UTF-8", f"character {error.start}")
        return replace(document, content=content, marks=marks, size=size)

    def _declaration(self, unit: Unit, row: dict[str, Any]) -> Declaration:
        """The row's licence; of several, all apply, as everywhere."""
        for field in _LICENSE_FIELDS:
            value = row.get(field)
            names = [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str) and name]
            if names:
                expression = names[0] if len(names) == 1 else " AND ".join(f"({name})" for name in names)
                return Declaration(expression, f"{unit.name}: {field}")
        return Declaration(self.license, f"declared for {self.name}" if self.license else "")


def read_issue(row: dict[str, Any]) -> Issue:
    """Read a row of a dump; the text of an event is its comment, or the description that opened the issue."""
    rows = row.get("events")
    found = [event for event in rows if isinstance(event, dict)] if isinstance(rows, list) else []
    events = [_read_event(event, ("comment", "description", "text")) for event in found]
    own = _read_event(row, ("comment", "description"))
    if own.text and own.text not in {event.text for event in events}:
        events.insert(0, own)
    titles = (_string(source.get("title")).strip() for source in (row, *found))
    return Issue(next(filter(None, titles), ""), tuple(events))


def conversation(issue: Issue) -> tuple[str, tuple[Mark, ...]]:
    """Return content and marks of a cleaned issue.

    What opened the issue always shows, so that it is known who did; later events show if they have a text.
    """
    closing = _last_closing(issue.events)
    title = f"Title: {issue.title}\n" if issue.title else ""
    parts: list[Sentinel | str] = [Sentinel.ISSUE_START, title]
    for place, event in enumerate(issue.events):
        if place == 0:
            parts.append(f"{event.author}: {event.text}".rstrip())
        elif event.text:
            parts += [Sentinel.ISSUE_COMMENT, f"{event.author}: {event.text}"]
        if place == closing:
            parts.append(Sentinel.ISSUE_CLOSED)
    return structured(parts)


def _last_closing(events: Sequence[Event]) -> int | None:
    """The place of the event that closed the issue, None if it is open in the end."""
    turns = [place for place, event in enumerate(events) if event.action in ("closed", "reopened")]
    return turns[-1] if turns and events[turns[-1]].action == "closed" else None


def _read_event(event: dict[str, Any], fields: Sequence[str]) -> Event:
    texts = (_string(event.get(field)) for field in fields)
    return Event(_string(event.get("author")) or "ghost", next(filter(None, texts), ""), _string(event.get("action")))


def _repository(row: dict[str, Any]) -> str:
    owner, name = _string(row.get("org")), _string(row.get("repo")) or _string(row.get("repo_name"))
    return f"{owner}/{name}" if owner and name and "/" not in name else name


def _issue_number(row: dict[str, Any]) -> str:
    """The number that GitHub shows; pull requests may have theirs in a struct, and old dumps have an id only."""
    pull_request = row.get("pull_request")
    nested = pull_request.get("number") if isinstance(pull_request, dict) else None
    for value in (row.get("issue_number"), nested, row.get("issue_id")):
        if isinstance(value, float) and value.is_integer():
            return str(int(value))
        if value is not None and value != "":
            return str(value)
    return ""


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _read_rows(path: Path) -> Iterator[dict[str, Any] | Rejection]:
    """Yield the rows of a file; where it breaks off, the last is the reason."""
    try:
        if path.suffix == ".parquet":
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(batch_size=256):
                    yield from batch.to_pylist()
        elif path.suffix == ".gz":
            with gzip.open(path, "rb") as lines:
                yield from _parse_lines(lines)
        else:
            with path.open("rb") as lines:
                yield from _parse_lines(lines)
    except _UNREADABLE as error:
        yield Rejection("unreadable file", str(error).partition("\n")[0])


def _parse_lines(lines: Iterable[bytes]) -> Iterator[dict[str, Any] | Rejection]:
    for line in lines:
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield Rejection("not JSON", str(error))
        else:
            yield row if isinstance(row, dict) else Rejection("not an issue", type(row).__name__)
