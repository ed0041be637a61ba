"""Whether code is found again in the corpus after its identifiers were renamed: each tool of attribution by itself.

Snippets of 600 characters are taken from a corpus, a share of their different identifiers is replaced, and each tool is
asked where they come from. Found = a document that holds the snippet verbatim, white space aside, is among the best 10;
"first" = such a one is the best; "source" = the very document that the snippet was taken from is among the best 10.

The new names are words that occur nowhere, or identifiers from elsewhere in the corpus, which lead a search astray.

Run by `make bench`, or `python -m tests.benchmarks.bench_attribution [CORPUS] [--snippets N] [--index FOLDER]`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.search.base import ANALYZERS, Search
from starcoder.attribution.search.embedded import TantivySearch
from tests.attribution.snippets import Snippet, borrowed_names, draw, new_names, rename

CORPUS = Path("build/smoke/corpus")
SHARES = (0, 10, 30, 50, 80)
PEERS = {  # 80 snippets of another corpus of installed packages, 56,362 files: only those found in their source count
    "Bloom filter, any hit": ["80", "80", "78", "52", "13"],
    "BM25, 3-grams": ["73", "74", "73", "72", "70"],
    "BM25, code tokens": ["73", "73", "73", "71", "72"],
    "exact spans, 3 longest": ["74", "74", "72", "68", "49"],
}


class Found(NamedTuple):
    """What one tool found of one snippet, see above."""

    found: bool
    first: bool
    source: bool


Tool = Callable[[str, Snippet], Found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, nargs="?", default=CORPUS)
    parser.add_argument("--snippets", type=int, default=100)
    parser.add_argument("--index", type=Path, help="a search index of the corpus that is there already")
    arguments = parser.parse_args()
    corpus = Corpus.open(arguments.corpus)
    snippets = draw(corpus, arguments.snippets)
    with tempfile.TemporaryDirectory() as scratch, _search(corpus, arguments.index, Path(scratch) / "index") as search:
        contenders = tools(search)
        for kind, names in {"words of nowhere": new_names(), "names of other code": borrowed_names(corpus)}.items():
            queries = {
                share: [rename(s.text, share / 100, names, n) for n, s in enumerate(snippets)] for share in SHARES
            }
            show(f"{len(snippets)} snippets, renamed to {kind}", contenders, snippets, queries)
    print("\nmeasured of others, of 80 snippets:")
    for name, cells in PEERS.items():
        print(f"  {name:24} " + " ".join(f"{cell:>14}" for cell in cells))


def tools(search: Search) -> dict[str, Tool]:
    """What is compared."""
    return {f"BM25, {analyzer}": partial(_ranked, search, analyzer) for analyzer in ANALYZERS}


def ranking(best: Sequence[Address], snippet: Snippet) -> Found:
    """What a tool found that answers with documents, the best first."""
    return Found(
        not snippet.holders.isdisjoint(best), bool(best) and best[0] in snippet.holders, snippet.source in best
    )


def show(title: str, contenders: dict[str, Tool], snippets: list[Snippet], queries: dict[int, list[str]]) -> None:
    print(f"\n{title}: found / first / source in the best 10")
    print(f"  {'':24} " + " ".join(f"{f'{share} %':>14}" for share in queries) + "   median ms")
    for name, tool in contenders.items():
        cells, seconds = [], []
        for texts in queries.values():
            answers = []
            for text, snippet in zip(texts, snippets, strict=True):
                start = time.perf_counter()
                answers.append(tool(text, snippet))
                seconds.append(time.perf_counter() - start)
            cells.append("/".join(str(sum(column)) for column in zip(*answers, strict=True)))
        print(
            f"  {name:24} " + " ".join(f"{cell:>14}" for cell in cells) + f" {1000 * statistics.median(seconds):11.1f}"
        )


def _ranked(search: Search, analyzer: str, text: str, snippet: Snippet) -> Found:
    return ranking([hit.address for hit in search.find(text, 10, analyzer=analyzer)], snippet)


def _search(corpus: Corpus, made: Path | None, folder: Path) -> Search:
    if made:
        return TantivySearch.open(made)
    search = TantivySearch.create(folder)
    for shard in range(len(corpus.shards)):
        search.add(shard, corpus.documents(shard))
    search.commit()
    return search


if __name__ == "__main__":
    main()
