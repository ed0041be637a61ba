"""The place of PII redaction in the corpus (paper §4): its interface, and the redactor that changes nothing."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Protocol

from starcoder.corpus.document import Document, Mark


@dataclass(frozen=True, slots=True)
class Redaction:
    """A text after redaction, and how many entities of each label were replaced in it."""

    text: str
    counts: Mapping[str, int] = field(default_factory=dict)


class Redactor(Protocol):
    """Replaces personal data and secrets in a text. Picklable; the same text always gives the same redaction."""

    @property
    def name(self) -> str:
        """What the corpus records about how it was redacted; "none" says that it was not."""

    def redact(self, text: str) -> Redaction:
        """Return the text with its entities replaced."""


class NoRedaction:
    """The identity."""

    name = "none"

    def redact(self, text: str) -> Redaction:
        """Return the text as it is."""
        return Redaction(text)


def redact_document(document: Document, redactor: Redactor) -> tuple[Document, Counter[str]]:
    """Redact the texts between the control tokens of a document, and move its marks to where the texts now begin."""
    borders = [0, *(mark.at for mark in document.marks), len(document.content)]
    parts = [redactor.redact(document.content[start:end]) for start, end in pairwise(borders)]
    counts: Counter[str] = Counter()
    marks = []
    length = 0
    for part, mark in zip(parts, [*document.marks, None], strict=True):
        counts.update(part.counts)
        length += len(part.text)
        if mark:
            marks.append(Mark(length, mark.sentinel))
    return replace(document, content="".join(part.text for part in parts), marks=tuple(marks)), counts
