"""From a text to its sources: search proposes documents, in which the text's verbatim spans are found (paper §8).

Each piece of the text is searched for by each of the engine's analysers. In the documents that come of it all maximal
spans of the whole text are found and weighed by surprise × rarity; what is boilerplate of them has no weight. The
overlap with each document tells what is similar where nothing is verbatim; the membership test asks the whole corpus.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from math import log

import numpy as np

from starcoder.attribution.boilerplate import Weighed
from starcoder.attribution.corpus import Address
from starcoder.attribution.hashing import Hashes
from starcoder.attribution.index import Index
from starcoder.attribution.lexer import Tokens, lex
from starcoder.attribution.search.base import Hit
from starcoder.attribution.spans import Integers, Place, Spans
from starcoder.attribution.squeezed import Lines
from starcoder.attribution.surprise import Floats, model_surprises, rarity, surprises
from starcoder.attribution.trace import Chain, Match, Similar, Source, Trace
from starcoder.corpus.document import Document
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError

LONGEST = 200_000
"""Characters of a text that is traced."""
_PIECE = 1500  # characters that documents are proposed for together: a copy in a long text is not drowned by the rest
_SOURCES = 10
_SIMILAR = 5
_RUN = 3  # tokens of the runs that overlap counts
_FEWEST = 20  # different runs that a text has to have: lines of dashes, or a call of main, are like many
_NEW = 0.5  # share of a span that longer ones must leave uncovered for it to be told


class Tracer:
    """Traces texts in an index.

    Args:
        index: The index.
        k: Documents that search proposes for each piece of the text, by each of its analysers.
        language: Look at documents in this language alone.
        license: Look at documents under this SPDX id alone.
        repository: Look at this repository alone.
        opt_out: Sources on this list are marked.

    Raises:
        UserError: `k` is not positive.
    """

    def __init__(
        self,
        index: Index,
        k: int = 10,
        language: str | None = None,
        license: str | None = None,
        repository: str | None = None,
        opt_out: OptOut | None = None,
    ) -> None:
        if k < 1:
            raise UserError(f"k is {k}: ask for at least one document")
        self._index, self._k, self._opt_out = index, k, opt_out
        self._filter = {"language": language, "license": license, "repository": repository}

    def trace(self, text: str, model: Sequence[tuple[int, int, float]] | None = None) -> Trace:
        """Where a text comes from.

        Args:
            text: The text.
            model: Start and end in the text of each token of a model, and the natural logarithm of the probability that
                the model gave it: what surprises the model is then what counts, instead of what is rare in the corpus.

        Raises:
            UserError: The text is empty or too long, or the index has become stale.
        """
        if not text.strip():
            raise UserError("the text is empty: there is nothing to trace")
        if len(text) > LONGEST:
            raise UserError(f"the text has {len(text):,} characters: trace at most {LONGEST:,} at a time")
        self._index.check()
        query, hits = lex(text), self._propose(text)
        addresses = [hit.address for hit in hits]
        documents = dict(zip(addresses, map(lex, self._index.search.texts(addresses)), strict=True))
        lines = Lines(text)
        weighed = Weighed(query)
        matches = list(self._matches(query, lines, documents, weighed, model))
        return Trace(
            text,
            len(query),
            tuple(match for match in matches if not match.aside),
            tuple(sorted((match for match in matches if match.aside), key=lambda match: match.start)),
            tuple(
                Chain(chain.start, chain.end, lines.of(chain.start, chain.end), chain.windows)
                for chain in sorted(self._index.membership.chains(text), key=lambda chain: chain.start)
            ),
            tuple(self._similar(query, hits, documents, weighed)),
            self._scope,
        )

    @property
    def _scope(self) -> str:
        words = {"language": "in", "license": "under", "repository": "of"}
        said = [f"{words[name]} {value}" for name, value in self._filter.items() if value]
        return f"documents {' '.join(said)}, and no others were looked at" if said else "the corpus"

    def _propose(self, text: str) -> list[Hit]:
        """Documents that may hold parts of the text, each once with its best score, the best first."""
        search = self._index.search
        best: dict[Address, Hit] = {}
        for piece in dict.fromkeys(pieces(text)):
            for analyzer in search.analyzers:
                for hit in search.find(piece, self._k, analyzer=analyzer, **self._filter):
                    if hit.address not in best or hit.score > best[hit.address].score:
                        best[hit.address] = hit
        return sorted(best.values(), key=lambda hit: -hit.score)

    def _matches(
        self,
        query: Tokens,
        lines: Lines,
        documents: Mapping[Address, Tokens],
        weighed: Weighed,
        model: Sequence[tuple[int, int, float]] | None,
    ) -> Iterator[Match]:
        """The spans that are told, the weightiest first, then those that are set aside, the longest first."""
        spans = self._spans(query, documents)
        facts = {address: self._index.corpus.facts(address) for address in spans.documents}
        bits = weighed.total(spans.parts, partial(self._nats, query, model)) / log(2)
        spread = spans.groups([document.repository for document in facts.values()])
        score = bits * [rarity(repositories) for repositories in spread.tolist()]
        aside = weighed.aside(spans.parts)
        order = np.lexsort((spans.parts[:, 0], -score))
        told = [*least(spans.parts, order[~aside[order]]), *least(spans.parts, np.flatnonzero(aside))]
        for number, span in zip(told, spans.tell(told), strict=True):
            if span.places:
                yield Match(
                    span.start,
                    span.end,
                    lines.of(span.start, span.end),
                    int(query.within(spans.parts[number]) @ (-1, 1)),
                    float(bits[number]),
                    rarity(len({facts[place.address].repository for place in span.places})),
                    span.count,
                    tuple(self._source(facts[place.address], place) for place in _shortest(span.places)),
                    weighed.reason(span.start, span.end) if aside[number] else "",
                )

    def _spans(self, query: Tokens, documents: Mapping[Address, Tokens]) -> Spans:
        """The spans in the proposed documents; in the whole corpus with suffix arrays, unless a filter is set."""
        suffixes = self._index.suffixes
        if suffixes is None or any(self._filter.values()):
            return Spans(query, documents)
        return suffixes.find(query, self._index.search.texts)

    def _nats(self, query: Tokens, model: Sequence[tuple[int, int, float]] | None, parts: Integers) -> Floats:
        if model is None:
            return surprises(query, parts, self._index.frequencies)
        return model_surprises(query, parts, model)

    def _source(self, document: Document, place: Place) -> Source:
        return Source(
            document.repository,
            document.path,
            document.language,
            document.licenses,
            place.lines,
            document.copies,
            document.repository in self._opt_out if self._opt_out else None,
            document.commit,
            place.address,
            place.start,
            place.end,
        )

    def _similar(
        self, query: Tokens, hits: Sequence[Hit], documents: Mapping[Address, Tokens], weighed: Weighed
    ) -> Iterator[Similar]:
        """The documents that share most runs of tokens with the query, its boilerplate apart, if it has enough."""
        hashes = query.hashes(_RUN)
        begins = query.view.places[query.starts[: len(hashes)]]
        runs = np.unique(hashes[weighed.holds(begins)])
        if len(runs) < _FEWEST:
            return
        overlaps = [_overlap(runs, documents[hit.address].hashes(_RUN)) for hit in hits]
        for overlap, hit in sorted(zip(overlaps, hits, strict=True), key=lambda pair: -pair[0])[:_SIMILAR]:
            text = documents[hit.address].text
            place = Place(hit.address, 0, len(text), (1, Lines(text).count))
            yield Similar(self._source(self._index.corpus.facts(hit.address), place), hit.score, overlap)


def pieces(text: str, size: int = _PIECE) -> Iterator[str]:
    """The text in pieces of whole lines, of about so many characters; a line that is longer is cut."""
    piece = ""
    for line in text.splitlines(keepends=True):
        if piece and len(piece) + len(line) > size:
            yield piece
            piece = ""
        piece += line
        while len(piece) > 2 * size:
            yield piece[:size]
            piece = piece[size:]
    if piece.strip():
        yield piece


def least(parts: Integers, order: Integers) -> list[int]:
    """The numbers of parts of a text, in their order, without those that hardly say more about it than earlier ones.

    Args:
        parts: Start and end of each, of shape (N, 2).
        order: Numbers of parts, the best first.
    """
    covered = np.zeros(parts.max(initial=0), dtype=bool)
    told = []
    for number, (start, end) in zip(order.tolist(), parts[order].tolist(), strict=True):
        stretch = covered[start:end]
        if np.count_nonzero(stretch) <= (1 - _NEW) * len(stretch):
            stretch[:] = True
            told.append(number)
    return told


def _shortest(places: Sequence[Place]) -> list[Place]:
    """The places of the fewest lines."""
    return sorted(places, key=lambda place: place.lines[1] - place.lines[0])[:_SOURCES]


def _overlap(runs: Hashes, others: Hashes) -> float:
    """Share of some hashes, each of which is there once and in order, that are among others."""
    at = np.searchsorted(runs, others)
    found = at[runs[np.minimum(at, len(runs) - 1)] == others]
    return len(np.unique(found)) / len(runs)
