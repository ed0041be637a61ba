"""The corpus pipeline beside its peers: MinHash signatures, filters, what near-deduplication finds, and whole builds.

Run by `make bench`, or `python -m tests.benchmarks.bench_corpus [--workers N] [--megabytes N] [--rounds N] [--pairs N]
[--checked N]`. Signatures and filters take turns in one run and are measured in CPU seconds. The builds read all that
is installed in this interpreter, and half of it before; memory is resident memory, pages that processes share counted
in each of them. Of the finished corpus a sample of the near-duplicates is compared once more, by Python's sets.
"""

import argparse
import hashlib
import re
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np
import polars as pl
import psutil
from bs4 import BeautifulSoup
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.hashing import HashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from starcoder.corpus import build as build_module
from starcoder.corpus import dedup
from starcoder.corpus.build import build
from starcoder.corpus.document import Document
from starcoder.corpus.filters import reject_reason
from starcoder.corpus.ingest import Ingest, Rules
from starcoder.corpus.languages import THRESHOLDS
from starcoder.corpus.sources import SourceSpec, open_sources
from starcoder.corpus.sources.installed import Installed
from starcoder.corpus.summary import read_summary
from starcoder.executors import Execution, Stage, run_stages
from tests.benchmarks.bench_tokenizer import measure
from tests.corpus import pairs as labelled

_PRIME = np.uint64(2**61 - 1)
_TEXT_BYTES = 200_000
_SIGNED = 64  # documents in a call of our signature function


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--checked", type=int, default=2000)
    arguments = parser.parse_args()
    documents = installed_documents(arguments.megabytes * 10**6)
    few = documents[:: arguments.megabytes]
    show_rates("MinHash signatures", measure(signers(documents, few), arguments.rounds))
    show_rates("filters", measure(filters(documents), arguments.rounds))
    show_quality(labelled.labelled_pairs(arguments.pairs))
    with tempfile.TemporaryDirectory() as folder:
        show_builds(Path(folder), arguments.workers)
        check_removals(Path(folder) / "whole", arguments.checked)


