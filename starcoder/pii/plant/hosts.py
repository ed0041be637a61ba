"""Real code to plant in: stretches of 15 to 60 lines in which a plain look finds nobody and nothing secret.

What is not labelled must not be there, so the look is over-strict. A stretch is left out for an @ that is no decorator
or documentation tag; words that go with people (copyright, author, thanks, "et al", references, "by Xxx"); a first name
of Faker's lists before a capitalised word; initials; TODO(handle); accounts in paths and URLs; dotted quads and IPv6;
hexadecimal or base64 runs; a literal that is given to a password, secret, token or key.
"""

import heapq
import re
from bisect import bisect
from collections import defaultdict
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random

from starcoder.corpus.document import Document, read_documents
from starcoder.errors import UserError
from starcoder.pii.plant.people import first_names
from starcoder.pii.plant.sides import Split, fold, side
from starcoder.pii.plant.stretch import Stretch, stretch

_SHORTEST, _LONGEST = 20, 60
_FILES = 20_000
_FEWEST_FILES = 5
_TRIES = 2000
_WIDEST = 400

_RISKY_WORDS = tuple(
    """«|\r|\f|\v|copyright|©|(c) |author|maintain|contribut|credit|thank|written|courtesy|acknowledg|inspired|based on
    |reported|suggest|signed|et al|reference|arxiv|isbn|github.|gitlab.|bitbucket|twitter|linkedin|stackoverflow|/home/
    |/users/|\\users
    |-----begin|ssh-rsa|login(|translat|review|proposed|adapted|originally|invented|discover|journal|proceedings|conference
    |algorithm of|method of|(19|(20|mailto|gist.|kudos|courtesy|wrote|patch|devised|professor|university""".replace(
        "\n    ", ""
    ).split("|")
)
_RISKS = tuple(
    re.compile(pattern)
    for pattern in (
        r"\b(?:by|from|to|of|and|see|cf\.) (?:[A-Z]\w*\.? )+[A-Z]\w+",
        r"\b[A-Z]\. ?(?:[A-Z]\. ?)?[A-Z][a-z]+",
        r"\b[A-Z][a-z]+, [A-Z]\.",
        r"\b(?:TODO|FIXME|XXX|HACK|NOTE|BUG|todo|fixme)\s*[(@\[]",
        r"\b(?:TODO|FIXME|XXX):?\s+\w+\s*:",
        r"\b(?:[Dd]r|[Mm]r|[Pp]rof|[Vv]ol|[Pp]p?)\. ?[A-Z0-9]",
        r"~\w+/",
        r"\d\.\d{1,3}\.\d{1,3}\.\d",
        r"[0-9a-fA-F]:[0-9a-fA-F]{1,4}:[0-9a-fA-F]",
        r"::\d|[\"']::",
        r"\b(?=[g-zG-Z]*[0-9a-fA-F])[0-9a-fA-F]{16,}\b",
        r"\b(?=[a-zA-Z/+_-]*\d)[\w/+-]{28,}",
        r"[\w/+]{60,}",
        r"(?i:passw\w*|passphrase|pwd|secret\w*|token\w*|api_?key|credential\w*|auth\w*|user(?:name)?|owner)"
        r"[\w\"'\]]*\s*(?:[:=]+|,)\s*[rbuf]*[\"']",
    )
)
# Decorators, and the tags of documentation: the only @ that a host may have.
_TAG = re.compile(r"^[ \t]*(?:\*[ ]?)?@[a-z_]", re.MULTILINE)
_CAPITALS = re.compile(r"\b([A-Z][^\W\d_]+)[ -]+(?=[A-Z][a-z]+)")


class Hosts:
    """The files of one split of a corpus that things are planted in."""

    def __init__(self, corpus: Path, split: Split) -> None:
        """Read the corpus and keep at most 20,000 files of the split in memory.

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
            f"{self._corpus} has too little code to plant {self._split} examples in: "
            "build a corpus of more repositories"
        )


def is_clean(text: str) -> bool:
    """Whether a plain look at `text` finds nothing that would have to be labelled."""
    lower = text.lower()
    if any(word in lower for word in _RISKY_WORDS) or text.count("@") > len(_TAG.findall(text)):
        return False
    if any(fold(word[1]) in first_names() for word in _CAPITALS.finditer(text)):
        return False
    return not any(risk.search(text) for risk in _RISKS)


def cut(document: Document, random: Random) -> Stretch | None:
    """A stretch at a random place of `document`, often its beginning; None where that place has none."""
    lines = _lines(document.content)
    start = 0 if random.random() < 0.3 else random.randrange(len(lines))
    chosen = lines[start : start + random.randint(_SHORTEST, _LONGEST)]
    text = "\n".join(chosen)
    if not text.strip() or max(map(len, chosen)) > _WIDEST or not is_clean(text):
        return None
    return stretch(tuple(chosen), document, first=start == 0)


@lru_cache(maxsize=4096)
def _lines(content: str) -> list[str]:
    return content.split("\n")


def _fits(document: Document) -> bool:
    return bool(document.content) and len(document.content) < 2**20 and document.content.count("\n") >= _SHORTEST
