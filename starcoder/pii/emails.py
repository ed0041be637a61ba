r"""E-mail addresses (paper §4.3): "@" is looked for first, then a bounded window on both of its sides is judged.

The rules are those of the regex baseline: a local part without white space, brackets, quotes or two marks in a row,
1 to 10 subdomains, a top-level domain of 2 to 63 letters or `xn--…`, and a delimiter on either side. Where they differ:

* A domain's parts are made of letters, digits, "_" and "-", as those of hosts are; a local part has at most 64
  characters (RFC 5321) and besides these "." and "+". Other marks delimit: `to=ann@x.org`, `**ann@x.org**` and
  `&lt;ann@x.org&gt;` hold `ann@x.org`; so do `\nann@x.org`, `\u003cann@x.org`, `%3Cann@x.org` and `//ann@x.org`, but
  neither a path (`/ann@x.org`) nor a template (`%s@x.org`, `$who@x.org`).
* Accounts in URLs (`ssh://ann@x.org`, `ann@x.org:path/repo`) and `git` at a forge get no mail; nor do the names of
  messages, which follow `Message-ID:`, `In-Reply-To:`, `References:` or `Content-ID:` in "<>" (RFC 5322, §3.6.4), or
  begin with the long number of a clock.
* A file is no host: `logo@2x.png`, `core@7.js`. A list of the real top-level domains would, in place of this rule,
  remove 39 of the 2,495 different findings in 500 MB of installed code: 2 are files, 37 are of test domains and of
  hosts that DNS does not know.
"""

import re
from collections.abc import Iterator

from typing_extensions import override

from starcoder.pii.entity import Detector, Entity

HAN = "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Han characters, for a class of a pattern: they delimit, though they are letters."""
_MARKS = "\u0300-\u036f\u0900-\u0963\u0966-\u0eff"  # those of Indic and Thai letters, which \w lacks
_TLD = rf"(?:xn--[\w-]{{2,59}}+|[A-Za-z]{{2,63}}+|(?:(?![\x00-\x7f])[^\W\d_]|[{_MARKS}]){{2,63}}+)"
_WORD = rf"[\w{_MARKS}]"
_LABEL = rf"(?!-)[\w{_MARKS}-]{{1,63}}+(?<!-)\."
_DOMAIN = re.compile(
    rf"@(?<=[\w+{_MARKS}]@)(?:{_LABEL}){{1,10}}({_TLD})"
    rf"(?:(?=[{HAN}])|(?!{_WORD}|[@(\[]|-\w|\.\w|:\d|/[\w.%~-]|:[\w.~-]{{0,100}}/))"
)
_FILE = re.compile(
    r"png|jpe?g|gif|svg|ico|s?css|[jt]sx?|mjs|html|xml|json|ya?ml|txt|csv|pkl|pdf|whl|jar", re.IGNORECASE
)
_LONGEST, _ESCAPE_LENGTH = 64, 6
_LETTER = rf"(?![{HAN}])[\w+{_MARKS}]"
_LOCAL = re.compile(rf"[{HAN}]++|{_LETTER}(?:{_LETTER}|(?<!\.)[.-])*+")  # from behind
_ESCAPE = r"\\(?:[ntr]|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2})|%(?:20|22|27|2[cC]|3[acdACD])"
_ESCAPED, _AFTER_ESCAPE = re.compile(_ESCAPE), re.compile(rf"(?:{_ESCAPE})\Z")
_ACCOUNT = re.compile(r"://(?<!mailto://)[^\s/@\"'<>]*\Z")
_NO_DELIMITER = re.compile(rf"(?![{HAN}])[\w+@\\%$]\Z")
_FORGE = re.compile(r"git@(?:git|bitbucket|codeberg|[\w.-]+:[\w~.])")
_MESSAGE = re.compile(  # a header, as in a message or as the key of a dictionary, and the messages named before
    r"(?:message-id|in-reply-to|references|content-id)['\")\]]{0,3}\s*+[:=,]\s*+[rbu]?['\"]?(?:<[^<>]*+>\s*+)*+<\Z",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"[0-9]{8,}\.[0-9]+(?:\.[0-9]+)*\Z")
_BEFORE = 200
"""Characters before the local part in which a URL may begin that it is a part of, or a header that it belongs to."""


class EmailDetector(Detector):
    """Finds e-mail addresses, in linear time."""

    @property
    @override
    def name(self) -> str:
        return "email"

    @override
    def detect(self, text: str) -> list[Entity]:
        return list(self._found(text))

    def _found(self, text: str) -> Iterator[Entity]:
        for domain in _DOMAIN.finditer(text):
            start = None if _FILE.fullmatch(domain[1]) else _local_start(text, domain.start())
            if start is not None:
                yield Entity(start, domain.end(), "EMAIL", detector=self.name)


def _local_start(text: str, at: int) -> int | None:
    """Where the local part begins that ends before `text[at]`, if there is one."""
    local = _LOCAL.match(text[max(0, at - _LONGEST - _ESCAPE_LENGTH) : at][::-1])
    if not local:
        return None
    start = at - len(local[0].rstrip(".-"))
    if start and (escaped := _ESCAPED.match(text, start - 1, at)):
        start = escaped.end()
    elif not _delimits(text, start) or _FORGE.match(text, start):
        return None
    before = text[max(0, start - _BEFORE) : start]
    if not 0 < at - start <= _LONGEST or _ACCOUNT.search(before) or _is_message(before, text[start:at]):
        return None
    return start


def _is_message(before: str, local: str) -> bool:
    """Whether a message has this name, and nobody this address."""
    return before.endswith("<") and bool(_CLOCK.match(local) or _MESSAGE.search(before))


def _delimits(text: str, start: int) -> bool:
    """Whether what stands before `start` can stand before an address: no letter, path or template."""
    before = text[max(0, start - 2) : start]
    if before.endswith("/"):
        return before == "//"
    if before.endswith(")") and text[start + 1 : start + 2] == "@":
        return False  # %(name)s@x.org
    if _AFTER_ESCAPE.search(text[max(0, start - _ESCAPE_LENGTH) : start]):
        return True
    return not _NO_DELIMITER.search(before)
