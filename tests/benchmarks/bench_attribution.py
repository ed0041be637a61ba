"""Whether code is found again in the corpus after its identifiers were renamed, by each tool; false alarms; tracing.

Snippets of 600 characters are taken from the corpus, a share of their different identifiers (words that are no keyword,
in comments and strings too) is replaced by other names, everywhere alike, and each tool is asked where they come from.

    found   a document that holds the unchanged snippet verbatim, white space aside, is among the best 10, or among the
            places of the 3 longest spans, boilerplate included; for the membership test: any window of it is known
    first   such a document is the best, or at the longest span
    source  the very document that the snippet was taken from is among these; stricter, since code is copied

The new names are words that occur nowhere, or identifiers from elsewhere in the corpus, which lead a search astray.

False alarms are counted with snippets of the validation documents, whose repositories are not in the corpus: nothing of
them was copied from it, but for what people copy from each other. So what is told to be known is looked for in all of
the corpus. Search has no alarm of its own, it always answers; the verdict says what to think of its answer.

Every place of every span is verified to stand in the corpus; pieces of 1,000 tokens are traced against the clock.

Run by `make bench`, or `python -m tests.benchmarks.bench_attribution [CORPUS] [--snippets N] [--index FOLDER]`.
"""

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple, TypeVar

from ahocorasick_rs import AhoCorasick

from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.index import Index, index
from starcoder.attribution.lexer import lex
from starcoder.attribution.search.base import Search
from starcoder.attribution.spans import Place, Span, verify
from starcoder.attribution.squeezed import squeeze
from starcoder.attribution.trace import Match, Trace
from starcoder.attribution.tracer import Tracer
from starcoder.attribution.verdict import LEVELS, judge
from starcoder.attribution.windows import WINDOW
from starcoder.corpus.document import read_documents
from tests.attribution.snippets import Snippet, borrowed_names, draw, new_names, rename
from tests.benchmarks.corpora import add_corpus, is_there

SHARES = (0, 10, 30, 50, 80)
LENGTH = 600
TOKENS = 1000
PEERS = {  # 80 snippets of another corpus of installed packages, 56,362 files; only their source counts as found
    "membership": ("80", "80", "78", "52", "13"),
    "BM25, trigrams": ("73/71/73", "74/70/74", "73/71/73", "72/71/72", "70/56/70"),
    "BM25, tokens": ("73/70/73", "73/70/73", "73/70/73", "71/66/71", "72/64/72"),
    "spans": ("74/-/74", "74/-/74", "72/-/72", "68/-/68", "49/-/49"),
}


class Found(NamedTuple):
    """What one tool found of one snippet, see above."""

    found: bool
    first: bool = False
    source: bool = False


Tool = Callable[[str, Snippet], Found]
T = TypeVar("T")


class Bench:
    """The tools on one index, and the traces that they made.

    Args:
        folder: Of the index; tracing is measured as the default one without 3-grams does it, and with them if it has.
    """

    def __init__(self, folder: Path) -> None:
        self.index, plain = Index.open(folder), Index.open(folder)
        self.corpus = self.index.corpus
        plain.search.analyzers = plain.search.analyzers[:1]
        self.tracers = {"spans": Tracer(plain)}
        if len(self.index.search.analyzers) > 1:
            self.tracers["spans, + trigrams"] = Tracer(self.index)
        self.traces: list[Trace] = []

    def tools(self) -> dict[str, Tool]:
        """What is compared."""
        ranked = {f"BM25, {name}": partial(_ranked, self.index.search, name) for name in self.index.search.analyzers}
        return {"membership": self._known, **ranked, **{name: partial(self._spans, name) for name in self.tracers}}

    def trace(self, text: str, name: str = "spans") -> Trace:
        """A trace by one of the tracers, which is kept to be verified."""
        self.traces.append(self.tracers[name].trace(text))
        return self.traces[-1]

    def _known(self, text: str, _: Snippet) -> Found:
        return Found(bool(self.index.membership.chains(text)))

    def _spans(self, name: str, text: str, snippet: Snippet) -> Found:
        spans = longest(self.trace(text, name))[:3]
        return ranking([source.address for span in spans for source in span.sources], snippet)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_corpus(parser)
    parser.add_argument("--snippets", type=int, default=100)
    parser.add_argument("--index", type=Path, help="what `starcoder trace index` made of the corpus already")
    arguments = parser.parse_args()
    if not is_there(arguments.corpus):
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.index or Path(scratch) / "trace"
        if not arguments.index:
            index(arguments.corpus, folder, trigrams=True)
        bench = Bench(folder)
        renamed(bench, draw(bench.corpus, arguments.snippets, LENGTH))
        alarms(bench, arguments.snippets)
        against_the_clock(bench)
        verified(bench)


def renamed(bench: Bench, snippets: list[Snippet]) -> None:
    """Print what each tool finds, for each kind of new names and each share of them."""
    for kind, names in {"words of nowhere": new_names(), "names of other code": borrowed_names(bench.corpus)}.items():
        queries = {share: [rename(s.text, share / 100, names, n) for n, s in enumerate(snippets)] for share in SHARES}
        print(f"\n{len(snippets)} snippets, renamed to {kind}: found/first/source")
        print(f"  {'':18} " + " ".join(f"{f'{share} %':>11}" for share in queries) + "   median ms")
        for name, tool in bench.tools().items():
            answers = [
                [_timed(tool, *each) for each in zip(texts, snippets, strict=True)] for texts in queries.values()
            ]
            cells = " ".join(f"{_cell(name, [found for found, _ in column]):>11}" for column in answers)
            print(f"  {name:18} {cells} {1000 * statistics.median(s for _, s in chain(*answers)):11.1f}", flush=True)
    print("\nmeasured of others, of 80 snippets:")
    for name, peers in PEERS.items():
        print(f"  {name:18} " + " ".join(f"{cell:>11}" for cell in peers))


