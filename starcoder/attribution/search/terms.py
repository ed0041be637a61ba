"""What of a text is searched for: character 3-grams, as in the paper (§8), or code tokens.

Both are cut from one view of the text: lower case, ASCII instead of accents, every run of white space one blank. So a
query never differs from a document by its case or indentation, and the 3-grams of long indentations cost nothing.

A code token is a run of letters, digits and `_`, or a run of other characters such as `():`. Of the ways to cut that
were measured this one finds most code whose identifiers were renamed: names of another's choice are no longer found,
yet runs of operators, keywords, numbers and strings stay. Parts of identifiers besides whole ones made it worse.
"""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tantivy import TextAnalyzer

GRAM = 3
_BLANK, _WORD, _OTHER = range(3)
_KINDS = np.array(
    [
        _BLANK if byte == ord(" ") else _WORD if byte >= 128 or chr(byte).isalnum() or chr(byte) == "_" else _OTHER
        for byte in range(256)
    ],
    dtype=np.uint8,
)
"""What each byte of UTF-8 is; letters beyond ASCII are of words."""


def plain(text: str) -> str:
    """The view of a text that terms are cut from; what cannot be written as UTF-8 becomes `?`."""
    lower = " ".join(text.lower().split())
    if lower.isascii():
        return lower
    (folded,) = _folder().analyze(lower.encode(errors="replace").decode())
    # Folding makes some signs several characters, of which some are capitals or blanks.
    return " ".join(folded.lower().split())


def spaced(view: str) -> str:
    """A plain view with a blank between any two code tokens."""
    bytes_ = np.frombuffer(view.encode(), dtype=np.uint8)
    kinds = _KINDS[bytes_]
    breaks = np.zeros(len(bytes_), dtype=np.int64)
    breaks[1:] = (kinds[1:] != kinds[:-1]) & (kinds[1:] != _BLANK) & (kinds[:-1] != _BLANK)
    places = np.arange(len(bytes_)) + np.cumsum(breaks)
    apart = np.full(len(bytes_) + int(breaks.sum()), ord(" "), dtype=np.uint8)
    apart[places] = bytes_
    return apart.tobytes().decode()


def trigrams(text: str) -> set[str]:
    """The different 3-grams of a text; none of one of fewer characters."""
    view = plain(text)
    return {view[start : start + GRAM] for start in range(len(view) - GRAM + 1)}


def tokens(text: str) -> set[str]:
    """The different code tokens of a text."""
    return set(spaced(plain(text)).split())


@cache
def _folder() -> "TextAnalyzer":
    from tantivy import Filter, TextAnalyzerBuilder, Tokenizer

    return TextAnalyzerBuilder(Tokenizer.raw()).filter(Filter.ascii_fold()).build()
