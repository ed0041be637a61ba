"""PII redaction in the corpus (paper §4): how a document is redacted, and what a corpus records and says about it."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from typing import Any, Protocol

from starcoder.corpus.document import Document, Mark
from starcoder.pii import redaction
from starcoder.pii.redaction import Redacted

NONE, REGEX = "none", "regex"
"""What `--pii` can be besides a model: no redaction, and the rules alone."""


class Redactor(Protocol):
    """Replaces personal data and secrets in texts. Picklable; the same text always gives the same redaction."""

    @property
    def name(self) -> str:
        """What the corpus records about how it was redacted; "none" says that it was not."""

    def redact_all(self, texts: Sequence[str], languages: Sequence[str]) -> Sequence[Redacted]:
        """Return each text, which is in the language beside it, with its entities replaced."""


class NoRedaction:
    """The identity."""

    name = NONE

    def redact_all(self, texts: Sequence[str], languages: Sequence[str]) -> Sequence[Redacted]:
        """Return the texts as they are."""
        return [Redacted(text) for text in texts]


def open_redactor(pii: str) -> tuple[Redactor, str]:
    """The redactor that `--pii` names, and what tells it from other versions of the same name.

    Args:
        pii: "none"; "regex" for the rules alone; or a model that finds entities besides them, as its folder or its
            repository on the Hub.

    Raises:
        UserError: There is no such model.
    """
    if pii == NONE:
        return NoRedaction(), ""
    from starcoder.pii.detectors import open_detector

    rules = f"detect-secrets {version('detect-secrets')}"
    if pii == REGEX:
        return redaction.Redactor(open_detector), rules
    from starcoder.release.folder import local_folder
    from starcoder.storage import sha256

    folder = local_folder(pii)
    weights = sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")])
    return redaction.Redactor(partial(open_detector, str(folder))), ", ".join(
        [rules, *(f"{path.name} {sha256(path)[:16]}" for path in weights)]
    )


def redact_documents(documents: Sequence[Document], redactor: Redactor) -> list[tuple[Document, Redacted]]:
    """Redact the texts between the control tokens of documents, and move their marks to where the texts now begin.

    All texts are handed over together. Beside each document is its content with the counts of all its texts.
    """
    texts = [_texts(document) for document in documents]
    languages = [document.language for document, parts in zip(documents, texts, strict=True) for _ in parts]
    redacted = iter(redactor.redact_all([text for parts in texts for text in parts], languages))
    return [
        _joined(document, [next(redacted) for _ in parts]) for document, parts in zip(documents, texts, strict=True)
    ]


def _texts(document: Document) -> list[str]:
    borders = [0, *(mark.at for mark in document.marks), len(document.content)]
    return [document.content[start:end] for start, end in pairwise(borders)]


def _joined(document: Document, parts: Sequence[Redacted]) -> tuple[Document, Redacted]:
    counts, left = total(part.counts for part in parts), total(part.left for part in parts)
    marks = []
    length = 0
    for part, mark in zip(parts, [*document.marks, None], strict=True):
        length += len(part.text)
        if mark:
            marks.append(Mark(length, mark.sentinel))
    content = "".join(part.text for part in parts)
    return replace(document, content=content, marks=tuple(marks)), Redacted(content, counts, left)


def total(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """The sums of counts of labels."""
    return sum(map(Counter, counts), Counter())


def describe(summary: Mapping[str, Any]) -> str:
    """Whether the personal data of a corpus was redacted, by what, and how much of it, from its `corpus.json`."""
    if summary["redactor"] == NONE:
        return "PII: not redacted"
    return redaction.describe(summary["redactor"], summary.get("redacted", {}), summary.get("unredacted", {}))
