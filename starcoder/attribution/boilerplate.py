"""What stands in many files and is nobody's to attribute: such spans are set aside, with the reason (paper §8).

A span is set aside when no letter or digit of it is outside of boilerplate. What is boilerplate is read from the whole
text, so that a span that begins in the middle of a licence header is known as one.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from starcoder.attribution.spans import Span
from starcoder.corpus.license_notices import foreign_notice, spdx_tags

_LONGEST = 1000

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


def set_aside(text: str, spans: Iterable[Span]) -> list[Reason | None]:
    """For each span of a text why it is boilerplate, or None."""
    regions = boilerplate(text)
    return [_reason(text, span, regions) for span in spans]


def _reason(text: str, span: Span, regions: Iterable[Region]) -> Reason | None:
    """The reason of most of a span, if boilerplate has all of its letters and digits."""
    shares: dict[Reason, int] = {}
    reached = span.start
    for region in regions:
        start, end = max(region.start, span.start), min(region.end, span.end)
        if start < end:
            if _has_words(text[reached:start]):
                return None
            reached = max(reached, end)
            shares[region.reason] = shares.get(region.reason, 0) + end - start
    if not shares or _has_words(text[reached : span.end]):
        return None
    return max(shares, key=lambda reason: shares[reason])


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
