"""The corpus pipeline: its filters beside the plain way, and whole builds of all that is installed here, and of half.

Filters take turns in one run and are measured in CPU seconds. Of each stage of a build the wall-clock time and the
most resident memory are printed, of all processes together (what they share is counted in each) and of one worker. Of
the finished corpus, a sample of the near-duplicates is read again and compared by Python's sets.

Run by `make bench`, or `python -m tests.benchmarks.bench_corpus [--workers N] [--megabytes N] [--rounds N]
[--checked N]`.
"""

import argparse
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import polars as pl
import psutil
from bs4 import BeautifulSoup

from starcoder.corpus import build as build_module
from starcoder.corpus.build import build
from starcoder.corpus.dedup import THRESHOLD
from starcoder.corpus.document import Document
from starcoder.corpus.filters import reject_reason
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.languages import THRESHOLDS
from starcoder.corpus.sampling import random_key
from starcoder.corpus.sources import SourceSpec, open_sources
from starcoder.corpus.sources.installed import Installed
from starcoder.corpus.summary import read_summary
from starcoder.executors import Execution, Stage, run_stages
from tests.benchmarks.bench_tokenizer import measure
from tests.corpus.pairs import true_similarity


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checked", type=int, default=2000)
    arguments = parser.parse_args()
    documents = installed_documents(arguments.megabytes * 10**6)
    contenders = {"ours": over(documents, reject_reason), "the plain way": over(documents, plain_filter)}
    show_rates("filters", measure(contenders, arguments.rounds))
    with tempfile.TemporaryDirectory() as folder:
        show_builds(Path(folder), arguments.workers)
        check_removals(Path(folder) / "whole", arguments.checked)


def installed_documents(size: int) -> list[Document]:
    """Random documents of the installed code, about `size` bytes in all."""
    share = size / sum(unit.size for unit in Installed().units())
    return list(read_again(lambda document: random_key(0, document.name) < int(share * 2**128).to_bytes(16, "big")))


def read_again(wanted: Callable[[Document], bool]) -> Iterator[Document]:
    """The documents with content that installed files give, before anything is compared with anything else."""
    ingest = Ingest(Rules())
    for source in open_sources([SourceSpec("installed")])[0]:
        for unit in source.units():
            for candidate in source.candidates(unit):
                if wanted(candidate.document):
                    found = ingest.documents(candidate, ingest.listed(candidate))
                    yield from (document for document in found if document.content)


def over(documents: Sequence[Document], work: Callable[[Document], object]) -> Callable[[], int]:
    """A contender that does its work on each document and returns their bytes."""

    def run() -> int:
        for document in documents:
            work(document)
        return sum(document.size for document in documents)

    return run


def plain_filter(document: Document) -> bool:
    """The same rules, character by character, and HTML by Beautiful Soup."""
    text, limits = document.content, THRESHOLDS.get((document.language, document.extension))
    if limits is None:
        return False
    lengths = [len(line) for line in text.splitlines()]
    longest, mean = max(lengths), statistics.fmean(lengths)
    alnum, alpha = (sum(map(kind, text)) / len(text) for kind in (str.isalnum, str.isalpha))
    if (limits.xml and "<?xml version=" in text[:100]) or (limits.line and (longest > limits.line or mean > 100)):
        return False
    if alnum < (limits.alnum or 0) or alpha < (limits.alpha or 0):
        return False
    if document.language == "html":
        page = BeautifulSoup(text, "html.parser")
        for hidden in page(["script", "style"]):
            hidden.decompose()
        visible = len(page.get_text())
        return visible > 0.2 * len(text) and visible > 100
    return document.language not in ("json", "yaml") or 50 <= len(text) <= 5000


def show_rates(title: str, rates: dict[str, list[float]]) -> None:
    """Print the median of each contender in bytes per CPU second, and its median ratio to the first."""
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{title:<20}{name:<28}{statistics.median(values) / 1e6:8.2f} MB/s  x {ratio:6.3f}")


@dataclass
class Usage:
    """Seconds and the most resident memory in bytes, of all processes together and of the largest worker."""

    seconds: float = 0
    together: int = 0
    worker: int = 0


