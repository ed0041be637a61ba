"""From a text to its sources: search proposes documents, in which the text's verbatim spans are found (paper §8).

Each piece of the text is searched for by each of the engine's analysers. In the documents that come of it all maximal
spans of the whole text are found and weighed by surprise × rarity; what is boilerplate of them has no weight. The
overlap with each document tells what is similar where nothing is verbatim; the membership test asks the whole corpus.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from math import log

import numpy as np

from starcoder.attribution.boilerplate import Region, boilerplate
from starcoder.attribution.corpus import Address
from starcoder.attribution.index import Index
from starcoder.attribution.lexer import lex
from starcoder.attribution.search.base import Hit
from starcoder.attribution.spans import TOKENS, Span, find_spans
from starcoder.attribution.squeezed import Lines
from starcoder.attribution.surprise import model_surprises, rarity, surprises
from starcoder.attribution.trace import Chain, Match, Similar, Source, Trace
from starcoder.corpus.optout import OptOut
from starcoder.errors import UserError

LONGEST = 200_000
"""Characters of a text that is traced."""
_PIECE = 1500  # characters that documents are proposed for together: a copy in a long text is not drowned by the rest
_SOURCES = 10
_SIMILAR = 5
_WORD = re.compile(r"\w")
_RUN = 3  # tokens of the runs that overlap counts
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
        hits = self._propose(text)
        addresses = [hit.address for hit in hits]
        contents = dict(zip(addresses, self._index.search.texts(addresses), strict=True))
        lines = Lines(text)
        matches = sorted(self._matches(text, lines, contents, model), key=lambda match: (-match.score, match.start))
        return Trace(
            text,
            len(lex(text)),
            tuple(_least([match for match in matches if not match.aside])),
            tuple(sorted((match for match in matches if match.aside), key=lambda match: match.start)),
            tuple(
                Chain(chain.start, chain.end, lines.of(chain.start, chain.end), chain.windows)
                for chain in sorted(self._index.membership.chains(text), key=lambda chain: chain.start)
            ),
            tuple(self._similar(text, hits, contents)),
        )

    def _propose(self, text: str) -> list[Hit]:
        """Documents that may hold parts of the text, each once with its best score, the best first."""
        search = self._index.search
        best: dict[Address, Hit] = {}
        for piece in pieces(text):
            for analyzer in search.analyzers:
                for hit in search.find(piece, self._k, analyzer=analyzer, **self._filter):
                    if hit.address not in best or hit.score > best[hit.address].score:
                        best[hit.address] = hit
        return sorted(best.values(), key=lambda hit: -hit.score)

    def _matches(
        self,
        text: str,
        lines: Lines,
        contents: Mapping[Address, str],
        model: Sequence[tuple[int, int, float]] | None,
    ) -> Iterator[Match]:
        """Every verbatim span with its sources, the places of the fewest lines first."""
        spans = self._spans(text, contents)
        regions = boilerplate(text)
        parts = [_outside(text, span, regions) for span in spans]
        every = [part for own in parts for part in own]
        nats = iter(surprises(text, every, self._index.frequencies) if model is None else model_surprises(every, model))
        for span, own in zip(spans, parts, strict=True):
            weighed = sum(len(lex(part.text)) for part in own)
            sources = [self._source(place.address, *place[1:]) for place in span.places]
            repositories = len({source.repository for source in sources})
            yield Match(
                span.start,
                span.end,
                lines.of(span.start, span.end),
                len(lex(span.text)),
                sum(islice(nats, len(own))) / log(2),
                rarity(repositories),
                span.count,
                tuple(sorted(sources, key=lambda source: source.lines[1] - source.lines[0])[:_SOURCES]),
                _reason(span, regions) if weighed < TOKENS else "",
            )

    def _spans(self, text: str, contents: Mapping[Address, str]) -> list[Span]:
        """The spans in the proposed documents; in the whole corpus with suffix arrays, unless a filter is set."""
        suffixes = self._index.suffixes
        if suffixes is None or any(self._filter.values()):
            return find_spans(text, contents.items())
        return suffixes.find(text)

    def _source(self, address: Address, start: int, end: int, lines: tuple[int, int]) -> Source:
        document = self._index.corpus.facts(address)
        return Source(
            document.repository,
            document.path,
            document.language,
            document.licenses,
            lines,
            document.copies,
            document.repository in self._opt_out if self._opt_out else None,
            document.commit,
            address,
            start,
            end,
        )

    def _similar(self, text: str, hits: Sequence[Hit], contents: Mapping[Address, str]) -> list[Similar]:
        """The documents that share most runs of tokens with the text."""
        runs = np.unique(lex(text).hashes(_RUN))
        if not len(runs):
            return []
        overlaps = [np.isin(runs, lex(contents[hit.address]).hashes(_RUN)).mean() for hit in hits]
        best = sorted(zip(overlaps, hits, strict=True), key=lambda pair: -pair[0])[:_SIMILAR]
        return [
            Similar(self._source(hit.address, 0, len(content), (1, Lines(content).count)), hit.score, float(overlap))
            for overlap, hit in best
            for content in [contents[hit.address]]
        ]


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


def _outside(text: str, span: Span, regions: Sequence[Region]) -> list[Span]:
    """The parts of a span that are no boilerplate, and not signs alone, such as rules of dashes: they are weighed."""
    parts, reached = [], span.start
    for start, end in [*((region.start, region.end) for region in regions), (span.end, span.end)]:
        if reached < min(start, span.end) and _WORD.search(text, reached, min(start, span.end)):
            part = reached, min(start, span.end)
            parts.append(Span(*part, text[slice(*part)], (), 0))
        reached = max(reached, end)
    return parts


def _reason(span: Span, regions: Sequence[Region]) -> str:
    """What most of a span is that is not weighed, rules apart."""
    worded = [region for region in regions if region.reason != "no words"]
    shares = [(min(region.end, span.end) - max(region.start, span.start), region.reason) for region in worded]
    return max(((share, reason) for share, reason in shares if share > 0), default=(0, "no words"))[1]


def _least(matches: Sequence[Match]) -> Iterator[Match]:
    """The matches, best first, without those that hardly say more about the text than better ones do."""
    covered = np.zeros(max((match.end for match in matches), default=0), dtype=bool)
    for match in matches:
        stretch = covered[match.start : match.end]
        if (~stretch).mean() >= _NEW:
            stretch[:] = True
            yield match
