"""What stands in many files and is nobody's to attribute: such spans are set aside, with the reason (paper §8).

The parts of a span that are outside of boilerplate are weighed; it is set aside when they have fewer tokens than the
shortest span. What is boilerplate is read from the whole text, so that a span that begins in the middle of a licence
header is known as one.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from starcoder.attribution.lexer import Tokens
from starcoder.attribution.spans import TOKENS, Integers
from starcoder.attribution.squeezed import characters, code_points
from starcoder.corpus.license_notices import foreign_notice, spdx_tags

_LONGEST = 1000

Floats = NDArray[np.float64]
Reason = Literal["licence", "generated", "first line", "imports", "data", "no words"]

_COMMENT = re.compile(
    r"[ \t]*(?:#+(?!!|[ \t]*include\b)|//+|/\*+|\*+/?|--+|;+|%+|<!--|\"\"\"|'''|dnl\b|rem\b)", re.IGNORECASE
)
# Words of the copyright line, and of each paragraph of the licences that headers quote.
_LICENCE = re.compile(
    r"\bcopyright\b.{0,80}?(?:\d{4}|\(c\)|©)|(?:\(c\)|©) *(?:copyright )?\d{4}|\ball rights reserved\b"
    r"|\blicen[cs]ed under\b|\bunder the terms of\b|\b(?:mit|bsd|apache|isc|mozilla public|boost software) licen[cs]e\b"
    r"|\bpermission is hereby granted\b|\bpermission to use, copy, modify\b|\babove copyright notice\b"
    r"|\bredistributions? (?:and use in|of source code|in binary form)\b|\bneither the names? of\b"
    r"|\b(?:software|library|program|file) is (?:provided|distributed)\b[^.]{0,80}?\b(?:as is|warranty|hope)\b"
    r"|\bunless required by applicable law\b|\byou may (?:not use this file|obtain a copy of the licen[cs]e)\b"
    r"|\bwithout (?:any )?warrant(?:y|ies)\b|\bin no event shall\b|\bshould have received a copy of\b"
    r"|\bsee (?:the )?(?:accompanying )?(?:file )?licen[cs]e\b",
    re.IGNORECASE,
)
# What prose that no comment sign marks, such as a docstring, does not have.
_CODE = re.compile(r"[={}\[\]]|\w\(")
_GENERATED = re.compile(
    r"\bauto-?(?:matically )?generated\b|@generated\b|\bgenerated (?:by|from|with|using)\b|\bdo not (?:edit|modify)\b",
    re.IGNORECASE,
)
_FIRST_LINE = re.compile(
    r"#!.*|[ \t]*#.*\bcoding[:=].*|<\?xml\b.*|<!doctype\b.*|<\?php|[ \t]*(?:\"use strict\"|'use strict');?"
    r"|[ \t]*#[ \t]*pragma once\b.*|.*\b(?:vim?|ex):[ \t]*(?:set\b|\w+=).*|.*-\*-.*-\*-.*",
    re.IGNORECASE,
)
# One statement of Python, C, C#, Java, Go, Rust, JavaScript, PHP, Ruby, Perl, Haskell, R, Lua, CSS or a shell; those
# that open a bracket go on to where it closes.
_IMPORTS = re.compile(
    r"""^[ \t]*+(?:
        (?:from[ \t]++[\w.]++[ \t]++)?+import[ \t]*+(?:
            \([^()]*+\)
            | (?:type[ \t]++)?+(?:[\w$*, \t]*+\{[^{}]*+\}|\*[ \t]*+as[ \t]++\w++|[\w$]++)
                [ \t]*+from[ \t]*+["'][^"'\n]*+["'].*
            | ["'][^"'\n]*+["'].*
            | (?:static[ \t]++|qualified[ \t]++)?+\w[\w.*, \t\\]*+(?:\([^()\n]*+\))?+;?+[ \t]*+(?:(?:\#|//|--).*)?+$
        )
        | \#[ \t]*+(?:include|import)[ \t]*+[<"].*
        | (?:global[ \t]++)?+using[ \t]++(?:static[ \t]++|namespace[ \t]++)?+[\w.:=<> \t]++;[ \t]*+$
        | (?:pub[ \t]++)?+(?:use|mod|extern[ \t]++crate)[ \t]++[\w:\\]++[^;()=]{0,1000}+;.*
        | (?:package|namespace)[ \t]++[\w.\\]++[ \t]*+;?+[ \t]*+$
        | (?:const|let|var|local)[ \t]++(?:\{[^{}=;]*+\}|[\w$]++)[ \t]*+=[ \t]*+require[ \t]*+[(]?+["'][^"'\n]*+["'].*
        | (?:require|require_relative|require_once|include_once|library|source|load)
            [ \t]*+[(]?+["']?+[\w./:-]++["']?+[)]?+;?+[ \t]*+$
        | @(?:import|use)[ \t]++.*
    )""",
    re.MULTILINE | re.VERBOSE,
)
_NUMBER = r"[-+]?+(?:0[xX][\da-fA-F]++|\d[\d_.]*+(?:[eE][-+]?+\d++)?+)[uUlLfF]*+(?!\w)"
_GAP = r"[\s,;:|\[\](){}\"']"
_DATA = re.compile(rf"(?<![\w.]){_NUMBER}(?:{_GAP}++{_NUMBER}){{7,}}+{_GAP}*+")

_RULE = re.compile(r"([^\w\s])\1{9,}+")


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a text that is boilerplate.

    Attributes:
        start: Its first character.
        end: Behind its last one.
        reason: What it is.
    """

    start: int
    end: int
    reason: Reason


class Weighed:
    """What of a text is weighed: what is no boilerplate, nor signs alone, such as brackets between two imports.

    Args:
        text: Its tokens.
    """

    def __init__(self, text: Tokens) -> None:
        self._text, self._regions = text, boilerplate(text.text)
        self._starts = [region.start for region in self._regions]
        self._reached = list(accumulate((region.end for region in self._regions), max))
        size = len(text.text)
        between = [(a, b) for a, b in zip([0, *self._reached], [*self._starts, size], strict=True) if a < b]
        self._between = np.array([*between, (size, size)])
        self._words = np.append(0, np.cumsum(characters(r"\w")[code_points(text.text)]))

    def total(self, parts: Integers, value: Callable[[Integers], NDArray[Any]]) -> Floats:
        """For each part of the text, the sum of a value over the stretches of it that are weighed.

        Args:
            parts: Start and end of each, of shape (N, 2).
            value: That of some stretches, each of which has a word: their starts and ends, (M, 2), to shape (M,).

        Returns:
            Of shape (N,).
        """
        first = np.searchsorted(self._between[:, 1], parts[:, 0], side="right")
        last = np.searchsorted(self._between[:, 0], parts[:, 1]) - 1
        sums = np.append(0, np.cumsum(self._valued(self._between, value)))
        inner = sums[last] - sums[np.minimum(first + 1, len(self._between))]
        one, other = (self._valued(self._cut(parts, at), value) for at in (first, last))
        return one + np.where(first < last, inner + other, 0)

    def aside(self, parts: Integers) -> NDArray[np.bool_]:
        """Whether so little of each is weighed, fewer tokens than the shortest span has, that it is set aside."""
        return self.total(parts, lambda weighed: self._text.within(weighed) @ (-1, 1)) < TOKENS

    def holds(self, places: Integers) -> NDArray[np.bool_]:
        """Whether each character of the text, of shape (N,), is in a stretch that is weighed."""
        at = np.searchsorted(self._between[:, 1], places, side="right")
        held: NDArray[np.bool_] = self._between[at, 0] <= places
        return held

    def reason(self, start: int, end: int) -> Reason:
        """What a part is that is set aside: what the longest stretch of boilerplate in it is, rules apart."""
        regions = self._regions[bisect_right(self._reached, start) : bisect_left(self._starts, end)]
        worded = [region for region in regions if region.reason != "no words"]
        shares = [(min(region.end, end) - max(region.start, start), region.reason) for region in worded]
        return max((share for share in shares if share[0] > 0), default=(0, "no words"))[1]

    def _cut(self, parts: Integers, at: Integers) -> Integers:
        """What the stretches of some numbers have in common with each part."""
        stretches = self._between[np.minimum(at, len(self._between) - 1)]
        return np.stack((np.maximum(parts[:, 0], stretches[:, 0]), np.minimum(parts[:, 1], stretches[:, 1])), 1)

    def _valued(self, stretches: Integers, value: Callable[[Integers], NDArray[Any]]) -> Floats:
        worded = self._words[stretches[:, 1]] > self._words[stretches[:, 0]]
        found = np.zeros(len(stretches))
        found[worded] = value(stretches[worded])
        return found


def boilerplate(text: str) -> list[Region]:
    """The parts of a text that are boilerplate, by their starts; they may overlap.

    Licences and copyright notices (comments by the paragraph), banners of generated code (comments by the line), first
    lines and modelines, imports, lists of at least 8 numbers, and rules of at least 10 equal signs, such as dashes.
    """
    found = [Region(*match.span(), "imports") for match in _IMPORTS.finditer(text)]
    found += [Region(*match.span(), "data") for match in _DATA.finditer(text)]
    found += [Region(*match.span(), "no words") for match in _RULE.finditer(text)]
    for start, end in _paragraphs(text):
        if _is_licence(text[start:end]):
            found.append(Region(start, end, "licence"))
    for start, end in _lines(text):
        line = text[start:end]
        if len(line) > _LONGEST:
            continue
        if _COMMENT.match(line) and _GENERATED.search(line):
            found.append(Region(start, end, "generated"))
        elif _FIRST_LINE.fullmatch(line):
            found.append(Region(start, end, "first line"))
    return sorted(found, key=lambda region: (region.start, region.end))


def _has_words(text: str) -> bool:
    return re.search(r"\w", text) is not None


def _is_licence(paragraph: str) -> bool:
    lines = paragraph.split("\n")
    bare = [_COMMENT.sub("", line, count=1) for line in lines]
    prose = " ".join(" ".join(bare).split())
    if not all(map(_COMMENT.match, lines)):
        return not _CODE.search(paragraph) and bool(_LICENCE.search(prose))
    return bool(_LICENCE.search(prose) or spdx_tags(paragraph) or foreign_notice(prose))


def _paragraphs(text: str) -> Iterator[tuple[int, int]]:
    """Runs of lines that are all comments, or all not, between lines without words."""
    start = end = 0
    kind: bool | None = None
    for first, last in _lines(text):
        line = text[first:last]
        now = bool(_COMMENT.match(line)) if _has_words(line) else None
        if now != kind:
            if kind is not None:
                yield start, end
            start, kind = first, now
        end = last
    if kind is not None:
        yield start, end


def _lines(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for line in text.split("\n"):
        yield start, start + len(line)
        start += len(line) + 1
