"""What tracing finds: the shapes that the tracer fills, and that verdict, reports and the page read."""

from dataclasses import dataclass

from starcoder.attribution.corpus import Address


@dataclass(frozen=True)
class Source:
    """A place in the corpus.

    Attributes:
        repository: Its repository.
        path: Its file.
        language: Key of the language table.
        licenses: SPDX ids; all of them apply.
        lines: First and last line there, counted from 1; of a similar document all of its lines.
        copies: Files of the corpus that this one stands for: itself, and its duplicates that were left out.
        opted_out: Whether the repository is on the list that the tracer was given; None without a list.
        commit: Revision of the repository, where known.
        address: Where the document is in the corpus.
        start: Character of the document at which the place begins.
        end: Character behind its last one.
    """

    repository: str
    path: str
    language: str
    licenses: tuple[str, ...]
    lines: tuple[int, int]
    copies: int
    opted_out: bool | None
    commit: str
    address: Address
    start: int
    end: int


@dataclass(frozen=True)
class Match:
    """A part of the text that stands in the corpus, but for white space, letter for letter.

    Attributes:
        start: Its first character in the text.
        end: The character behind its last one.
        lines: Its first and last line in the text, counted from 1.
        tokens: How many tokens of code it has.
        surprise: Sum of −log2 p of its tokens that are no boilerplate, in bits, p being how probable each is in the
            corpus after the one before it; or to a model, where `Tracer.trace` was given its probabilities.
        rarity: 1 in one repository, less the more have it.
        count: Places known, one for each document; with an exact index, how often the corpus has it.
        sources: Some of these places, those of the fewest lines first.
        aside: Why nobody would ask for attribution of it, such as "imports"; empty otherwise.
        to_model: Sum of −log2 p of all tokens in it of the model that wrote it, in bits; None where that is not known.
    """

    start: int
    end: int
    lines: tuple[int, int]
    tokens: int
    surprise: float
    rarity: float
    count: int
    sources: tuple[Source, ...]
    aside: str = ""
    to_model: float | None = None

    @property
    def score(self) -> float:
        """What matches are ranked by, in bits: something long and rare first."""
        return self.surprise * self.rarity


@dataclass(frozen=True)
class Chain:
    """A stretch in which the membership test knows every window.

    Attributes:
        start: Its first character in the text.
        end: The character behind its last one.
        lines: Its first and last line in the text, counted from 1.
        windows: Windows of 50 characters in a row.
    """

    start: int
    end: int
    lines: tuple[int, int]
    windows: int


@dataclass(frozen=True)
class Similar:
    """A document that search finds for the text.

    Attributes:
        source: The document.
        score: Its BM25 score.
        overlap: Share of the text's runs of tokens that the document has, 0 to 1.
    """

    source: Source
    score: float
    overlap: float


@dataclass(frozen=True)
class Trace:
    """Where a text comes from.

    Attributes:
        text: The text.
        tokens: How many tokens of code it has.
        matches: Its parts that stand in the corpus, by score.
        aside: Parts that stand there as well, but as they stand anywhere; in the order of the text.
        chains: What the membership test says, in the order of the text.
        similar: Documents that are like the text, the most similar first.
        scope: Where matches and similar documents were looked for, in words.
    """

    text: str
    tokens: int
    matches: tuple[Match, ...]
    aside: tuple[Match, ...]
    chains: tuple[Chain, ...]
    similar: tuple[Similar, ...]
    scope: str = "the corpus"
