"""SPDX expressions, and what people write instead of them in the metadata of a package (paper §3).

A name is compared as the set of its telling words: "The MIT License (MIT)" and "MIT licence" are both {mit}, and
"3-clause BSD", "BSD (3-Clause)" and "New BSD License" are all {bsd, 3}.
"""

import re
from collections.abc import Iterable
from functools import cache, lru_cache
from typing import Any

import license_expression  # type: ignore[import-untyped]  # it ships no annotations

# A bare "BSD" does not say how many clauses it has: the three-clause licence asks for everything that the two-clause
# one does, so it is the safe reading. A GNU licence without a number may be used under any version of it.
_NAMES = """
0BSD           = bsd 0
AFL-3.0        = afl, afl 3
Apache-1.1     = apache 1.1
Apache-2.0     = apache, apache 2
Artistic-2.0   = artistic 2
BSD-2-Clause   = bsd 2, freebsd
BSD-3-Clause   = bsd, bsd 3, bsd 3 or
BSD-4-Clause   = bsd 4
BSL-1.0        = boost, boost 1
CC0-1.0        = cc 0, cc 0 1, cc 0 1 universal, cc 0 1 universal domain dedication, cc zero, cc 0 domain dedication
CC-BY-4.0      = cc by 4
CC-BY-SA-4.0   = cc by sa 4
CDDL-1.0       = cddl, cddl 1
CNRI-Python    = cnri python
EPL-1.0        = epl 1
EPL-2.0        = epl, epl 2
EUPL-1.1       = eupl 1.1
EUPL-1.2       = eupl, eupl 1.2
ISC            = isc
LGPL-2.0-or-later = lgpl or
MIT            = mit, expat, mit expat, mit x 11
MIT-0          = mit 0, mit no by, mit 0 no by
MPL-1.1        = mpl 1.1
MPL-2.0        = mpl, mpl 2
NCSA           = ncsa, university illinois ncsa
OFL-1.1        = ofl, ofl 1.1
PSF-2.0        = psf, psf 2, python foundation, python foundation psf, python psf, python foundation 2
Python-2.0     = python, python 2
Unlicense      = unlicense
UPL-1.0        = upl, upl 1
W3C            = w 3 c
WTFPL          = wtfpl, wtfpl 2
X11            = x 11
Zlib           = zlib, zlib libpng, libpng zlib
ZPL-2.1        = zpl, zpl 2.1
ZPL-2.0        = zpl 2
LicenseRef-Public-Domain = domain
"""
_GNU = {"gpl": ("1", "2", "3"), "lgpl": ("2", "2.1", "3"), "agpl": ("1", "3")}

_SYNONYMS = {
    **dict.fromkeys(("gnu", "gplv"), "gpl"),
    **dict.fromkeys(("lesser", "library", "lgplv"), "lgpl"),
    **dict.fromkeys(("affero", "agplv"), "agpl"),
    **dict.fromkeys(("new", "modified", "revised", "three"), "3"),
    **dict.fromkeys(("simplified", "two"), "2"),
    **dict.fromkeys(("original", "four"), "4"),
    **dict.fromkeys(("european", "union"), "eupl"),
    **{"asl": "apache", "apachev": "apache", "iscl": "isc", "psfl": "psf", "eclipse": "epl", "zope": "zpl"},
    **{"mozilla": "mpl", "mplv": "mpl", "creative": "cc", "attribution": "by", "sharealike": "sa"},
}
_FILLERS = """
the a this is project license licence licenses licensed released under terms of see file txt md for more details version
ver v clause clauses software open source osi approved general public commons international dual january 2004
"""
_LATER = re.compile(r"\b(?:or|and)\s*(?:\(at your option\)\s*)?(?:any\s+)?(?:later|newer|greater)(?:\s+versions?)?\b")
_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)*|\+")
_OPERATOR = re.compile(r"\s+(and/or|or|and)\s+|\s*([/|&,;])\s*", re.IGNORECASE)
_WITH = re.compile(r"(.+?)\s+with\s+(?:the\s+)?(.+)", re.IGNORECASE)
_ADDRESS = re.compile(
    r"https?://(?:www\.)?(?:(?:opensource|spdx|gnu)\.org|choosealicense\.com|(apache)\.org)/licenses?/"
    r"([\w.-]+?)(?:\.en)?(?:\.html|\.txt|\.php)?/?(?=[\s)>]|$)",
    re.IGNORECASE,
)
_COMMA_BEFORE_NUMBER = re.compile(r",\s*(?=v(?:er(?:sion)?)?\b|v?\d)", re.IGNORECASE)
_COPYRIGHT = re.compile(r"[\s,;.(]*(?:\bcopyright\b|©).*", re.IGNORECASE)
_RESTRICTED = re.compile(
    r"proprietary|commercial|all\s+rights\s+reserved|closed.source|confidential|internal\s+use|\bunlicensed\b"
    r"|commons\s+clause|academic\s+use|research\s+(?:use|only)",
    re.IGNORECASE,
)
_LONGEST_NAME = 200
_LONGEST_EXPRESSION = 50_000
_MOST_PARENTHESES = 200