class Monitor:
    """Runs stages as the build does, and notes what each of them takes."""

    def __init__(self) -> None:
        self.stages: dict[str, Usage] = {}
        self.tasks = 0

    def run_stages(self, stages: Iterable[Stage], folder: Path, execution: Execution) -> None:
        for stage in stages:
            usage = self.stages[stage.name] = Usage()
            self.tasks = stage.tasks if stage.name == "read" else self.tasks
            done = threading.Event()
            watch = threading.Thread(target=self._watch, args=(usage, done))
            watch.start()
            start = time.perf_counter()
            try:
                run_stages([stage], folder / stage.name, execution)
            finally:
                usage.seconds = time.perf_counter() - start
                done.set()
                watch.join()

    @staticmethod
    def _watch(usage: Usage, done: threading.Event) -> None:
        this = psutil.Process()
        while not done.wait(0.1):
            workers = [0]
            for child in this.children(recursive=True):
                try:
                    workers.append(child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            usage.together = max(usage.together, this.memory_info().rss + sum(workers))
            usage.worker = max(usage.worker, *workers)


def show_builds(folder: Path, workers: int) -> None:
    """Build a corpus of every second unit by size, then one of all."""
    by_size = sorted(Installed().units(), key=lambda unit: (unit.size, unit.name))
    for name, step in (("half", 2), ("whole", 1)):
        units = sorted(by_size[::step], key=lambda unit: unit.name)
        monitor = Monitor()
        start = time.perf_counter()
        with (
            mock.patch.object(Installed, "units", return_value=units),
            mock.patch.object(build_module, "run_stages", monitor.run_stages),
            mock.patch.object(build_module, "_report"),
        ):
            build(folder / name, execution=Execution(workers=workers))
        show_build(name, folder / name, monitor, time.perf_counter() - start, workers)


def show_build(name: str, corpus: Path, monitor: Monitor, seconds: float, workers: int) -> None:
    summary = read_summary(corpus)
    size = next(row["bytes"] for row in summary["stages"] if row["stage"] == "readable") / 1e6
    together, worker = (max(getattr(u, field) for u in monitor.stages.values()) for field in ("together", "worker"))
    print(
        f"\nbuild, {name}: {monitor.tasks} tasks, {workers} workers, {size:.1f} MB read in {seconds:.1f} s "
        f"({size / seconds:.2f} MB/s), peak {together / 1e6:.0f} MB together, {worker / 1e6:.0f} MB in a worker"
    )
    for stage, usage in monitor.stages.items():
        print(f"  stage {stage:<17}{usage.seconds:9.1f} s {usage.together / 1e6:9.0f} MB{usage.worker / 1e6:9.0f} MB")
    for row in summary["stages"]:
        print(f"  funnel {row['stage']:<16}{row['files']:9,} files{row['bytes'] / 1e6:10.1f} MB")


def check_removals(corpus: Path, most: int) -> None:
    """Compare a sample of the near-duplicates with what was kept instead, from the files themselves."""
    rejection = pl.col("rejection").struct
    found = pl.scan_parquet(corpus / "rejected-*.parquet").filter(rejection.field("reason") == "near-duplicate")
    name = pl.concat_str("repository", pl.lit("/"), "path").alias("name")
    rows = found.select("kind", "repository", name, rejection.field("detail")).collect()
    sample = rows.sample(min(most, len(rows)), seed=0).select("kind", "name", "detail").rows()
    judged = [(kind, gone, *detail.rsplit(", Jaccard ", 1)) for kind, gone, detail in sample]
    names = {name for _, gone, kept, _ in judged for name in (gone, kept)}
    texts = {(d.kind, d.name): d.content for d in read_again(lambda document: document.name in names)}
    true = [true_similarity(texts[kind, gone], texts[kind, kept]) for kind, gone, kept, _ in judged]
    wrong = sum(similarity < THRESHOLD for similarity in true)
    error = max(abs(similarity - float(told)) for similarity, (*_, told) in zip(true, judged, strict=True))
    forks = rows.filter((pl.col("repository") == "pytorch-lightning") & pl.col("detail").str.starts_with("lightning/"))
    print(
        f"\n{len(judged)} of {len(rows)} near-duplicates read again: {wrong} with a true Jaccard similarity below "
        f"{THRESHOLD}, {error:.4f} the largest error of what was told; {len(forks)} are copies in pytorch-lightning of "
        "files of lightning"
    )


if __name__ == "__main__":
    main()
