"""What the head of a file says about its own licence: SPDX tags, and notices of licences that are not permissive (§3).

A notice counts wherever its line breaks fall and however its lines are commented out. The full name of a licence is a
notice; an abbreviation such as "GPL" is one after "licensed under" and the like, or on a line of its own, so that prose
that only mentions it is none. A choice of a permissive licence, as in "MIT or GPL", is none either.
"""

import re

HEAD = 3000
"""Characters at the beginning of a file where its own licence is looked for."""

_TAG = re.compile(r"SPDX-License-Identifier:[ \t]*([^\n*]+)")
# A line break with what comments out the line after it: * // # -- ; % ! .\" dnl REM, and the C of Fortran.
_LINE_BREAK = re.compile(r"\n\W*(?:(?:dnl|rem|c)[ \t]\W*)?", re.IGNORECASE)

_NAME = (
    r"(?:GNU(?: \W?\w+\W?){0,3}? General Public\b|General Public Licen[cs]e"
    r"|(?:Mozilla|Eclipse|Common|Netscape|Apple|Server[- ]Side|Reciprocal|European Union) Public (?:Source )?Licen[cs]e"
    r"|Common Development (?:and|&) Distribution Licen[cs]e|Business Source Licen[cs]e|Commons Clause"
    r"|Elastic Licen[cs]e|PolyForm [A-Z]\w+|Microsoft (?:Reciprocal|Limited Public) Licen[cs]e|Open Software Licen[cs]e"
    r"|Attribution[- ](?:Non-?Commercial|Share-?Alike|No-?Deriv)\w*|creativecommons\.org/licenses/by-(?:nc|sa|nd)"
    r"|same terms as Perl)"
)
_SHORT = (
    r"(?-i:(?:[AL]?GPL|CC[- ]BY[- ](?:NC|SA|ND)|BUSL|BSL[- ]1\.1|SSPL|CDDL|EUPL|MPL|EPL|OSL|M[Ss]-?RL)"
    r"(?:v\d[\w.]*)?(?![A-Za-z_]|-compat))"
)
_BETWEEN = r"(?:(?:the|terms|of|and|conditions|an?|either|both|version|v?\d[\d.]*|GNU|this|licen[cs]e|as|is)\W+){0,8}"
_NOTICE = re.compile(
    rf"{_NAME}|(?<!originally released )\b(?:under|by|licen[cs]ed?(?:__)?)\b\W{{0,6}}{_BETWEEN}{_SHORT}"
    r"|NOTICE TO (?:LICENSEE|USER)|proprietary rights|strictly prohibited",
    re.IGNORECASE,
)
_ALONE = re.compile(
    rf"^[ \t]*(?:#+|//+|/?\*+|--+|;+|%+|dnl)[ \t]*{_SHORT}(?:[- ]v?\d[\d.]*)?(?:\+|-only|-or-later)?(?: licen[cs]e)?"
    r"[ \t.]*(?:\*/)?[ \t\r]*$",
    re.IGNORECASE | re.MULTILINE,
)
_FREE = r"(?-i:MIT|BSD|Apache|ISC|[Zz]lib|Expat|X11)\b"
_COPYLEFT = rf"(?:{_NAME}|{_SHORT})"
_CHOICE = re.compile(
    rf"{_FREE}[-\w .,()]{{0,40}}?(?:\bor\b|/)[-\w .,(]{{0,30}}?{_COPYLEFT}"
    rf"|{_COPYLEFT}[-\w .,()]{{0,40}}?(?:\bor\b|/) ?(?:the |an? )?(?:new |modified |[23]-clause )?{_FREE}"
    rf"|\bdual(?:ly)?[- ]licen[cs]ed\b[^.;]{{0,40}}{_FREE} (?:licen[cs]e )?and[^.;]{{0,20}}{_COPYLEFT}",
    re.IGNORECASE,
)

# No notice is without one of these: most files have none, and are not searched any further.
_HINTS = (
    *("public", "clause", "attribution", "creativecommons", "proprietary", "prohibited", "notice to", "polyform"),
    *("business source", "development and dist", "development & dist", "elastic lic", "reciprocal", "open software"),
    *("as perl",),
)
_SHORT_HINTS = ("GPL", "CC BY", "CC-BY", "BUSL", "BSL", "SSPL", "CDDL", "EUPL", "MPL", "EPL", "OSL", "RL")


def spdx_tags(content: str) -> list[str]:
    """Return the expressions of all SPDX tags in the head of a file."""
    return [tag.strip(" \t\r\"'/->") for tag in _TAG.findall(content[:HEAD])]


def foreign_notice(content: str) -> str | None:
    """Return the words in the head of a file that put it under a licence which is not permissive, or None."""
    head = content[:HEAD]
    text = " ".join(_LINE_BREAK.sub(" ", head).split())
    lower = text.lower()
    if not any(hint in lower for hint in _HINTS) and not any(hint in text for hint in _SHORT_HINTS):
        return None
    notice = (_NOTICE.search(text) and _NOTICE.search(_CHOICE.sub(" ", text))) or _ALONE.search(head)
    return " ".join(notice[0].split()) if notice else None