UNCLEAR = "LicenseRef-unclear-"
"""How an id begins that stands for words which are not understood."""


@cache
def spdx() -> Any:
    """The parser of SPDX expressions, which knows all ids and exceptions."""
    return license_expression.get_spdx_licensing()


@lru_cache(4096)
def parse(expression: str) -> Any:
    """The tree of an expression whose ids are all SPDX's or `LicenseRef-…`, or None for anything else."""
    if len(expression) > _LONGEST_EXPRESSION or expression.count("(") > _MOST_PARENTHESES:
        return None
    try:
        tree = spdx().parse(expression)
    except license_expression.ExpressionError:
        return None
    unknown = () if tree is None else spdx().unknown_license_keys(tree)
    return tree if all(key.startswith("LicenseRef-") for key in unknown) else None


def reference(name: str) -> str:
    """The `LicenseRef-…` id that stands for a licence which SPDX has no id for."""
    return f"LicenseRef-{re.sub('[^A-Za-z0-9.]+', '-', name).strip('-') or 'unnamed'}"


def unclear(words: str) -> str:
    """The `LicenseRef-unclear-…` that stands for a declaration which is not understood, until a text explains it."""
    return reference(f"unclear {words[:80]}")


def join(operator: str, expressions: Iterable[str]) -> str:
    """The expression that joins valid ones, each taken once, by "AND" or "OR"; empty for none."""
    parts = (f"({part})" if " AND " in part or " OR " in part else part for part in dict.fromkeys(expressions))
    joined = f" {operator} ".join(parts)
    return str(parse(joined)) if joined else ""


def resolve(name: str) -> str:
    """Return the SPDX expression that a free-text name of licences means, or nothing when that is not certain.

    Several names may be joined: "or" and "/" are alternatives as in Rust's older manifests, "and", "," and ";" add up.
    A name that reserves rights, such as "Proprietary", becomes a `LicenseRef-…`.
    """
    name = " ".join(name.split())
    if len(name) > _LONGEST_NAME:
        return ""
    tree = parse(name)
    if tree is not None:
        return str(tree)
    name = _ADDRESS.sub(r"\1 \2", name.rpartition("::")[2])
    name = _COMMA_BEFORE_NUMBER.sub(" ", _COPYRIGHT.sub("", name)).strip(" \"'`.,")
    if _RESTRICTED.search(name):
        return reference(name[:80])
    return _single(name) or _with_exception(name) or _several(name)


@cache
def _table() -> dict[frozenset[str], str]:
    table = {}
    for line in _NAMES.strip().splitlines():
        license_id, _, names = line.partition("=")
        table.update({frozenset(name.split()): license_id.strip() for name in names.split(",")})
    for family, versions in _GNU.items():
        table[frozenset({family})] = f"{family.upper()}-{_decimal(versions[0])}-or-later"
        for version in versions:
            table[frozenset({family, version})] = f"{family.upper()}-{_decimal(version)}-only"
            table[frozenset({family, version, "+"})] = f"{family.upper()}-{_decimal(version)}-or-later"
    return table


def _decimal(version: str) -> str:
    return version if "." in version else f"{version}.0"


def _single(name: str) -> str:
    """One licence: by all words of its name, or by the id in parentheses that ends many names."""
    aside = re.search(r"\(([^()]+)\)$", name)
    return _by_words(name) or (_by_words(aside[1]) if aside else "")


def _by_words(name: str) -> str:
    words = {_SYNONYMS.get(word, word) for word in map(_plain, _WORD.findall(_LATER.sub("+", name.lower())))} - set(
        _FILLERS.split()
    )
    if words & {"lgpl", "agpl"}:
        words -= {"gpl"}
    known = _table().get(frozenset(words))
    tree = None if known or not name.strip() else parse(name)
    return known or ("" if tree is None else str(tree))


def _plain(word: str) -> str:
    """A version without the zeros at its end: 2.0 is 2."""
    return re.sub(r"(?:\.0)+$", "", word)


def _with_exception(name: str) -> str:
    """A known exception; any other addition to a known licence may well restrict it."""
    parts = _WITH.fullmatch(name)
    license_id = _single(parts[1]) if parts else ""
    if not parts or not license_id:
        return ""
    exception = re.sub(r"[\s-]+", "-", parts[2].lower()).removesuffix("s")
    tree = parse(f"{license_id} WITH {exception}")
    return "" if tree is None else str(tree)


def _several(name: str) -> str:
    """Names joined by one kind of operator: with two kinds, it is not certain what belongs together."""
    pieces = _OPERATOR.split(name)
    operators = {_operator(piece) for piece in [*pieces[1::3], *pieces[2::3]] if piece}
    if len(operators) != 1 or re.search(r"\([^)]*\s(?:or|and)\s", name, re.IGNORECASE):
        return ""
    ids = [resolve(piece) for piece in pieces[::3]]
    if not all(ids):
        return ""
    return join(operators.pop(), ids)


def _operator(piece: str) -> str:
    return "OR" if piece.lower() in ("or", "and/or", "/", "|") else "AND"
