"""The page of `starcoder corpus inspect`: one HTML file that needs nothing else, the same bytes for the same corpus.

Names and texts of a corpus come from strangers. They are escaped; no script but the page's own can run, because the
page allows that one by its hash; and what does not print is written as its escape.
"""

import difflib
import heapq
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from starcoder.corpus.inspect import redactions
from starcoder.corpus.redaction import describe
from starcoder.corpus.sampling import random_key
from starcoder.corpus.survey import Row, Survey, balance, collect
from starcoder.pages import page_environment
from starcoder.storage import atomic_file
from starcoder.text import visible

REPOSITORIES = 5000
PAGE_CHARACTERS = 2_000_000
_EXCERPT = 20_000
_SAMPLE_CHARACTERS, _SAMPLE_LINES = 3000, 40
_DIFFS, _DIFFS_OF_ONE, _DIFF_LINES, _DIFF_INPUT_LINES = 10, 2, 60, 400
_LINE = 300


def write_page(path: Path, survey: Survey, samples: int, seed: int) -> None:
    """Write the page of a corpus.

    Args:
        path: The HTML file.
        survey: The counts of the corpus.
        samples: How many random files to show of each language and of each reason; their texts are cut so that all of
            them together have about `PAGE_CHARACTERS` at most.
        seed: Seed of their choice.
    """
    with atomic_file(path) as unfinished:
        unfinished.write_text(render(survey, samples, seed), encoding="utf-8")


def render(survey: Survey, samples: int, seed: int) -> str:
    """Return the page as HTML; the parameters are those of `write_page`."""
    kept, left = survey.kept, survey.left
    groups = {
        "kept": _samples(kept, pl.col("language"), samples, seed),
        "left": _samples(
            left.filter(pl.col("content") != ""), pl.col("stage") + ": " + pl.col("reason"), samples, seed
        ),
    }
    count = sum(len(rows) for group in groups.values() for rows in group.values())
    environment = page_environment("starcoder.corpus")
    environment.filters |= {
        "mb": lambda size: f"{size / 1e6:,.2f}",
        "json": json.dumps,
        "excerpt": partial(_excerpt, characters=min(_SAMPLE_CHARACTERS, PAGE_CHARACTERS // max(1, count))),
    }
    return environment.get_template("corpus.html").render(
        survey=survey,
        redaction=describe(survey.summary),
        redactions=redactions(survey.summary),
        repositories=_repositories(kept, left),
        repository_count=collect(pl.concat([kept, left]).select(count=pl.col("repository").n_unique()))[0]["count"],
        comparisons=_comparisons(kept, left),
        samples=groups,
    )


def pick(documents: pl.LazyFrame, group: pl.Expr, count: int, seed: int) -> dict[str, list[str]]:
    """The names of up to `count` documents of each group, first in the random order of `seed`; groups sorted."""
    heaps: dict[str, list[tuple[int, str]]] = {}
    for batch in documents.select(group, "name").collect_batches() if count else ():
        for key, name in batch.iter_rows():
            heap = heaps.setdefault(key, [])
            push = heapq.heappush if len(heap) < count else heapq.heappushpop
            push(heap, (-int.from_bytes(random_key(seed, name)), name))
    return {key: [name for _, name in sorted(heaps[key], reverse=True)] for key in sorted(heaps)}


def _samples(documents: pl.LazyFrame, group: pl.Expr, count: int, seed: int) -> dict[str, list[Row]]:
    chosen = pick(documents, group, count, seed)
    rows = _read(documents.with_columns(group=group), {name for names in chosen.values() for name in names})
    found = {(row["group"], row["name"]): row for row in rows}
    return {key: [found[key, name] for name in names] for key, names in chosen.items()}


def _read(documents: pl.LazyFrame, names: set[str]) -> list[Row]:
    """The documents of these names, with the beginning of their content, control tokens written out.

    The shards have statistics of the repository in each group of rows, so a filter on it skips most of the texts.
    """
    named = documents.filter(pl.col("name").is_in(sorted(names))).drop("rejection")
    repositories = [row["repository"] for row in collect(named.select("repository").unique())]
    named = named.filter(pl.col("repository").is_in(repositories))
    rows = collect(named.with_columns(pl.col("content").str.head(_EXCERPT)).sort("name", "kind", descending=True))
    for row in rows:
        for mark in reversed(row["marks"]):
            if mark["at"] <= len(row["content"]):
                row["content"] = row["content"][: mark["at"]] + mark["sentinel"] + row["content"][mark["at"] :]
    return rows


def _excerpt(text: str, characters: int) -> str:
    lines = text[:characters].splitlines()[:_SAMPLE_LINES]
    return "\n".join(visible(line[:_LINE], keep="\t") for line in lines)


def _repositories(kept: pl.LazyFrame, left: pl.LazyFrame) -> list[Sequence[Any]]:
    """The repositories with the most bytes: name, files and bytes kept, files and bytes left out, reasons."""
    rows = collect(balance(pl.concat([kept, left]), "repository").head(REPOSITORIES))
    left = left.filter(pl.col("repository").is_in([row["repository"] for row in rows]))
    counts = left.group_by("repository", "reason").agg(files=pl.len()).sort("files", "reason", descending=[True, False])
    reasons: dict[str, list[str]] = {}
    for row in collect(counts):
        reasons.setdefault(row["repository"], []).append(f"{row['reason']} {row['files']:,}")
    return [
        (
            visible(row["repository"]),
            *(row[key] for key in ("files", "bytes", "left_files", "left_bytes")),
            visible(", ".join(reasons.get(row["repository"], []))),
        )
        for row in rows
    ]


def _comparisons(kept: pl.LazyFrame, left: pl.LazyFrame) -> list[Row]:
    """The biggest clusters of which an excerpt of a left-out near-duplicate is there, each with differences."""
    excerpts = left.filter((pl.col("reason") == "near-duplicate") & (pl.col("content") != ""))
    originals = [row["original"] for row in collect(excerpts.select("original").unique())]
    heads = kept.filter(pl.col("name").is_in(originals)).sort("copies", "name", descending=[True, False])
    names = [row["name"] for row in collect(heads.select("name").head(_DIFFS))]
    members = collect(
        excerpts.filter(pl.col("original").is_in(names)).select("name", "kind", "original", "detail", "content")
    )
    files = {(row["kind"], row["name"]): row for row in _read(kept, set(names))}
    comparisons = []
    for file in sorted(files.values(), key=lambda row: (-row["copies"], row["name"])):
        same = sorted(
            (m for m in members if (m["kind"], m["original"]) == (file["kind"], file["name"])), key=lambda m: m["name"]
        )
        twins = [{**member, "diff": _diff(file["content"], member["content"])} for member in same[:_DIFFS_OF_ONE]]
        comparisons.append({**file, "twins": twins})
    return [comparison for comparison in comparisons if comparison["twins"]]


def _diff(kept: str, left: str) -> list[tuple[str, str]]:
    """The lines of a unified diff, each with the kind of line that it is; the beginnings of the texts are compared."""
    first, second = (text[:_EXCERPT].splitlines()[:_DIFF_INPUT_LINES] for text in (kept, left))
    lines = list(difflib.unified_diff(first, second, n=2, lineterm=""))[2 : _DIFF_LINES + 2]
    kinds = {"+": "added", "-": "removed", "@": "hunk"}
    return [(kinds.get(line[0], ""), visible(line[:_LINE], keep="\t")) for line in lines]
