"""Real code to plant in: stretches of 20 to 60 lines in which a plain look finds nobody and nothing secret.

What is not labelled must not be there, so the look is over-strict. A stretch is left out for an @ that is no decorator
or documentation tag; words that go with people (copyright, author, thanks, "by Xxx", "et al", references); a name of
Faker's lists before a capitalised word; initials; TODO(handle); accounts in paths and URLs; dotted quads and IPv6;
hexadecimal or base64 runs; a literal that is given to a password, secret, token or key.
"""

import ast
import heapq
import re
import textwrap
import warnings
from bisect import bisect
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate
from pathlib import Path
from random import Random

from starcoder.corpus.document import Document, read_documents
from starcoder.errors import UserError
from starcoder.pii.plant.people import everybody_first
from starcoder.pii.plant.sides import Split, fold, side

_SHORTEST, _LONGEST = 20, 60
_FEWEST = 12
_FILES = 20_000
_FEWEST_FILES = 5
_TRIES = 2000
_WIDEST = 400

_RISK = re.compile(
    r"""«|\r|\f|\x0b
    |copyright|©|\(c\)|author|maintain|contribut|credit|thank|written|courtesy|acknowledg|inspired|\bbased\ on\b
    |reported|suggested|signed|et\ al\b|\bReferences?\b|\bdoi\b|arxiv|\bpp?\.\ ?\d|\bvol\.|\bisbn|\bprof\b|\bdr\.|\bmr\.
    |(?-i:\b(?:by|from|to|of|and)\ [A-Z]\w*\.?\ [A-Z]\w+)|(?-i:\b[A-Z]\.\ ?(?:[A-Z]\.\ ?)?[A-Z][a-z]+)
    |(?:todo|fixme|xxx|hack|note|bug)\s*[(@]|(?:todo|fixme)[\s:]+\w+\s*:
    |github\.|gitlab\.|bitbucket|twitter|linkedin|stackoverflow|://[^/\s]*:[^/\s]*@|~\w+/|/home/|/users?/|\\\\users?\b
    |\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9a-f]{1,4}:){3}|::\d|[\"']::|0x[0-9a-f]{16}
    |(?:[0-9a-f]{2}[:\ -]){5}|\b[0-9a-f]{16,}\b|\b(?=[\w+/-]*\d)[\w+/-]{28,}|[\w+/]{60,}
    |(?:passw|passphrase|pwd|secret|token|apikey|api_key|credential|auth\w*)[\w\"'\]]*\s*(?:[:=]+|,)\s*[rbuf]*[\"']
    |BEGIN\ [A-Z ]*(?:KEY|CERT)|\bssh-rsa\b|\blogin\(|\buser(?:name)?[\"']?\s*[:=]\s*[\"']""",
    re.IGNORECASE | re.VERBOSE,
)
# Decorators, and the tags of documentation: the only @ that a host may have.
_TAG = re.compile(r"^[ \t]*(?:\*[ ]?)?@[a-z_]", re.MULTILINE)
_CAPITALS = re.compile(r"\b([^\W\d_]+)[ -]+(?=[A-Z][a-z]+)")
_START = re.compile(r" *(?:(?:def|class|import|from|if|for|with|try|return|raise|assert|async)\b|@|\w[\w.]* =)")
_INDENT = re.compile(r"[ \t]*")


@dataclass(frozen=True)
class Stretch:
    """A piece of a file.

    Attributes:
        lines: Its lines.
        language: Language of the file.
        name: Repository and path of the file.
        top: Whether it starts where a header can stand.
        before: Lines that comments and statements can be put before → the indentation they need there.
        tails: Lines that end a statement and have no comment.
        docstrings: Lines that close a docstring → its indentation.
    """

    lines: tuple[str, ...]
    language: str
    name: str
    top: bool
    before: dict[int, str] = field(default_factory=dict)
    tails: tuple[int, ...] = ()
    docstrings: dict[int, str] = field(default_factory=dict)


class Hosts:
    """The files of one split of a corpus that things are planted in."""

    def __init__(self, corpus: Path, split: Split) -> None:
        """Read the corpus and keep at most 20,000 files of the split, in its memory.

        Raises:
            UserError: The corpus cannot be read, or has too few files of repositories on this side of the split.
        """
        fit = (
            document
            for document in read_documents(corpus, "train")
            if document.kind == "code" and side(document.repository) == split and _fits(document)
        )
        by_language: dict[str, list[Document]] = defaultdict(list)
        for document in heapq.nsmallest(_FILES, fit, key=lambda document: (document.sha256, document.name)):
            by_language[document.language].append(document)
        self._corpus, self._split = corpus, split
        self._languages = list(by_language.values())
        if sum(map(len, self._languages)) < _FEWEST_FILES:
            raise self._too_small()
        # Between one file one vote and one language one vote: Python is most of a corpus of installed packages.
        self._weights = list(accumulate(len(documents) ** 0.75 for documents in self._languages))

    def stretch(self, random: Random) -> Stretch:
        """A clean stretch.

        Raises:
            UserError: None is found: the corpus is too small.
        """
        for _ in range(_TRIES):
            place = bisect(self._weights, random.random() * self._weights[-1])
            if found := cut(random.choice(self._languages[place]), random):
                return found
        raise self._too_small()

    def _too_small(self) -> UserError:
        return UserError(
            f"{self._corpus} has too little code to plant {self._split} examples in: build a corpus of more repositories"
        )


