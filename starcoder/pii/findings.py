"""A finding: an entity in a file, with what a report may say of it; the secret itself is masked."""

import hashlib
import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter

from starcoder.pii.entity import Entity
from starcoder.text import visible

_AROUND = 60  # characters of a line on either side of a finding
_SHOWN_OF_A_KEY = 4  # its first characters tell whose it is
_LONG_KEY = 20


@dataclass(frozen=True, slots=True)
class Finding:
    """An entity in a file.

    Attributes:
        path: The file.
        line: Counted from 1.
        column: Of the first character in its line, counted in characters from 1.
        label: One of `LABELS`.
        score: How sure the detector is, 0 to 1.
        detector: Its name.
        value: What was found, masked unless it was asked for.
        before: The line up to it, other entities masked as well; at most a window of it.
        after: The line behind it.
        fingerprint: Hash of path, label and unmasked value: the same wherever in the file it stands.
    """

    path: str
    line: int
    column: int
    label: str
    score: float
    detector: str
    value: str
    before: str
    after: str
    fingerprint: str


def findings_of(
    path: str, text: str, entities: Sequence[Entity], reported: Sequence[Entity], show: bool
) -> list[Finding]:
    """The findings of a file.

    Args:
        path: Its name in reports.
        text: Its text.
        entities: All that was found in it, sorted and apart: what lies beside a finding is masked too.
        reported: Those that become findings.
        show: Leave values as they are.
    """
    starts = line_starts(text) if reported else []
    hidden = [] if show else entities
    return [_finding(path, text, entity, hidden, starts, show) for entity in reported]


def line_starts(text: str) -> list[int]:
    """Where each line of a text starts."""
    return [0, *(end.end() for end in re.finditer("\n", text))]


def _finding(
    path: str, text: str, entity: Entity, hidden: Sequence[Entity], starts: Sequence[int], show: bool
) -> Finding:
    line = bisect_right(starts, entity.start)
    begin = starts[line - 1]
    stop = text.find("\n", entity.end, entity.end + _AROUND)
    value = text[entity.start : entity.end]
    return Finding(
        path=path,
        line=line,
        column=entity.start - begin + 1,
        label=entity.label,
        score=round(entity.score, 3),
        detector=entity.detector,
        value=visible(value if show else mask(entity.label, value)),
        before=masked(text, max(begin, entity.start - _AROUND), entity.start, hidden),
        after=masked(text, entity.end, entity.end + _AROUND if stop < 0 else stop, hidden),
        fingerprint=fingerprint(path, entity.label, value),
    )


def mask(label: str, value: str) -> str:
    """What stands for a value: nothing of it but the head of a long key, which names its kind."""
    head = value[:_SHOWN_OF_A_KEY] if label == "KEY" and len(value) >= _LONG_KEY else ""
    return f"{head}***"


def fingerprint(path: str, label: str, value: str) -> str:
    """Names a finding in a baseline; short values can be guessed from it, so a baseline is no place to publish."""
    content = f"{path}\0{label}\0{value}".encode(errors="surrogatepass")
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def masked(text: str, start: int, end: int, hidden: Sequence[Entity]) -> str:
    """`text[start:end]` as it prints, with those of `hidden`, which are sorted and apart, masked that reach into it."""
    first = bisect_right(hidden, start, key=attrgetter("end"))
    last = bisect_left(hidden, end, key=attrgetter("start"))
    parts = []
    for entity in hidden[first:last]:
        parts += [text[start : max(start, entity.start)], mask(entity.label, text[entity.start : entity.end])]
        start = min(end, entity.end)
    return visible("".join([*parts, text[start:end]]))
