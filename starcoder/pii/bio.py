"""BIO tags (paper §4.2): which token begins an entity, is inside of one, or outside of all.

    text         # Ada  Lovelace  <ada@  lovelace.org>
    fragments      ╰────NAME───╯   ╰─────EMAIL─────╯
    tags         O B-   I-       O B- I- I-      I- I- O

Shapes: T tokens.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import tokenizers
from numpy.typing import NDArray

from starcoder.pii.entity import Entity

TAGGED = ("NAME", "EMAIL", "EMAIL_EXAMPLE", "USERNAME", "KEY", "IP_ADDRESS", "PASSWORD")
"""What the tagger learns, in the order of the paper's tags; other categories have no part in the loss."""

TAGS = ("O", *(f"{place}-{label}" for label in TAGGED for place in "BI"))

IGNORED = -100
"""Tag of a token that has no part in the loss; torch's own."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_IN_WORD = re.compile(r"[\w.-]")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A text as a model reads it.

    Attributes:
        ids: Token ids, int64 of shape (T,).
        starts: Place of each token's first character in the text; tokens that share a character share its place.
        ends: Place after its last one.
        words: Number of the word that it is a part of: a run of letters, digits, `_`, `-` and `.`, or whatever
            else a token holds.
    """

    ids: NDArray[np.int64]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    words: NDArray[np.int64]


def encode(tokenizer: tokenizers.Tokenizer, text: str) -> Tokens:
    """Tokens of any text, none of them special; a lone surrogate, which no token has, is read as U+FFFD."""
    encoding = tokenizer.encode(_SURROGATE.sub("\ufffd", text), add_special_tokens=False)
    places = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
    return Tokens(np.array(encoding.ids, dtype=np.int64), places[:, 0], places[:, 1], _words(text, encoding.offsets))


def _words(text: str, places: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Number of the word of each token (T,); a word begins where not both sides of a token's start are in one."""
    begins = [
        start >= end and not (_IN_WORD.match(text, start - 1) and _IN_WORD.match(text, start))
        for (_, end), (start, _) in pairwise(places)
    ]
    return np.cumsum([0, *begins], dtype=np.int64)[: len(places)]


def tag(tokens: Tokens, fragments: Iterable[Entity]) -> NDArray[np.int64]:
    """The tag of every token (T,): its number in `TAGS`, or `IGNORED` where one cannot say, or need not.

    A token belongs to a fragment when they share a character; where two fragments share a token, to the later one.
    """
    tags = np.zeros(len(tokens.ids), dtype=np.int64)
    for fragment in sorted(fragments):
        first = int(np.searchsorted(tokens.ends, fragment.start, side="right"))
        last = int(np.searchsorted(tokens.starts, fragment.end, side="left"))
        label = fragment.label.removesuffix("_LICENSE")
        if label not in TAGGED:
            tags[first:last] = IGNORED
        elif first < last:
            tags[first], tags[first + 1 : last] = TAGS.index(f"B-{label}"), TAGS.index(f"I-{label}")
    return tags


def chunks(length: int, size: int, offset: int = 0) -> Iterator[slice]:
    """Cut `length` tokens into chunks of `size` that do not overlap; the first may be the rest of `offset` tokens."""
    for start in range(-(-offset % size), length, size):
        if (part := slice(max(0, start), min(start + size, length))).start < part.stop:
            yield part
