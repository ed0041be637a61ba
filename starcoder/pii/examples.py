"""Labelled texts, in the columns of the public PII data set (bigcode/bigcode-pii-dataset): text, fragments, language.

The categories of its annotators are more than the labels of detectors: a licence's e-mail is an e-mail all the same,
and what is nobody's (`…_EXAMPLE`), a number (`ID`) or cannot be told (`AMBIGUOUS`) counts neither for nor against a
detector.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.pii.entity import LABELS, Entity
from starcoder.rows import read_rows
from starcoder.storage import atomic_file

SCORED = tuple(label for label in LABELS if label != "AMBIGUOUS")
"""The labels that a detector is measured by."""

CATEGORIES = (
    *LABELS,
    "ID",
    *(f"{label}_{kind}" for label in ("NAME", "EMAIL", "USERNAME") for kind in ("LICENSE", "EXAMPLE")),
)


@dataclass(frozen=True, slots=True)
class Example:
    """A text and what is in it.

    Attributes:
        text: The text.
        fragments: What its annotators marked, sorted, labelled by one of `CATEGORIES`.
        language: Programming language, where known.
        kind: Where it comes from: the data set's own column `type`; a planted example has its templates there.
        id: What it is called in its data set, mostly a number.
    """

    text: str
    fragments: tuple[Entity, ...]
    language: str = ""
    kind: str = ""
    id: int | str = 0

    @property
    def entities(self) -> list[Entity]:
        """What a detector should find."""
        plain = (Entity(f.start, f.end, f.label.removesuffix("_LICENSE")) for f in self.fragments)
        return [entity for entity in plain if entity.label in SCORED]

    @property
    def ignored(self) -> list[Entity]:
        """What a detector may find or not."""
        return [f for f in self.fragments if f.label.removesuffix("_LICENSE") not in SCORED]


def read_examples(file: Path) -> list[Example]:
    """The examples of a parquet, JSON or JSON lines file.

    Raises:
        UserError: The file cannot be read, or a row has no text, an unknown category or a place outside the text.
    """
    return [_example(f"{file}: row {number}", row) for number, row in enumerate(read_rows(file), start=1)]


def write_examples(file: Path, examples: Iterable[Example]) -> None:
    """Write examples as parquet or, when the name ends so, as JSON lines."""
    rows = [_row(example) for example in examples]
    with atomic_file(file) as partial:
        if file.suffix == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            pq.write_table(pa.Table.from_pylist(rows), partial)
        else:
            partial.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _example(place: str, row: Mapping[str, Any]) -> Example:
    text = row.get("text", row.get("content"))
    if not isinstance(text, str):
        raise UserError(f"{place} has no text: the columns are text and fragments (category, position)")
    try:
        fragments = [_fragment(fragment) for fragment in row["fragments"] or ()]
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{place}: fragments are a list of category and position [start, end]") from None
    for fragment in fragments:
        if fragment.label not in CATEGORIES:
            raise UserError(f"{place}: no category {fragment.label!r}; categories are {', '.join(CATEGORIES)}")
        if not 0 <= fragment.start < fragment.end <= len(text):
            raise UserError(f"{place}: [{fragment.start}, {fragment.end}] is outside its {len(text)} characters")
    language, kind, name = row.get("language") or "", row.get("type") or "", row.get("id") or 0
    return Example(
        text, tuple(sorted(fragments)), str(language), str(kind), name if isinstance(name, int) else str(name)
    )


def _fragment(fragment: Mapping[str, Any]) -> Entity:
    start, end = fragment["position"]
    return Entity(int(start), int(end), fragment["category"], float(fragment.get("score", 1.0)))


def _row(example: Example) -> dict[str, Any]:
    return {
        "id": example.id,
        "text": example.text,
        "type": example.kind,
        "language": example.language,
        "fragments": [
            {"category": f.label, "position": [f.start, f.end], "value": example.text[f.start : f.end]}
            for f in example.fragments
        ],
    }
