"""The embedded search: how fast a corpus is indexed and queried, and how fast the documents found are read.

Run by `make bench`, or `python -m tests.benchmarks.bench_search [CORPUS] [--threads N]`.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.search.base import ANALYZERS, Analyzer
from starcoder.attribution.search.embedded import TantivySearch
from starcoder.corpus.document import Document
from tests.benchmarks.corpora import add_corpus, is_there


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus(parser)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not is_there(arguments.corpus):
        return
    corpus = Corpus.open(arguments.corpus)
    documents = [
        (Address(shard, row), document)
        for shard in range(len(corpus.shards))
        for row, document in corpus.documents(shard)
    ]
    size = sum(len(document.content.encode()) for _, document in documents)
    print(f"{arguments.corpus}: {len(documents):,} documents, {size / 1e6:.0f} MB, {arguments.threads} threads")
    with tempfile.TemporaryDirectory() as scratch:
        for number, analyzers in enumerate([ANALYZERS, *([analyzer] for analyzer in ANALYZERS)]):
            build(corpus, Path(scratch) / str(number), list(analyzers), arguments.threads, size)
        with TantivySearch.open(Path(scratch) / "0") as search:
            show_queries(search, documents)
            show_reading(search, corpus, [address for address, _ in documents])


def build(corpus: Corpus, folder: Path, analyzers: list[Analyzer], threads: int, size: int) -> None:
    """Index a corpus from its shards, all that waits for the engine's merges included."""
    wall, cpu = time.perf_counter(), time.process_time()
    with TantivySearch.create(folder, threads=threads, analyzers=analyzers) as search:
        for shard in range(len(corpus.shards)):
            search.add(shard, corpus.documents(shard))
        search.commit()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    room = sum(path.stat().st_size for path in folder.iterdir())
    rates = f"{size / 1e6 / wall:6.1f} MB/s ({size / 1e6 / cpu:.1f} a CPU second)"
    print(f"  index of {' + '.join(analyzers):18} {rates}, {room / size:.2f} times the text with its documents")


def show_queries(search: TantivySearch, documents: list[tuple[Address, Document]], count: int = 200) -> None:
    random_ = random.Random(0)
    for length in (600, 6000):
        long = [document.content for _, document in documents if len(document.content) >= length]
        starts = [(text, random_.randrange(len(text) - length + 1)) for text in random_.sample(long, count)]
        texts = [text[start : start + length] for text, start in starts]
        for analyzer in ANALYZERS:
            for name, find in {
                "": partial(search.find, analyzer=analyzer),
                ", python alone": partial(search.find, language="python", analyzer=analyzer),
            }.items():
                _show(f"{length} characters by {analyzer}{name}", [_timed(find, text) for text in texts])


def show_reading(search: TantivySearch, corpus: Corpus, addresses: list[Address], rounds: int = 10) -> None:
    """Reading what was found: from the index, and from the corpus without a cache."""
    random_ = random.Random(0)
    for count in (10, 50):
        picks = [random_.sample(addresses, count) for _ in range(rounds)]
        _show(f"{count} documents from the index", [_timed(search.texts, pick) for pick in picks])
        fresh = [partial(_read, Corpus.open(corpus.folder)) for _ in picks]
        _show(f"{count} documents from the corpus", [_timed(*each) for each in zip(fresh, picks, strict=True)])


def _read(corpus: Corpus, addresses: list[Address]) -> list[Document]:
    return [corpus.document(address) for address in addresses]


def _timed(work: Callable[[Any], object], value: object) -> float:
    start = time.perf_counter()
    work(value)
    return time.perf_counter() - start


def _show(name: str, seconds: list[float]) -> None:
    p95 = sorted(seconds)[int(0.95 * len(seconds))]
    print(f"  {name:46} p50 {1000 * statistics.median(seconds):7.1f} ms, p95 {1000 * p95:7.1f} ms", flush=True)


if __name__ == "__main__":
    main()
