"""What a document looks like in training: texts and the control tokens between them (paper §5.1).

    code, notebook scripts   [<reponame>R <filename>P <gh_stars>S ⏎] content
    notebooks, issues,       content, with a control token at each of the document's marks
    commits

A control token is only what a mark or the metadata says it is: content that spells one stays text.
"""

import random
from collections.abc import Iterable

from starcoder.corpus.document import Document, Mark
from starcoder.errors import UserError
from starcoder.tokenizer import SENTINELS, Sentinel

METADATA_RATE = 0.2
"""Probability of each metadata field (paper §5.1)."""
_STAR_BUCKETS = ((0, "0"), (10, "1-10"), (100, "10-100"), (1000, "100-1000"))
_SENTINEL_OF = {spelling: Sentinel(id) for id, spelling in enumerate(SENTINELS)}


def structured(parts: Iterable[Sentinel | str]) -> tuple[str, tuple[Mark, ...]]:
    """Return the content and the marks of the document that is made of these texts and control tokens."""
    texts: list[str] = []
    marks: list[Mark] = []
    at = 0
    for part in parts:
        if isinstance(part, Sentinel):
            marks.append(Mark(at, SENTINELS[part]))
        else:
            texts.append(part)
            at += len(part)
    return "".join(texts), tuple(marks)


def segments(document: Document, seed: int) -> list[Sentinel | str]:
    """The document as control tokens and texts, which are encoded one by one.

    Args:
        document: A document that is kept.
        seed: Decides, with the document's name, which metadata fields are present, each with probability 0.2.

    Raises:
        UserError: A mark is no control token, or stands outside the content.
    """
    parts = _split(document)
    prefix = _metadata(document, seed) if document.kind in ("code", "notebook-script") else []
    # The content follows the last field and a line break in one text, as it did for the authors.
    if prefix and isinstance(parts[0], str):
        return [*prefix[:-1], f"{prefix[-1]}\n{parts[0]}", *parts[1:]]
    return prefix + parts


def star_bucket(stars: int | None) -> str:
    """The stars of a repository as <gh_stars> spells them; unknown counts as none."""
    return next((name for limit, name in _STAR_BUCKETS if (stars or 0) <= limit), "1000+")


def _metadata(document: Document, seed: int) -> list[Sentinel | str]:
    rng = random.Random(f"{seed} {document.name}")
    parts: list[Sentinel | str] = []
    for sentinel, value in (
        (Sentinel.REPONAME, document.repository),
        (Sentinel.FILENAME, document.path),
        (Sentinel.GH_STARS, star_bucket(document.stars)),
    ):
        if rng.random() < METADATA_RATE:
            parts += [sentinel, value]
    return parts


def _split(document: Document) -> list[Sentinel | str]:
    """Cut the content at the marks; without any, it is one text, even if it is empty."""
    parts: list[Sentinel | str] = []
    start = 0
    for mark in document.marks:
        if mark.sentinel not in _SENTINEL_OF or not start <= mark.at <= len(document.content):
            raise UserError(f"{document.name}: no control token {mark.sentinel!r} can stand at character {mark.at}")
        if mark.at > start:
            parts.append(document.content[start : mark.at])
        parts.append(_SENTINEL_OF[mark.sentinel])
        start = mark.at
    rest = document.content[start:]
    return [*parts, rest] if rest or not parts else parts
