"""Decontamination (paper §5.1): a file that holds a string of a benchmark is left out.

Two rules, both applied. The paper's: the string occurs in the file, whatever the case. Ours for copies with another
layout: of the string's windows of 13 consecutive words, lower-cased, a share of at least `SHARE` occur in the file;
indentation, line breaks, comment signs, punctuation and the escapes of JSON and string literals do not matter for it.
Windows that several problems have in common are boilerplate (imports, test harnesses) and do not count.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from ahocorasick_rs import AhoCorasick

from starcoder.corpus.benchmarks import NGRAM, BenchmarkString, BenchmarkStrings
from starcoder.corpus.document import Document, Rejection

# Of 104,138 files of installed software none reaches more than 0.17; HumanEval's docstrings of which the examples are
# cut off are found in 86 % of all cases, against 65 % at 0.5.
SHARE = 0.3
COMMON = 10  # problems; more than a problem has variants, less than use one harness
_EXCERPT = 80
_SIEVE_BITS = 24  # 16 MB; of an unrelated text's n-grams 4 % pass it

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Match:
    """A benchmark string that was found in a text.

    Attributes:
        origin: What was found, such as "HumanEval/17 docstring".
        how: "substring", or "13-gram share 0.82".
        excerpt: Where it was found: the beginning of what matches, on one line.
    """

    origin: str
    how: str
    excerpt: str


class Decontaminator:
    """Looks for benchmark strings in texts. Pickles as the strings alone; a process builds its index at first use."""

    def __init__(self, benchmarks: BenchmarkStrings) -> None:
        self.benchmarks = benchmarks

    def __reduce__(self) -> tuple[type["Decontaminator"], tuple[BenchmarkStrings]]:
        return Decontaminator, (self.benchmarks,)

    def reject_reason(self, document: Document) -> Rejection | None:
        """Why to leave `document` out: the benchmark string that it holds; None when it holds none."""
        match = self.find(document.content)
        return Rejection("benchmark content", f"{match.origin}, {match.how}: {match.excerpt}") if match else None

    def find(self, text: str) -> Match | None:
        """Return a benchmark string that `text` holds: the first substring, else what has the largest share."""
        return self._substring(text) or self._overlap(text) if self.benchmarks.strings else None

    @cached_property
    def _automaton(self) -> AhoCorasick:
        return AhoCorasick([_fold(string.text) for string in self.benchmarks.strings])

    @cached_property
    def _index(self) -> "_Index":
        return _Index(self.benchmarks.strings)

    def _substring(self, text: str) -> Match | None:
        folded = _fold(text)
        found = self._automaton.find_matches_as_indexes(folded)
        if not found:
            return None
        string, start, end = found[0]
        return Match(self.benchmarks.strings[string].origin, "substring", _one_line(folded[start:end]))

    def _overlap(self, text: str) -> Match | None:
        found = self._index.best(ngram_hashes(text))
        if not found or found[1] < SHARE:
            return None
        string, share, place = found
        origin = self.benchmarks.strings[string].origin
        return Match(origin, f"{NGRAM}-gram share {share:.2f}", _one_line(_ngram(text, place)))


class _Index:
    """The distinctive n-grams of each string, and the strings of each n-gram.

    Attributes:
        sizes: How many distinctive n-grams each string has.
    """

    def __init__(self, strings: Sequence[BenchmarkString]) -> None:
        grams = [_telling(string.text) for string in strings]
        owners = np.repeat(np.arange(len(strings)), [len(own) for own in grams])
        hashes = np.concatenate(grams)
        order = np.lexsort((owners, hashes))
        owners, hashes = owners[order], hashes[order]
        _, problems = np.unique([string.problem for string in strings], return_inverse=True)
        kept = _distinctive(hashes, problems[owners])
        kept[1:] &= (hashes[1:] != hashes[:-1]) | (owners[1:] != owners[:-1])  # once, where a string repeats it
        self._owners = owners[kept]
        self.sizes = np.bincount(self._owners, minlength=len(strings))
        self._hashes, first = np.unique(hashes[kept], return_index=True)
        self._first = np.append(first, len(self._owners))
        self._sieve = np.zeros(2**_SIEVE_BITS, bool)
        self._sieve[_high_bits(self._hashes)] = True

    def best(self, hashes: Hashes) -> tuple[int, float, int] | None:
        """The string with the largest share of its n-grams among `hashes`, the share, and the place of the first."""
        places = np.flatnonzero(self._sieve.take(_high_bits(hashes)))
        grams = np.searchsorted(self._hashes, hashes[places])
        there = self._hashes[np.minimum(grams, len(self._hashes) - 1)] == hashes[places]
        if not there.any():
            return None
        grams, first = np.unique(grams[there], return_index=True)
        places = places[there][first]
        owners = [self._owners[self._first[gram] : self._first[gram + 1]] for gram in grams]
        counts = np.bincount(np.concatenate(owners), minlength=len(self.sizes))
        shares = counts / np.maximum(self.sizes, 1)
        string = int(shares.argmax())
        mine = [place for place, own in zip(places, owners, strict=True) if string in own]
        return string, float(shares[string]), int(min(mine))


def _telling(text: str) -> Hashes:
    """The n-grams of `text` most of whose words have a letter, as tables of numbers resemble each other; else all."""
    letters, _ = _letters(text)
    hashes = _window_hashes(letters)
    words = np.flatnonzero(letters == _BREAK)[:-1]
    worded = np.concatenate([[0], np.logical_or.reduceat(letters >= ord("a"), words).cumsum()])
    telling = worded[NGRAM:] - worded[:-NGRAM] > NGRAM // 2
    return hashes[telling] if telling.any() else hashes


def _high_bits(hashes: Hashes) -> npt.NDArray[np.int64]:
    return (hashes >> np.uint64(64 - _SIEVE_BITS)).view(np.int64)


def _distinctive(hashes: Hashes, problems: Places) -> npt.NDArray[np.bool_]:
    """Which of `hashes`, each of the problem of that number, occur in at most `COMMON` problems."""
    _, gram = np.unique(hashes, return_inverse=True)
    count = problems.max(initial=0) + 1
    pairs = np.unique(gram * count + problems)
    return np.asarray((np.bincount(pairs // count) <= COMMON)[gram])


# The hash of an n-gram is the polynomial of its letters and breaks in an odd number modulo 2^64: the prefix sums of a
# text give all its hashes at once. They are made for a block of the text at a time, which stays in the cache.
_BREAK = 0
_WORD_BYTES = b"abcdefghijklmnopqrstuvwxyz0123456789_"
_FOLDED = bytes(low if (low := bytes([byte]).lower()[0]) in _WORD_BYTES else _BREAK for byte in range(256))
_VALUES = np.random.default_rng(0).integers(2**64, size=256, dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15
_BLOCK = 2**15
_LONGEST = 2**10  # bytes; of a longer n-gram the beginning is hashed


def _powers(base: int) -> Hashes:
    return np.multiply.accumulate(np.full(_BLOCK + _LONGEST, base, np.uint64))


_POWERS = _powers(_BASE)
_INVERSES = _powers(pow(_BASE, -1, 2**64))
_ZERO = np.zeros(1, np.uint64)


def ngram_hashes(text: str) -> Hashes:
    """Return the hashes of the windows of 13 words in `text`, in their order; empty for fewer words."""
    return _window_hashes(_letters(text)[0])


def _window_hashes(letters: Bytes) -> Hashes:
    breaks = np.flatnonzero(letters == _BREAK)
    starts = breaks[:-NGRAM]
    ends = np.minimum(breaks[NGRAM:], starts + _LONGEST)
    hashes = np.empty(len(starts), np.uint64)
    for block in range(0, len(letters), _BLOCK):
        values = _VALUES.take(letters[block : block + _BLOCK + _LONGEST])
        values *= _POWERS[: len(values)]
        sums = np.concatenate([_ZERO, values.cumsum()])
        here = slice(*starts.searchsorted((block, block + _BLOCK)))
        at = starts[here] - block
        hashes[here] = (sums.take(ends[here] - block) - sums.take(at)) * _INVERSES.take(at)
    return hashes


def _letters(text: str) -> tuple[Bytes, npt.NDArray[np.bool_]]:
    """The words of `text`, a break before each and after the last; and which they are of its UTF-8 bytes.

    The bytes are taken with one more before the first and after the last.
    """
    data = text.encode(errors="surrogatepass")
    folded = np.frombuffer(bytearray(b"\0%b\0" % data.translate(_FOLDED)), np.uint8)
    if b"\\" in data:
        _break_escapes(folded, np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\\")) + 2)
    keep = folded != _BREAK
    keep[:-1] |= keep[1:]
    keep[-1] = True
    return folded[keep], keep


def _break_escapes(folded: Bytes, places: Places) -> None:
    r"""Turn the letters of \n, \r, \t and \u1234 into breaks; `places` are those after a backslash."""
    kinds = folded[places]
    folded[places[(kinds == ord("n")) | (kinds == ord("r")) | (kinds == ord("t"))]] = _BREAK
    unicode = places[kinds == ord("u")]
    for offset in range(5):
        folded[np.minimum(unicode + offset, len(folded) - 1)] = _BREAK


def _ngram(text: str, place: int) -> str:
    """The part of `text` that its `place`-th n-gram is made of."""
    letters, keep = _letters(text)
    breaks = np.flatnonzero(keep)[letters == _BREAK]
    return text.encode(errors="surrogatepass")[breaks[place] : breaks[place + NGRAM] - 1].decode(errors="replace")


def _fold(text: str) -> str:
    """Lower-case, with the line ends of Unix."""
    return text.lower().replace("\r\n", "\n")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_EXCERPT]
