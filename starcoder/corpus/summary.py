"""What a corpus holds, counted: `corpus.json` beside the shards, and its tables."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from starcoder.errors import UserError
from starcoder.storage import atomic_file

FILE = "corpus.json"
FORMAT = 2
SPLITS = ("train", "validation", "rejected")
STAGES = (
    "opt-out",
    "licence",
    "language",
    "budget",
    "readable",
    "malware",
    "exact duplicates",
    "near-duplicates",
    "filters",
    "benchmarks",
)
"""What a document must pass, in this order; a rejection names the one that it did not."""
ALARM_SHARE = 0.5
_ALARM_BYTES = 1_000_000
_ALARM = "are near-duplicates of what is kept"
_MOST = 1000  # repositories that the summary lists
Count = dict[str, int]

_LICENSES = pl.col("licenses").list.join(" AND ")
_REASON = pl.col("rejection").struct.field("reason")
_STAGE = pl.col("rejection").struct.field("stage")


def seal(folder: Path, facts: Mapping[str, Any], redacted: Mapping[str, int]) -> None:
    """Write `corpus.json`: `facts`, what each stage left out, and what is in the splits."""
    rejected = _scan(folder, "rejected")
    content = {"format": FORMAT, **facts, "redacted": dict(sorted(redacted.items()))}
    content["messages"] = [*facts.get("messages", ()), *_alarms(folder)]
    content |= {split: _summarize(_scan(folder, split)) for split in SPLITS}
    content["rejected"]["reasons"] = count(rejected, _REASON)
    content["stages"] = _funnel(count(rejected, _STAGE), content)
    with atomic_file(folder / FILE) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n")


def recount(folder: Path, options: Mapping[str, Any]) -> None:
    """Write `corpus.json` again, with more `options`, after documents were taken out of a finished corpus."""
    summary = read_summary(folder)
    summary["options"] = summary["options"] | options
    counted = {*SPLITS, "stages", "redacted", "format"}
    summary["messages"] = [message for message in summary["messages"] if not message.endswith(_ALARM)]
    seal(folder, {key: value for key, value in summary.items() if key not in counted}, summary["redacted"])


def repositories(folder: Path) -> list[str]:
    """The names of all repositories of which the corpus in `folder` has seen a file."""
    return sorted(
        pl.concat([_scan(folder, split).select("repository").unique() for split in SPLITS])
        .unique()
        .collect()["repository"]
    )


def count(frame: pl.LazyFrame, key: pl.Expr) -> dict[str, Count]:
    """Return documents and bytes for each value of `key`, the one with the most bytes first."""
    groups = frame.group_by(key.alias("key")).agg(pl.len().alias("documents"), pl.col("size").sum().alias("bytes"))
    rows = groups.sort(["bytes", "key"], descending=[True, False]).collect().iter_rows()
    return {name: {"documents": documents, "bytes": size} for name, documents, size in rows}


def _scan(folder: Path, split: str) -> pl.LazyFrame:
    return pl.scan_parquet(folder / f"{split}-*.parquet")


def _summarize(frame: pl.LazyFrame) -> dict[str, Any]:
    repositories = count(frame, pl.col("repository"))
    return {
        "documents": sum(entry["documents"] for entry in repositories.values()),
        "bytes": sum(entry["bytes"] for entry in repositories.values()),
        "n_repositories": len(repositories),
        "kinds": count(frame, pl.col("kind")),
        "languages": count(frame, pl.col("language")),
        "licenses": count(frame, _LICENSES),
        "sources": count(frame, pl.col("source")),
        "repositories": dict(list(repositories.items())[:_MOST]),
    }


def _funnel(left_out: Mapping[str, Count], content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What enters each stage, and last what is kept."""
    files, size = (sum(content[split][unit] for split in SPLITS) for unit in ("documents", "bytes"))
    rows = []
    for stage in STAGES:
        rows.append({"stage": stage, "files": files, "bytes": size})
        lost = left_out.get(stage, {"documents": 0, "bytes": 0})
        files, size = files - lost["documents"], size - lost["bytes"]
    return [*rows, {"stage": "kept", "files": files, "bytes": size}]


def _alarms(folder: Path) -> list[str]:
    """One line for each source and repository that lost most of what came so far to near-duplicates of others."""
    reached = [_scan(folder, "train"), _scan(folder, "validation")]
    after = STAGES[STAGES.index("near-duplicates") :]
    reached.append(_scan(folder, "rejected").filter(_STAGE.is_in(after)))
    columns = ("source", "repository", "size", (_STAGE == "near-duplicates").fill_null(value=False).alias("lost"))
    frame = pl.concat([part.select(*columns) for part in reached])
    lines = []
    for key in ("source", "repository"):
        sums = frame.group_by(key).agg(pl.col("size").sum(), pl.col("size").filter(pl.col("lost")).sum().alias("gone"))
        wide = sums.filter((pl.col("size") >= _ALARM_BYTES) & (pl.col("gone") > ALARM_SHARE * pl.col("size")))
        for name, size, gone in wide.sort(["gone", key], descending=[True, False]).collect().iter_rows():
            lines.append(f"{key} {name}: {gone / size:.0%} of {size / 1e6:.1f} MB {_ALARM}")
    return lines


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
