"""IP addresses (paper §4.3): "." and ":" are looked for first, then what stands around them is judged.

The rules are those of the regex baseline: IPv4 and all forms of IPv6 (a zone and an IPv4 tail included) between
delimiters, with a digit, as `ipaddress` parses them, so without leading zeros; and four single digits, as a version
has, only where a word such as "dns" or "server" is within 100 characters; here three are enough (`7.1.4.34`), which one
in 17,000 addresses begins with. Its dates need no guard: a year is above 255, and IPv6 has neither "-" nor "/". Private
addresses are found too; redaction spares them. Of what it finds in code much is none, hence more guards:

* The nearest telling word of the 60 characters before on the line decides. "version", "section", "oid", a comparison
  without quotes (`torch>=2.1.0.1`), a name's "-" or "/" (`lib-1.2.3.40`, `Opera/9.80.1.2`) speak against an address,
  "host", "addr", "ip", "http://" and their like for one; the latter also stand for "dns" and "server" above.
* Longer numbers (`1.2.3.4.5`, `1.2.3.4.dev0`, `1.2.3.4-rc1`), what begins with 0.1 to 0.255, the arcs 2.5.4 and 2.5.29
  of X.500, a number among decimal fractions, as in the paths of SVG, and small numbers (to 39, the last to 99) before a
  word, as in "4.4.12.1 Integers", are no addresses.
* Eight pairs of hex digits are the bytes of a serial number or a hardware address.
* IPv6 that does not begin as assigned addresses do (2xxx, 3xxx, fc00 to feb0, ffxx, ::ffff:, 64:ff9b) can be a slice
  (`x[1::2]`), a scope (`f32::add`) or a line of /etc/passwd: it must stand in quotes, in the brackets of a URL, or
  after a telling word; and never is an index, nor a network of space that nobody has (`4000::/3`).
"""

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from typing_extensions import override

from starcoder.pii.emails import HAN
from starcoder.pii.entity import Detector, Entity

_FOUR = re.compile(r"\.(?<=[0-9]\.)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9])")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_HEX = "0123456789abcdefABCDEF:."
_RUN = re.compile(rf"[{_HEX}]+")
_LONGEST = 45
"""Characters of the longest IPv6 address, without a zone."""
_LABELLED = re.compile(r"(?<!\\)[G-Zg-z][0-9a-fA-F]{1,4}:(?!:)")  # ipv6:2001:db8::1
_ENDS_SENTENCE = re.compile(r"(?:\.|(?<!:):|:::)\Z")
_ZONE = re.compile(r"(?:%(?:[0-9]+|[A-Za-z][\w.-]{0,14}\w))?")
_WORD_BEFORE = re.compile(rf"(?:(?![{HAN}])\w|[.\\?])\Z(?<!\\[nrt])")
_WORD_AFTER = re.compile(rf"(?![{HAN}])\w|\.[\w*]|[-+][0-9]{{0,8}}[A-Za-z]")
_TELLING = re.compile(  # each alternative begins with a letter of its own, which makes `re` skip what cannot match
    r"(?:ip(?<![a-z]ip)(?:v?[46])?(?![a-z])|ping(?<![a-z]ping)|addr|bind|cidr|dns|dst|gateway|host|inet|listen|network"
    r"|peer|proxy|server|src|subnet|tcp|udp|://|appendix|build|chapter|clause|driver|firmware|object.?identifier"
    r"|oid(?<![a-z]oid)(?![a-z])|release|revision|section(?<![a-z]section)|v(?<![a-z]v)(?:er)?(?![a-z])|version|§)"
    r"[a-z0-9]*(?:[-/]|\s?==\s?)?"
)
_OTHERS = ("appendix", "build", "chapter", "clause", "driver", "firmware", "object", "oid", "re", "section", "v", "§")
_OTHER_END = re.compile(r"(?:[=~!<>]=\s?|[~^]|[a-z][-/])\Z")
_NEAR, _LINE = 100, 60
_LIKE_A_VERSION = re.compile(r"(?:[0-9]\.){3}")
_NUMBER_BEFORE, _NUMBER_AFTER = re.compile(r"[\d.][ ,-]+\Z"), re.compile(r"[ ,-]+[\d.]")
_FRACTION = re.compile(r"(?<![\w.])\d*\.\d+(?:\.\d+)?(?![\w.])")
_TITLE = re.compile(r"(?!10\.)(?:(?:[1-9]|[123]\d)\.){3}[1-9]\d? [A-Za-z]")
_NOT_HOSTS = re.compile(r"0\.(?!0\.)|2\.5\.(?:4|29)\.")
_BYTES = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){7}")
_ASSIGNED = re.compile(r"[23][0-9a-f]{3}:|f(?:[cdf][0-9a-f]|e[89ab])[0-9a-f]:|::ffff:|64:ff9b:", re.IGNORECASE)
_SLICE = re.compile(r"(?!::1\Z)\d*::\d*")
_INDEX = re.compile(r"[\w)\]]\[\Z")
_BRACKET = re.compile(r"(?:\A|[^\w)\]])\[\Z")
_LISTED = re.compile(r"[\[,]\s*\Z")


