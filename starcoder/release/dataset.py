"""The data section of a model card: what the corpus holds, under which licences, and what was done for its authors."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.evaluation.tables import escaped, markdown
from starcoder.training.stream import Shards

_MOST = 40  # rows of a table
_NOBODY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"  # SHA-256 of an empty list


def read_corpus(folder: Path, shards: Shards | None) -> dict[str, Any]:
    """The summary of the corpus in `folder`.

    Raises:
        UserError: when it is missing or damaged, or the token shards were made of another one.
    """
    from starcoder.corpus.summary import read_summary

    summary = read_summary(folder)
    if shards:
        names = {str(source.get("corpus")) for source in shards.metadata.sources}
        if folder.resolve().name not in names:
            raise UserError(f"{folder} is not the corpus of the token shards {shards.location}: {', '.join(names)}")
    try:
        corpus_facts(summary)
        languages_table(summary, None)
    except (LookupError, TypeError, AttributeError, ValueError):
        raise UserError(f"the summary of the corpus in {folder} is damaged: build it again") from None
    return summary


def corpus_facts(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the card says of a corpus, in Markdown: summary, sources, licences and state."""
    train, validation = summary["train"], summary["validation"]
    sources = [
        [
            source["name"],
            source["kind"],
            source["license"] or "each repository's own",
            _megabytes(source["bytes"]),
            f"{source['units']:,}",
        ]
        for source in summary["sources"]
    ]
    licences = [[name or "none", *_volume(count)] for name, count in train["licenses"].items()]
    return {
        "summary": f"The corpus has {train['documents']:,} documents of {train['n_repositories']:,} repositories, "
        f"{_megabytes(train['bytes'])} MB, to train on; {validation['documents']:,} more are held out.",
        "sources": markdown([["source", "kind", "licence", "MB read", "parts"], *sources]),
        "licences": markdown([["licence", "documents", "MB"], *_cut(licences, len(train["licenses"]))]),
        "state": "\n".join(f"- {line}" for line in _state(summary)),
    }


def languages_table(summary: Mapping[str, Any] | None, shards: Shards | None) -> str:
    """Documents and tokens of each language as they were trained on, or documents and MB as they are in the corpus."""
    if shards:
        rows = sorted(shards.metadata.languages.items(), key=lambda item: (-item[1]["tokens"], item[0]))
        total = max(1, sum(count["tokens"] for _, count in rows))
        lines = [
            [name, f"{count['documents']:,}", f"{count['tokens']:,}", f"{count['tokens'] / total:.1%}"]
            for name, count in rows
        ]
        return markdown([["language", "documents", "tokens", "share"], *_cut(lines, len(rows))])
    if summary is None:
        return ""
    languages = summary["train"]["languages"]
    lines = [[name, *_volume(count)] for name, count in languages.items()]
    return markdown([["language", "documents", "MB"], *_cut(lines, len(languages))])


def _state(summary: Mapping[str, Any]) -> list[str]:
    """What was done for authors and against copies: opt-out, redaction, malware, benchmarks."""
    options, redacted = summary["options"], summary["redacted"]
    lists = [options.get(key, _NOBODY) for key in ("opt_out", "opted_out_later")]
    opted_out = summary["rejected"]["reasons"].get("opted out", {"documents": 0})["documents"]
    asked = f"Opt-out: a list of owners and repositories was applied; {opted_out:,} documents were left out."
    counts = ", ".join(f"{count:,} {escaped(label)}" for label, count in redacted.items())
    redactor = escaped(str(summary["redactor"]))
    found = ", ".join(escaped(name) for name in summary["benchmarks"]) or "none"
    missing = ", ".join(escaped(name) for name in summary["benchmarks_missing"])
    return [
        asked if any(entry != _NOBODY for entry in lists) else "Opt-out: no list was applied.",
        "Personal data: not redacted."
        if summary["redactor"] == "none"
        else f"Personal data: redacted by {redactor} ({counts or 'nothing was found'}).",
        f"Malware: {'scanned' if options.get('malware_scan') else 'not scanned'}.",
        f"Benchmarks whose problems were looked for and left out: {found}{f'; not: {missing}' if missing else ''}.",
    ]


def _cut(rows: list[list[str]], total: int) -> list[list[str]]:
    if total <= _MOST:
        return rows
    return [*rows[:_MOST], [f"and {total - _MOST:,} more", *[""] * (len(rows[0]) - 1)]]


def _volume(count: Mapping[str, int]) -> list[str]:
    return [f"{count['documents']:,}", _megabytes(count["bytes"])]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size >= 50_000 else "under 0.1"
