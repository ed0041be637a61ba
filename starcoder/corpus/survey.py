"""A finished corpus counted from its shards: what each stage left out, languages, licences, repositories, clusters.

The shards are scanned by polars in batches, and no column but those that a question needs is read: texts, which are
nearly all of a corpus, stay on disk until a few of them are asked for by name.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from starcoder.corpus.document import SCHEMA, shards
from starcoder.corpus.summary import read_summary
from starcoder.errors import UserError, one_line

SPLITS = ("train", "validation", "rejected")
KEPT = pl.col("split") != "rejected"
Row = dict[str, Any]

_REASON, _DETAIL = pl.col("rejection").struct.field("reason"), pl.col("rejection").struct.field("detail")


@dataclass(frozen=True, slots=True)
class Survey:
    """The counts of a corpus; the rows of each list with the most bytes first, where nothing else is said.

    Attributes:
        kept: The scanned documents of "train" and "validation", see `scan`.
        left: The scanned documents that were left out.
        summary: The content of `corpus.json`.
        splits: Files and bytes of "train", "validation" and "rejected".
        stages: In the pipeline's order: stage, files and bytes that enter it, left_files and left_bytes that it leaves
            out. A stage that the summary does not list has None for what enters it.
        reasons: stage, reason, files, bytes; in the order of the stages.
        languages: language, kept files and bytes, left_files, left_bytes.
        licenses: license (all that apply, joined with AND), files and bytes that are kept.
        unresolved: reason, detail, files, bytes of what was left out because of its licence.
        clusters: name, language, split, copies of the files that stand for the most duplicates, those first.
    """

    kept: pl.LazyFrame
    left: pl.LazyFrame
    summary: Row
    splits: dict[str, Row]
    stages: list[Row]
    reasons: list[Row]
    languages: list[Row]
    licenses: list[Row]
    unresolved: list[Row]
    clusters: list[Row]


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Tell in one line that parquet files in `folder` cannot be read.

    Raises:
        UserError: polars could not.
    """
    try:
        yield
    except pl.exceptions.PolarsError as error:
        raise UserError(f"{folder} is corrupt ({one_line(error)[:200]}): build it again") from error


def scan(folder: Path, splits: Sequence[str] = SPLITS) -> pl.LazyFrame:
    """Return the documents of `splits` of the corpus in `folder`, not read yet.

    Besides the columns of the shards there are `split`, `name` (repository and path), the rejection's `stage`, `reason`
    and `detail`, and `original`, the name of the document of which this one is a duplicate.

    Raises:
        UserError: The folder or one of its shards is missing, or of another version.
    """
    frames = [_scan_split(folder, split) for split in splits]
    near = pl.when(_REASON == "near-duplicate").then(_DETAIL.str.replace(r"(?s), Jaccard [0-9.]+$", ""))
    return pl.concat(frames).with_columns(
        name=pl.concat_str("repository", pl.lit("/"), "path"),
        stage=pl.col("rejection").struct.field("stage"),
        reason=_REASON,
        detail=_DETAIL,
        original=near.when(_REASON == "exact duplicate").then(_DETAIL),
    )


def _scan_split(folder: Path, split: str) -> pl.LazyFrame:
    frame = pl.scan_parquet(shards(folder, split), glob=False, hive_partitioning=False)
    with readable(folder):
        if frame.collect_schema().names() != SCHEMA.names:
            raise UserError(f"{folder} does not hold documents of this version: build the corpus again")
    return frame.with_columns(split=pl.lit(split))


def collect(frame: pl.LazyFrame) -> list[Row]:
    """The rows of `frame`, computed batch by batch."""
    return frame.collect(engine="streaming").to_dicts()


def survey(folder: Path) -> Survey:
    """Count what the corpus in `folder` holds.

    Raises:
        UserError: The corpus is missing, corrupt or of another version.
    """
    summary, kept, left = read_summary(folder), scan(folder, SPLITS[:2]), scan(folder, SPLITS[2:])
    with readable(folder):
        return _survey(kept, left, summary)


def balance(documents: pl.LazyFrame, key: str) -> pl.LazyFrame:
    """For each value of `key`: kept files and bytes, left_files and left_bytes; most bytes, kept or not, first."""
    size = pl.col("size")
    counts = documents.group_by(key).agg(
        files=KEPT.sum(), bytes=size.filter(KEPT).sum(), left_files=(~KEPT).sum(), left_bytes=size.filter(~KEPT).sum()
    )
    return counts.sort(pl.col("bytes") + pl.col("left_bytes"), key, descending=[True, False])


def _survey(kept: pl.LazyFrame, left: pl.LazyFrame, summary: Row) -> Survey:
    documents = pl.concat([kept, left])
    splits = {row["split"]: row for row in collect(_count(documents, "split"))}
    reasons = collect(_count(left, "stage", "reason"))
    order = [stage["stage"] for stage in summary["stages"]]
    reasons.sort(key=lambda row: order.index(row["stage"]) if row["stage"] in order else len(order))
    license = (
        pl.when(pl.col("licenses").list.len() > 0).then(pl.col("licenses").list.join(" AND ")).otherwise(pl.lit(""))
    )
    duplicates = kept.filter(pl.col("copies") > 1).sort("copies", "name", descending=[True, False])
    return Survey(
        kept,
        left,
        summary,
        {split: splits.get(split, {"split": split, "files": 0, "bytes": 0}) for split in SPLITS},
        _funnel(summary["stages"], reasons),
        reasons,
        collect(balance(documents, "language")),
        collect(_count(kept.with_columns(license=license), "license")),
        collect(_count(left.filter(pl.col("reason").str.starts_with("licence")), "reason", "detail").head(1000)),
        collect(duplicates.select("name", "language", "split", "copies").head(20)),
    )


def _count(documents: pl.LazyFrame, *keys: str) -> pl.LazyFrame:
    counts = documents.group_by(keys).agg(files=pl.len(), bytes=pl.col("size").sum())
    return counts.sort("bytes", *keys, descending=[True] + [False] * len(keys))


def _funnel(stages: list[Row], reasons: list[Row]) -> list[Row]:
    """What enters each stage, as the build counted it, beside what the rejected documents say was left out there.

    A later opt-out leaves files out at a stage of its own, which is none of the build's.
    """
    funnel = {stage["stage"]: {**stage, "left_files": 0, "left_bytes": 0} for stage in stages}
    for row in reasons:
        late = {"stage": row["stage"], "files": None, "bytes": None, "left_files": 0, "left_bytes": 0}
        entry = funnel.setdefault(row["stage"], late)
        entry["left_files"] += row["files"]
        entry["left_bytes"] += row["bytes"]
    return list(funnel.values())
