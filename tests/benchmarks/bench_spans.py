"""Verbatim spans: speed of each step, how many places are verified, and what human code from elsewhere has.

Queries are pieces of 1,000 tokens of the corpus itself, and of its validation documents, whose repositories are not in
the training documents. Seconds are of this process alone, so that neighbours on the machine disturb less.

Run by `make bench`, or `python -m tests.benchmarks.bench_spans [CORPUS] [--queries N] [--exact TOKENIZER]`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from statistics import median

from starcoder import tokenizer as vocabulary
from starcoder.attribution.boilerplate import Weighed, boilerplate
from starcoder.attribution.corpus import Address, Corpus
from starcoder.attribution.lexer import lex
from starcoder.attribution.spans import Spans, verify
from starcoder.attribution.squeezed import squeeze
from starcoder.attribution.suffixes import Suffixes, build_suffixes, check_engine
from starcoder.attribution.surprise import Frequencies, surprises
from starcoder.corpus.document import Document, read_documents
from starcoder.errors import UserError
from tests.benchmarks.corpora import add_corpus, is_there

CANDIDATES = 50
TOKENS = 1000
Documents = dict[Address, Document]


def piece(text: str, rng: Random) -> str:
    """At most 1,000 tokens of a text from a random place on."""
    tokens = lex(text)
    first = rng.randrange(max(1, len(tokens) - TOKENS))
    start, end = tokens.original(first, min(first + TOKENS, len(tokens)))
    return text[start:end]


def speeds(documents: Sequence[Document]) -> Frequencies:
    """Print megabytes a second of each step over all documents, and return the counts."""
    frequencies = Frequencies()
    steps: dict[str, Callable[[Document], object]] = {
        "squeeze": lambda each: squeeze(each.content),
        "tokens": lambda each: lex(each.content),
        "tokens and hashes": lambda each: lex(each.content).hashes(8),
        "boilerplate": lambda each: boilerplate(each.content),
        "token counts": lambda each: frequencies.add(each.content),
    }
    size = sum(len(each.content) for each in documents) / 1e6
    for name, step in steps.items():
        begun = time.process_time()
        for each in documents:
            step(each)
        print(f"{name:20} {size / (time.process_time() - begun):6.1f} MB/s")
    return frequencies


def traced(name: str, queries: Sequence[str], documents: Documents, find: Callable[[str], Spans]) -> None:
    """Print how long the queries take and whether all places are right."""
    seconds, found, checked, wrong = [], 0, 0, 0
    for query in queries:
        begun = time.perf_counter()
        some = find(query)
        spans = some.tell(range(len(some.parts)))
        seconds.append(time.perf_counter() - begun)
        found += len(spans)
        for span in spans:
            checked += len(span.places)
            wrong += sum(not verify(query, span, at, documents[at.address].content) for at in span.places)
    print(
        f"{name:28} p50 {median(seconds):.3f} s, max {max(seconds):.3f} s, {found:,} spans, "
        f"{checked:,} places verified, {wrong} wrong"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    add_corpus(parser)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument("--exact", type=Path, help="folder of a tokenizer; the one beside the corpus unless said")
    options = parser.parse_args()
    if not is_there(options.corpus):
        return
    rng, corpus = Random(1234), Corpus.open(options.corpus)
    documents = {Address(n, row): each for n in range(len(corpus.shards)) for row, each in corpus.documents(n)}
    own = rng.sample([address for address, each in documents.items() if len(each.content) > 4000], options.queries)
    queries = {address: piece(documents[address].content, rng) for address in own}
    others = [piece(each.content, rng) for each in read_documents(options.corpus, "validation") if each.content.strip()]
    others = rng.sample(others, min(options.queries, len(others)))
    frequencies = speeds(list(documents.values()))

    def among(query: str, *addresses: Address) -> Spans:
        chosen = [*addresses, *rng.sample(list(documents), CANDIDATES - len(addresses))]
        return Spans(lex(query), {address: lex(documents[address].content) for address in chosen})

    by_text = {query: address for address, query in queries.items()}
    traced("its own and 49 others", list(by_text), documents, lambda query: among(query, by_text[query]))
    traced("from elsewhere, 50 others", others, documents, among)
    for name, texts in (("own", list(by_text)), ("elsewhere", others)):
        spans = [(lex(query), among(query).parts) for query in texts]
        aside = sum(Weighed(query).aside(parts).sum() for query, parts in spans)
        values = sorted(value for query, parts in spans for value in surprises(query, parts, frequencies))
        print(f"{name}: of {len(values)} spans in 50 others {aside} set aside; nats p50 {median(values or [0]):.0f}")
    exact(corpus, documents, options.exact or options.corpus.parent / "tokenizer", list(by_text), others)


def exact(corpus: Corpus, documents: Documents, tokenizer: Path, own: list[str], others: list[str]) -> None:
    """The same over the whole corpus by infini-gram."""
    try:
        check_engine()
        tokens = vocabulary.load(tokenizer)
    except UserError as error:
        print(f"not measured: {error}")
        return
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        list(build_suffixes(corpus, tokens, Path(folder)))
        size = sum(file.stat().st_size for file in Path(folder).rglob("*.0"))
        characters = sum(len(each.content) for each in documents.values())
        seconds = time.perf_counter() - begun
        print(f"suffix arrays: {characters / 1e6 / seconds:.1f} MB/s, {size / characters:.2f} bytes a character")
        suffixes = Suffixes.open(Path(folder), corpus)

        def find(query: str) -> Spans:
            return suffixes.find(lex(query), lambda addresses: [documents[each].content for each in addresses])

        traced("whole corpus, own", own[:20], documents, find)
        traced("whole corpus, from elsewhere", others[:20], documents, find)


if __name__ == "__main__":
    main()
