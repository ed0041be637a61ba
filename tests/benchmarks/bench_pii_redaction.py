"""Redaction of all code that is installed here by the rules: its rate, what was replaced, and what it must not break.

The documents are written as one parquet file, of which `starcoder pii redact` makes a redacted copy; that is timed,
with reading and writing. Then each row that has changed is looked at again: Python code that parsed must parse, and the
detector must find nothing but what was counted as left.

Run by `make bench`, or `python -m tests.benchmarks.bench_pii_redaction [--workers N] [--megabytes N] [--model FOLDER]`.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from starcoder.corpus.document import Document
from starcoder.pii.contents import CHANGED, Tally
from starcoder.pii.detectors import open_detector
from starcoder.pii.redact_parquet import redact_parquet
from starcoder.pii.redaction import PYTHON, Redactor, parses, redact, redactable
from starcoder.processes import share_out
from tests.benchmarks.bench_corpus import installed_documents, read_again

Row = tuple[str, str, str]
"""Text, redacted text and language."""
_LIMIT = 10_000_000
_ROWS = 200


@dataclass
class Check:
    """What was seen in changed rows: numbers of rows, and labels of findings."""

    seen: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=None, help="a random part of the installed code")
    parser.add_argument("--model", default=None, help="a model that detects besides the rules")
    arguments = parser.parse_args()
    redactor = Redactor(partial(open_detector, arguments.model))
    with tempfile.TemporaryDirectory() as name:
        before, after = Path(name) / "before.parquet", Path(name) / "after.parquet"
        documents = (
            installed_documents(arguments.megabytes * 10**6) if arguments.megabytes else read_again(lambda _: True)
        )
        size, rows = write(before, documents)
        start = time.perf_counter()
        tally = redact_parquet(before, after, redactor, arguments.workers, _LIMIT, "content", "language")
        show(size, rows, tally, time.perf_counter() - start, arguments.workers)
        check = Check()
        for part in share_out(examine, changed(before, after), redactor, arguments.workers):
            check.seen.update(part.seen)
            check.findings.update(part.findings)
        show_check(check, tally)


def write(path: Path, documents: Iterator[Document] | list[Document]) -> tuple[int, int]:
    """Write texts and languages, and return the bytes and the number of the texts."""
    schema = pa.schema([("content", pa.string()), ("language", pa.string())])
    size = rows = 0
    group: list[dict[str, str]] = []
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for document in documents:
            group.append({"content": document.content, "language": document.language})
            size, rows = size + len(document.content.encode()), rows + 1
            if len(group) == 1000:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group.clear()
        writer.write_table(pa.Table.from_pylist(group, schema))
    return size, rows


def show(size: int, rows: int, tally: Tally, seconds: float, workers: int) -> None:
    print(
        f"{size / 1e6:.1f} MB in {rows:,} texts, {workers} workers: {seconds:.1f} s, {size / 1e6 / seconds:.2f} MB/s "
        "(aim: 300 MB in 360 s, 0.83 MB/s)"
    )
    print(f"  {'texts changed':<28}{tally.outcomes[CHANGED]:>10,}")
    for title, counts in (("replaced", tally.redacted), ("left as they are", tally.left)):
        for label, count in sorted(counts.items()):
            print(f"  {f'{title}: {label}':<28}{count:>10,}")


def changed(before: Path, after: Path) -> Iterator[list[Row]]:
    """The rows that differ, in groups."""
    rows: list[Row] = []
    with pq.ParquetFile(before) as old, pq.ParquetFile(after) as new:
        assert old.metadata.num_rows == new.metadata.num_rows
        for number in range(old.num_row_groups):
            first, second = old.read_row_group(number), new.read_row_group(number)
            assert first.column("language") == second.column("language")
            columns = (first.column("content"), second.column("content"), first.column("language"))
            rows += [row for row in zip(*(column.to_pylist() for column in columns), strict=True) if row[0] != row[1]]
            while len(rows) >= _ROWS:
                yield rows[:_ROWS]
                del rows[:_ROWS]
    yield rows


def examine(redactor: Redactor, rows: list[Row]) -> Check:
    """Look at rows that have changed."""
    check = Check()
    found = redactor.detector.detect_all([after for _, after, _ in rows])
    first = redactor.detector.detect_all([before for before, _, _ in rows])
    for (before, after, language), entities, original in zip(rows, found, first, strict=True):
        check.seen["one pass was not enough"] += redact(before, original, language).text != after
        check.findings.update(entity.label for entity, _ in redactable(after, entities))
        if language == PYTHON:
            parsed, parse = parses(before), parses(after)
            check.seen.update({"Python": 1, "Python that parsed": parsed, "and parses": parsed and parse})
    return check


def show_check(check: Check, tally: Tally) -> None:
    lost = check.seen["Python that parsed"] - check.seen["and parses"]
    new = {label: count - tally.left[label] for label, count in check.findings.items() if count > tally.left[label]}
    print(f"  {'changed texts in Python':<28}{check.seen['Python']:>10,}")
    print(f"  {'  that parsed before':<28}{check.seen['Python that parsed']:>10,}")
    print(f"  {'  that parse no more':<28}{lost:>10,}   must be 0")
    print(f"  {'texts that took more passes':<28}{check.seen['one pass was not enough']:>10,}")
    print(f"  {'findings not counted as left':<28}{sum(new.values()):>10,}   must be 0")
    assert not lost
    assert not new


if __name__ == "__main__":
    main()
