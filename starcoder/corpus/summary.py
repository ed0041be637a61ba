"""What a corpus holds, counted: `corpus.json` beside the shards, and its tables."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starcoder.corpus.document import Document
from starcoder.errors import UserError

FILE = "corpus.json"
FORMAT = 1
Count = dict[str, int]


def count(documents: Iterable[Document], key: Callable[[Document], str]) -> dict[str, Count]:
    """Return documents and bytes for each value of `key`, the one with the most bytes first."""
    counts: dict[str, Count] = {}
    for document in documents:
        entry = counts.setdefault(key(document), {"documents": 0, "bytes": 0})
        entry["documents"] += 1
        entry["bytes"] += document.size
    return dict(sorted(counts.items(), key=lambda item: (-item[1]["bytes"], item[0])))


def write_summary(folder: Path, facts: Mapping[str, Any], splits: Mapping[str, Sequence[Document]]) -> None:
    """Write `corpus.json` into `folder`: `facts`, and the counts of each split by language, licence and repository."""
    content = {"format": FORMAT, **facts} | {split: _summarize(documents) for split, documents in splits.items()}
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n")


def _summarize(documents: Sequence[Document]) -> dict[str, Any]:
    by_reason = count(documents, lambda document: document.rejection.reason if document.rejection else "")
    return {
        "documents": len(documents),
        "bytes": sum(document.size for document in documents),
        "languages": count(documents, lambda document: document.language),
        "licenses": count(documents, lambda document: " AND ".join(document.licenses)),
        "repositories": count(documents, lambda document: document.repository),
    } | ({} if set(by_reason) <= {""} else {"reasons": by_reason})


def read_summary(folder: Path) -> dict[str, Any]:
    """Return the content of `corpus.json` in `folder`.

    Raises:
        UserError: It is missing, unreadable, or of another version of the corpus.
    """
    try:
        summary = json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        raise UserError(f"no corpus in {folder}: make one with `starcoder corpus build --output {folder}`") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / FILE} cannot be read ({error}): build the corpus again") from None
    if not isinstance(summary, dict) or summary.get("format") != FORMAT:
        raise UserError(f"{folder} holds a corpus of another version: build it again")
    return summary


def counts_table(title: str, counts: Mapping[str, Count], rows: int = 20) -> str:
    """Return the first `rows` of `counts` as text, the rest in one line."""
    shown = list(counts.items())[:rows]
    rest = list(counts.values())[rows:]
    if rest:
        total = {unit: sum(entry[unit] for entry in rest) for unit in ("documents", "bytes")}
        shown.append((f"({len(rest)} more)", total))
    width = max(len(title), *(len(name) for name, _ in shown)) if shown else len(title)
    lines = [f"{title:<{width}}  documents        MB"]
    return "\n".join(lines + [f"{name:<{width}}  {n['documents']:>9,}  {n['bytes'] / 1e6:>8.2f}" for name, n in shown])