def is_clean(text: str) -> bool:
    """Whether a plain look at `text` finds nothing that would have to be labelled."""
    if text.count("@") > len(_TAG.findall(text)) or _RISK.search(text):
        return False
    return not any(fold(word[1]) in everybody_first() for word in _CAPITALS.finditer(text))


def cut(document: Document, random: Random) -> Stretch | None:
    """A stretch at a random place of `document`; None where that place has none."""
    lines = _lines(document.content)
    start = 0 if random.random() < 0.15 else random.randrange(len(lines))
    python = document.language == "python"
    if python and start:
        start = next((n for n in range(start, min(start + 40, len(lines))) if _START.match(lines[n])), start)
    chosen = lines[start : start + random.randint(_SHORTEST, _LONGEST)]
    text = "\n".join(chosen)
    if len(chosen) < _FEWEST or not text.strip() or max(map(len, chosen)) > _WIDEST or not is_clean(text):
        return None
    top = not chosen[0].startswith((" ", "\t")) and (start == 0 or python)
    return (_python if python else _other)(tuple(chosen), document, top and not text.startswith("#!"))


@cache
def _lines(content: str) -> list[str]:
    return content.split("\n")


def _fits(document: Document) -> bool:
    return bool(document.content) and len(document.content) < 2**20 and document.content.count("\n") >= _SHORTEST


def _python(lines: tuple[str, ...], document: Document, top: bool) -> Stretch | None:
    """With the places that its syntax tree allows; shortened until it parses."""
    base = len(_indent(lines[0]))
    for number, line in enumerate(lines):
        if line.strip() and len(_indent(line)) < base:
            lines = lines[:number]
            break
    for _ in range(3):
        if len(lines) < _FEWEST:
            return None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tree = ast.parse(textwrap.dedent("\n".join(lines)))
            break
        except (SyntaxError, ValueError):
            lines = lines[: max((n for n in range(len(lines) - 1, 0, -1) if _START.match(lines[n])), default=0)]
    else:
        return None
    before: dict[int, str] = {}
    tails: list[int] = []
    docstrings: dict[int, str] = {}
    _walk(tree, lines, before, tails, docstrings)
    return Stretch(lines, document.language, document.name, top, before, tuple(tails), docstrings) if before else None


def _walk(
    node: ast.AST, lines: tuple[str, ...], before: dict[int, str], tails: list[int], docstrings: dict[int, str]
) -> None:
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        for number, child in enumerate(getattr(node, name, ()) if not isinstance(node, ast.Lambda | ast.IfExp) else ()):
            if not isinstance(child, ast.stmt):
                _walk(child, lines, before, tails, docstrings)
                continue
            first = min([child.lineno, *(d.lineno for d in getattr(child, "decorator_list", ()))]) - 1
            last = (child.end_lineno or child.lineno) - 1
            line, indent = lines[first], _indent(lines[first])
            if number == 0 and isinstance(child, ast.Expr) and isinstance(getattr(child.value, "value", None), str):
                if last > first and lines[last].strip() in ('"""', "'''"):
                    docstrings[last] = _indent(lines[last])
                continue
            if line.lstrip().startswith(("elif", "from __future__")) or first in before:
                continue
            before[first] = indent
            if first == last and "#" not in line and not line.endswith((":", "\\")) and len(line) < 70:
                tails.append(first)
            _walk(child, lines, before, tails, docstrings)


def _other(lines: tuple[str, ...], document: Document, top: bool) -> Stretch | None:
    """With the places before lines that start after a finished one, outside block comments."""
    before: dict[int, str] = {}
    tails: list[int] = []
    commented = False
    previous = ""
    for number, line in enumerate(lines):
        words = line.strip()
        finished = not previous or previous.endswith((";", "{", "}", ">", "*/", ":")) or document.language not in _BRACES
        opens = words.startswith(("*", "#", "{", "else", "case", ")", "}", "&", "|", "\\"))
        if words and not commented and finished and not opens and not previous.endswith("\\"):
            before[number] = _indent(line)
        if words.endswith(";") and len(line) < 70 and "//" not in words and "*" not in words and not commented:
            tails.append(number)
        commented = "/*" in words.rpartition("*/")[2] or (commented and "*/" not in words)
        previous = words
    if not before:
        return None
    return Stretch(lines, document.language, document.name, top, before, tuple(tails))


_BRACES = frozenset("c c++ cuda java javascript typescript c-sharp go rust php dart css scala kotlin glsl json".split())


def _indent(line: str) -> str:
    return _INDENT.match(line).group()  # type: ignore[union-attr]