def installed_documents(size: int) -> list[Document]:
    """Every n-th document that the source of installed code has, about `size` bytes in all; none is very long."""
    found = list(read_again(lambda document: 0 < document.size < _TEXT_BYTES))
    step = max(1, sum(document.size for document in found) // size)
    return sorted(found, key=lambda document: document.sha256)[::step]


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


def signers(documents: list[Document], few: list[Document]) -> dict[str, Callable[[], int]]:
    """Ways to make signatures; those that are slow get fewer documents."""

    def ours() -> int:
        for start in range(0, len(documents), _SIGNED):
            part = documents[start : start + _SIGNED]
            dedup.signatures([dedup.windows(document.content, document.kind) for document in part])
        return sum(document.size for document in documents)

    contenders = {"ours": ours, "original's way": over(few, lambda document: original_signature(document.content))}
    for name, step in datatrove_steps().items():
        contenders[name] = over(few, lambda document, step=step: datatrove_signature(step, document.content))
    return contenders


def _permutations(count: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.RandomState(42)
    numbers = [
        (draw.randint(1, _PRIME, dtype=np.uint64), draw.randint(0, _PRIME, dtype=np.uint64)) for _ in range(count)
    ]
    factors, summands = np.array(numbers, np.uint64).T
    return factors, summands


_FACTORS, _SUMMANDS = _permutations(256)


def original_signature(text: str) -> np.ndarray:
    """The released script's way: windows of five tokens as strings, four bytes of their SHA-1, 256 permutations."""
    tokens = re.split("[^A-Za-z0-9_]", text)
    grams = {" ".join(tokens[start : start + 5]) for start in range(max(1, len(tokens) - 4))}
    hashes = [int.from_bytes(hashlib.sha1(gram.encode()).digest()[:4], "little") for gram in grams]
    permuted = np.array(hashes, np.uint64)[:, None] * _FACTORS + _SUMMANDS
    return (permuted % _PRIME & np.uint64(2**32 - 1)).min(axis=0)


class _Split(WordTokenizer):
    """White space separates words."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        raise NotImplementedError

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        raise NotImplementedError


def datatrove_steps() -> dict[str, MinhashDedupSignature]:
    """datatrove with 14 buckets of 8, as it is by default where spaCy and xxhash are, and on words between spaces."""
    sha1 = MinhashConfig(hash_config=HashConfig(hash_fc="sha1"))
    steps = {"datatrove, words at spaces": MinhashDedupSignature(tempfile.gettempdir(), sha1, language=_Split())}
    if find_spec("spacy") and find_spec("xxhash"):
        steps["datatrove, default"] = MinhashDedupSignature(tempfile.gettempdir())
    return steps


def datatrove_signature(step: MinhashDedupSignature, text: str) -> list[list[int]]:
    grams = step.get_shingles(text)
    return step.get_signature(grams) if grams.size else []


def filters(documents: list[Document]) -> dict[str, Callable[[], int]]:
    return {"ours": over(documents, reject_reason), "plain way": over(documents, plain_filter)}


def plain_filter(document: Document) -> bool:
    """The same rules, character by character, and HTML by Beautiful Soup."""
    text, limits = document.content, THRESHOLDS[document.language, document.extension]
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
    """Print the median of each contender, and its median ratio to the first."""
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratio = statistics.median(value / base for value, base in zip(values, first, strict=True))
        print(f"{title:<20} {name:<28} {statistics.median(values) / 1e6:8.2f} MB/s a core  x {ratio:6.3f}")


def show_quality(pairs: list[labelled.Pair]) -> None:
    """Print how many true duplicates (J >= 0.7) each way finds of each kind, and how many of its finds are none."""
    found = {"LSH": labelled.candidates(pairs), "LSH, verified": labelled.verified(pairs)}
    found |= {name: [datatrove_match(step, pair) for pair in pairs] for name, step in datatrove_steps().items()}
    print(f"\n{'pairs':<20} {'number':>6} {'true':>5}  {'mean J':>6}  found / wrongly: {', '.join(found)}")
    places: dict[str, list[int]] = defaultdict(list)
    for place, pair in enumerate(pairs):
        for kind in (pair.kind, "J >= 0.85" if pair.similarity >= 0.85 else "J < 0.85", "all"):
            places[kind].append(place)
    for kind in (*labelled.KINDS, "J >= 0.85", "J < 0.85", "all"):
        part = [pairs[place] for place in places[kind]]
        true = sum(pair.similarity >= dedup.THRESHOLD for pair in part)
        counts = [_counts(pairs, places[kind], flags) for flags in found.values()]
        shown = "  ".join(f"{right:>6} / {wrong:<4}" for right, wrong in counts)
        mean = statistics.fmean(pair.similarity for pair in part) if part else 0
        print(f"{kind:<20} {len(part):>6} {true:>5}  {mean:>6.2f}  {shown}")
    show_clusters(sorted({text for pair in pairs for text in (pair.a, pair.b)}))


def _counts(pairs: list[labelled.Pair], places: list[int], flags: list[bool]) -> tuple[int, int]:
    right = sum(flags[place] for place in places if pairs[place].similarity >= dedup.THRESHOLD)
    return right, sum(flags[place] for place in places) - right


def datatrove_match(step: MinhashDedupSignature, pair: labelled.Pair) -> bool:
    a, b = datatrove_signature(step, pair.a), datatrove_signature(step, pair.b)
    return any(x == y for x, y in zip(a, b, strict=False))


def show_clusters(texts: list[str]) -> None:
    """Print what becomes of all texts of all pairs together: whole chains, or stars."""
    clusters = [[texts[place] for place in places] for places in labelled.chains(texts)]
    chained = [labelled.true_similarity(cluster[0], text) for cluster in clusters for text in cluster[1:]]
    starred: list[float] = []
    for cluster in clusters:
        matches = dedup.stars([dedup.shingles(text) for text in cluster])
        starred += [labelled.true_similarity(cluster[m.kept], t) for m, t in zip(matches, cluster, strict=True) if m]
    for name, similarities in (("chains", chained), ("stars", starred)):
        good = sum(similarity >= dedup.THRESHOLD for similarity in similarities)
        print(
            f"{len(texts)} texts together, {name}: {len(similarities)} removed, {good} of them with J >= 0.7 to what stays"
        )


@dataclass
class Usage:
    """Seconds and the most resident memory in bytes, of all processes together and of one that is not this."""

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
            self.tasks = max(self.tasks, stage.tasks if stage.name == "read" else 0)
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
            workers = []
            for child in this.children(recursive=True):
                try:
                    workers.append(child.memory_info().rss)
                except psutil.NoSuchProcess:
                    continue
            usage.together = max(usage.together, this.memory_info().rss + sum(workers))
            usage.worker = max(usage.worker, *workers, 0)


def show_builds(folder: Path, workers: int) -> None:
    """Build of half of the units, and of all."""
    units = sorted(Installed().units(), key=lambda unit: (unit.size, unit.name))
    for name, part in (("half", units[::2]), ("whole", units)):
        monitor = Monitor()
        start = time.perf_counter()
        with (
            mock.patch.object(Installed, "units", lambda self, part=part: sorted(part, key=lambda unit: unit.name)),
            mock.patch.object(build_module, "run_stages", monitor.run_stages),
            mock.patch.object(build_module, "_report"),
        ):
            build(folder / name, execution=Execution(workers=workers))
        show_build(name, folder / name, monitor, time.perf_counter() - start, workers)


def show_build(name: str, corpus: Path, monitor: Monitor, seconds: float, workers: int) -> None:
    summary = read_summary(corpus)
    read = next(row["bytes"] for row in summary["stages"] if row["stage"] == "readable")
    together, worker = (max(getattr(u, field) for u in monitor.stages.values()) for field in ("together", "worker"))
    print(
        f"\nbuild, {name}: {monitor.tasks} tasks, {workers} workers, {read / 1e6:.1f} MB read in {seconds:.1f} s "
        f"({read / 1e6 / seconds:.2f} MB/s), peak {together / 1e6:.0f} MB together, {worker / 1e6:.0f} MB in a worker"
    )
    for stage, usage in monitor.stages.items():
        print(f"  {stage:<17} {usage.seconds:7.1f} s  {usage.together / 1e6:6.0f} MB  {usage.worker / 1e6:6.0f} MB")
    for row in summary["stages"]:
        print(f"  {row['stage']:<17} {row['files']:7,} files  {row['bytes'] / 1e6:8.1f} MB enter")


def check_removals(corpus: Path, most: int) -> None:
    """Compare a sample of the near-duplicates with what was kept instead, from the files themselves."""
    rejection = pl.col("rejection").struct
    frame = pl.scan_parquet(corpus / "rejected-*.parquet").filter(rejection.field("reason") == "near-duplicate")
    name = pl.concat_str("repository", pl.lit("/"), "path")
    rows = frame.select("kind", "repository", name.alias("name"), rejection.field("detail")).collect()
    sample = rows.sample(min(most, len(rows)), seed=0).select("kind", "name", "detail").rows()
    judged = [(kind, gone, *detail.rsplit(", Jaccard ", 1)) for kind, gone, detail in sample]
    names = {name for _, *both, _ in judged for name in both}
    texts = {(d.kind, d.name): d.content for d in read_again(lambda document: document.name in names)}
    errors = [
        (labelled.true_similarity(texts[kind, gone], texts[kind, kept]), float(told))
        for kind, gone, kept, told in judged
    ]
    wrong = sum(true < dedup.THRESHOLD for true, _ in errors)
    worst = max(abs(true - told) for true, told in errors)
    forks = rows.filter((pl.col("repository") == "pytorch-lightning") & pl.col("detail").str.starts_with("lightning/"))
    print(
        f"\n{len(judged)} of {len(rows)} near-duplicates compared again: {wrong} with a true Jaccard similarity below "
        f"0.7, told {worst:.4f} wrong at most; {len(forks)} of pytorch-lightning are copies of lightning's files"
    )


if __name__ == "__main__":
    main()
