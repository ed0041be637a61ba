"""Snippets of a corpus with renamed identifiers, and which documents they are verbatim in: the truth of searches."""

import keyword
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

from ahocorasick_rs import AhoCorasick

from starcoder.attribution.corpus import Address, Corpus

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_C = (
    "auto bool break case catch char class const continue default define delete do double else elif endif enum extern "
    "false float for function goto if ifdef ifndef include inline int let long namespace new null operator private "
    "protected public register return short signed sizeof static string struct switch template this throw true try "
    "typedef typename undef union unsigned using var virtual void volatile while"
)
KEYWORDS = frozenset([*keyword.kwlist, *keyword.softkwlist, "self", *_C.split()])
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Snippet:
    """A part of a document.

    Attributes:
        text: Its characters.
        source: The document that it was taken from.
        holders: All documents that it is verbatim in when white space does not count.
    """

    text: str
    source: Address
    holders: frozenset[Address]


def draw(corpus: Corpus, count: int, length: int = 600, seed: int = 0) -> list[Snippet]:
    """Snippets of as many documents, each with a place of its own by chance."""
    random_ = random.Random(seed)
    taken: list[tuple[str, Address]] = []
    for seen, (address, content) in enumerate(
        (address, content) for address, content in _contents(corpus) if len(content) >= length
    ):
        place = len(taken) if seen < count else random_.randrange(seen + 1)
        if place < count:
            start = random_.randrange(len(content) - length + 1)
            taken[place : place + 1] = [(content[start : start + length], address)]
    holders: list[set[Address]] = [set() for _ in taken]
    needles = AhoCorasick([" ".join(text.split()) for text, _ in taken])
    for address, content in _contents(corpus):
        for number, _, _ in needles.find_matches_as_indexes(" ".join(content.split()), overlapping=True):
            holders[number].add(address)
    return [Snippet(text, source, frozenset(found)) for (text, source), found in zip(taken, holders, strict=True)]


def identifiers(texts: Iterable[str]) -> list[str]:
    """The different words of texts that are no keywords, comments and strings included."""
    return sorted({word for text in texts for word in _IDENTIFIER.findall(text)} - KEYWORDS)


def borrowed_names(corpus: Corpus, documents: int = 300) -> list[str]:
    """Identifiers of the corpus: names that people give, and that lead a search astray."""
    return [name for name in identifiers(text for _, text in islice(_contents(corpus), documents)) if len(name) > 2]


def new_names(count: int = 20_000, seed: int = 0) -> list[str]:
    """Names that nobody gave, of four to eight letters."""
    random_ = random.Random(seed)
    return sorted({"".join(random_.choice(_LETTERS) for _ in range(random_.randint(4, 8))) for _ in range(count)})


def rename(text: str, share: float, names: list[str], seed: int) -> str:
    """The text with a share of its different identifiers replaced, each by one of the names."""
    random_ = random.Random(seed)
    own = identifiers([text])
    renamed = {name: random_.choice(names) for name in random_.sample(own, round(share * len(own)))}
    return _IDENTIFIER.sub(lambda match: renamed.get(match[0], match[0]), text)


def _contents(corpus: Corpus) -> Iterable[tuple[Address, str]]:
    for shard in range(len(corpus.shards)):
        for row, document in corpus.documents(shard):
            yield Address(shard, row), document.content
