"""Which side of the split a thing is on: a detector is measured on names, words and repositories it has never seen."""

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Literal

Split = Literal["train", "test"]

_TEST_TENTHS = 3


def listed(text: str) -> tuple[str, ...]:
    """The items of a table whose items are separated by | and whose lines may start with blanks."""
    return tuple(item.strip(" \n") for item in text.split("|"))


def fold(text: str) -> str:
    """`text` in lower case and without accents, so that "José" and "jose" are one."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(character for character in plain if not unicodedata.combining(character))


def side(text: str) -> Split:
    """The split that `text`, a repository or a word, belongs to: three in ten are for testing."""
    return "test" if hashlib.sha256(fold(text).encode()).digest()[0] % 10 < _TEST_TENTHS else "train"


def share(texts: Iterable[str], split: Split) -> tuple[str, ...]:
    """Those on the side of `split`, sorted, each once."""
    return tuple(sorted({text for text in texts if side(text) == split}))