class AddressDetector(Detector):
    """Finds IP addresses, in linear time."""

    @property
    @override
    def name(self) -> str:
        return "address"

    @override
    def detect(self, text: str) -> list[Entity]:
        found: list[Entity] = []
        for start, end in sorted([*_ipv6(text), *_ipv4(text)]):
            if not found or start >= found[-1].end:  # not the IPv4 tail of an IPv6 address
                found.append(Entity(start, end, "IP_ADDRESS", detector=self.name))
        return found


def _ipv4(text: str) -> Iterator[tuple[int, int]]:
    for match in _FOUR.finditer(text):
        first = text[max(0, match.start() - 4) : match.start()]
        start = match.start() - len(first) + len(first.rstrip("0123456789"))
        end = match.end()
        if _stands_alone(text, start, end) and _parses(IPv4Address, text[start:end]) and _is_host(text, start, end):
            yield start, end


def _ipv6(text: str) -> Iterator[tuple[int, int]]:
    place = 0
    while colons := _COLONS.search(text, place):
        start, place = _run(text, colons.start())
        if place - start > _LONGEST + 2:
            continue
        start, end = _trimmed(text, start, place)
        value = text[start:end]
        if _may_be_ipv6(value) and _stands_alone(text, start, end) and _parses(IPv6Address, value):
            zone = _ZONE.match(text, end)
            if zone and _is_ipv6(text, start, end):
                yield start, zone.end()


def _run(text: str, colon: int) -> tuple[int, int]:
    """The hex digits, colons and dots around a colon: at most a few more than an address has before it, all after."""
    before = text[max(0, colon - _LONGEST - 2) : colon]
    run = _RUN.match(text, colon)
    return colon - len(before) + len(before.rstrip(_HEX)), run.end() if run else colon


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    """Without what is around it: a label and one colon before it, a full stop or one colon after it."""
    if _LABELLED.match(text, max(0, start - 1)):
        start = text.index(":", start) + 1
    elif text[start] == ":" and text[start + 1] != ":":
        start += 1
    while _ENDS_SENTENCE.search(text, start, end):
        end -= 1
    return start, end


def _may_be_ipv6(value: str) -> bool:
    """Before the costly questions: whether it has colons enough and a digit, and is not eight bytes."""
    enough = "::" in value or value.count(":") > 5
    return enough and any(map(str.isdigit, value)) and not _BYTES.fullmatch(value)


def _stands_alone(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 2) : start]
    return not (_WORD_BEFORE.search(before) or _WORD_AFTER.match(text, end))


def _parses(kind: type[IPv4Address | IPv6Address], value: str) -> bool:
    try:
        kind(value)
    except AddressValueError:
        return False
    return True


def _is_host(text: str, start: int, end: int) -> bool:
    """Whether four numbers are the address of a host or a network, and no version, section or object identifier."""
    value, line = text[start:end], _line_before(text, start)
    if _NOT_HOSTS.match(value) or _is_coordinate(line, text[end : end + _LINE]):
        return False
    told = _tells(line)
    if told is None and _LIKE_A_VERSION.match(value):
        around = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
        return any(map(_speaks_for, (word for part in around for word in _TELLING.findall(part.lower()))))
    return told or (told is None and not _TITLE.match(text, start, end + 2))


def _is_coordinate(before: str, after: str) -> bool:
    """Whether it stands among numbers some of which are decimal fractions, as in the path of a picture."""
    if not (_NUMBER_BEFORE.search(before) and _NUMBER_AFTER.match(after)):
        return False
    return any(_FRACTION.search(part) for part in (before[-20:], after[:20]))


def _is_ipv6(text: str, start: int, end: int) -> bool:
    """Whether an IPv6 address is meant, and no slice, scope or field of a table."""
    line, after = _line_before(text, start), text[end : end + 1]
    assigned = _ASSIGNED.match(text, start)
    if _INDEX.search(line) or (not assigned and text[start:end].endswith("::")):
        return False
    quoted = line[-1:] in {'"', "'"} and after in {'"', "'", "/", "%"} and not _SLICE.fullmatch(text, start, end)
    bracketed = after == "]" and _BRACKET.search(line)
    return bool(assigned or quoted or bracketed or (not _LISTED.search(line) and _tells(line)))


def _line_before(text: str, start: int) -> str:
    line = text[max(0, start - _LINE) : start]
    return line[line.rfind("\n") + 1 :]


def _tells(line: str) -> bool | None:
    """What the last telling word says: an address follows, or something else; nothing without such a word."""
    words = list(_TELLING.finditer(line := line.lower()))
    if _OTHER_END.search(line) and not (words and words[-1].end() == len(line)):
        return False
    return _speaks_for(words[-1][0]) if words else None


def _speaks_for(word: str) -> bool:
    return not word.startswith(_OTHERS)