def ranking(best: Sequence[Address], snippet: Snippet) -> Found:
    """What a tool found that answers with documents, the best first."""
    return Found(
        not snippet.holders.isdisjoint(best), bool(best) and best[0] in snippet.holders, snippet.source in best
    )


def longest(trace: Trace) -> list[Match]:
    """All spans of a trace, the longest first."""
    return sorted((*trace.matches, *trace.aside), key=lambda match: match.start - match.end)


def alarms(bench: Bench, count: int) -> None:
    """Print what each tool tells of code from repositories that are not in the corpus."""
    texts = list(_held_out(bench.corpus, count))
    if not texts:
        print("\nfalse alarms are not measured: no repository is held out of the corpus")
        return
    chains = {text: bench.index.membership.chains(text) for text in texts}
    windows = {squeeze(text[c.start : c.end]).text[:WINDOW] for text, found in chains.items() for c in found}
    standing = _standing(bench.corpus, sorted(windows))
    traces = [bench.trace(text) for text in texts]
    levels = Counter(judge(trace).level for trace in traces)
    print(f"\n{len(texts)} snippets of code from repositories that are not in the corpus")
    print(f"  membership: {sum(map(bool, chains.values()))} have a known window, ", end="")
    print(f"{sum(any(c.windows > 1 for c in found) for found in chains.values())} two in a row; ", end="")
    print(f"{len(windows) - len(standing)} of {len(windows)} such windows are not in the corpus")
    for name in bench.index.search.analyzers:
        print(f"  BM25, {name}: {sum(bool(bench.index.search.find(t, analyzer=name)) for t in texts)} have an answer")
    print(f"  spans: {sum(bool(trace.matches) for trace in traces)} have one that is no boilerplate, ", end="")
    print(f"{sum(bool(longest(trace)) for trace in traces)} any")
    print("  verdict: " + ", ".join(f"{levels[level]} {level}" for level in LEVELS))


def against_the_clock(bench: Bench, count: int = 60) -> None:
    """Print how long tracing 1,000 tokens takes, of the corpus itself and of other repositories."""
    random = Random(2)
    own = [snippet.text for snippet in draw(bench.corpus, count, 6000, seed=2)]
    print(f"\ntracing {TOKENS:,} tokens")
    for name, texts in {"of the corpus": own, "of other code": list(_held_out(bench.corpus, count, 6000))}.items():
        pieces = [text[slice(*lex(text).original(0, min(TOKENS, len(lex(text)))))] for text in texts]
        for tracer in bench.tracers if pieces else ():
            seconds = sorted(_timed(bench.trace, piece, tracer)[1] for piece in random.sample(pieces, len(pieces)))
            p50, p95 = statistics.median(seconds), seconds[int(0.95 * len(seconds))]
            print(f"  {name}, {tracer}: {len(pieces)} texts, p50 {p50:.2f} s, p95 {p95:.2f} s")


def verified(bench: Bench) -> None:
    """Print how many of the places that traces told are wrong, read anew from the corpus."""
    places = [
        (trace.text, Span(match.start, match.end, trace.text[match.start : match.end], (), 0), source)
        for trace in bench.traces
        for match in longest(trace)
        for source in match.sources
    ]
    places.sort(key=lambda place: place[2].address)
    wrong = sum(
        not verify(
            text,
            span,
            Place(source.address, source.start, source.end, source.lines),
            bench.corpus.document(source.address).content,
        )
        for text, span, source in places
    )
    spans = sum(len(longest(trace)) for trace in bench.traces)
    print(f"\n{spans:,} spans of {len(bench.traces):,} traces told, {len(places):,} places verified, {wrong} wrong")


def _ranked(search: Search, analyzer: str, text: str, snippet: Snippet) -> Found:
    return ranking([hit.address for hit in search.find(text, 10, analyzer=analyzer)], snippet)


def _cell(name: str, found: Sequence[Found]) -> str:
    counts = [str(sum(column)) for column in zip(*found, strict=True)]
    return counts[0] if name == "membership" else "/".join(counts)


def _held_out(corpus: Corpus, count: int, length: int = LENGTH) -> Iterator[str]:
    """Parts of as many validation documents of code, chosen by chance."""
    random = Random(1)
    contents = [each.content for each in read_documents(corpus.folder, "validation") if each.kind == "code"]
    contents = [content for content in contents if len(content) >= length]
    for content in random.sample(contents, min(count, len(contents))):
        start = random.randrange(len(content) - length + 1)
        yield content[start : start + length]


def _standing(corpus: Corpus, texts: list[str]) -> set[str]:
    """Those of some squeezed texts that stand in the corpus."""
    needles = AhoCorasick(texts)
    return {
        texts[number]
        for shard in range(len(corpus.shards))
        for _, document in corpus.documents(shard)
        for number, _, _ in needles.find_matches_as_indexes(" ".join(document.content.split()), overlapping=True)
    }


def _timed(work: Callable[..., T], *values: object) -> tuple[T, float]:
    start = time.perf_counter()
    found = work(*values)
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()
