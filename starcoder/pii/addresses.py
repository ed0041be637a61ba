"""IP addresses (paper §4.3): "." and ":" are looked for first, then what stands around them is judged.

The rules are those of the regex baseline: IPv4 and all forms of IPv6 (a zone and an IPv4 tail included) between
delimiters, with a digit, as `ipaddress` parses them, so without leading zeros; and four single digits, as a version
has, only where a word such as "dns" or "server" is within 100 characters. Its dates need no guard: a year is above 255,
and IPv6 has neither "-" nor "/". Private addresses are found too; redaction spares them. Of what it finds in code much
is none, hence more guards:

* The nearest telling word of the 60 characters before on the line decides. "version", "section", "oid", a comparison
  without quotes (`torch>=2.1.0.1`), a name's "-" or "/" (`lib-1.2.3.40`, `Opera/9.80.1.2`) speak against an address,
  "host", "addr", "ip", "http://" and their like for one; the latter also stand for "dns" and "server" above.
* Longer numbers (`1.2.3.4.5`, `1.2.3.4.dev0`, `1.2.3.4-rc1`), what begins with 0.1 to 0.255, the arcs 2.5.4 and 2.5.29
  of X.500, and a number between decimal fractions, as in the paths of SVG, are no addresses.
* Eight pairs of hex digits are the bytes of a serial number or a hardware address.
* IPv6 that does not begin as assigned addresses do (2xxx, 3xxx, fc00 to feb0, ffxx, ::ffff:, 64:ff9b) can be a slice
  (`x[1::2]`), a scope (`f32::add`) or a line of /etc/passwd: it must stand in quotes, in the brackets of a URL, or
  after a telling word; and never is an index.
"""

import re
from collections.abc import Iterator
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from typing_extensions import override

from starcoder.pii.entity import Detector, Entity

_HAN = "\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_FOUR = re.compile(r"\.(?<=[0-9]\.)[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}(?![0-9])")
_COLONS = re.compile(r":[0-9a-fA-F]{0,4}:")
_HEX = "0123456789abcdefABCDEF:."
_RUN = re.compile(rf"[{_HEX}]+")
_LONGEST = 45
"""Characters of the longest IPv6 address, without a zone."""
_ZONE = re.compile(r"(?:%(?:[0-9]+|[A-Za-z][\w.-]{1,15}))?")
_WORD_BEFORE = re.compile(rf"(?:(?![{_HAN}])\w|[.\\])\Z(?<!\\[nrt])")
_WORD_AFTER = re.compile(rf"(?![{_HAN}])\w|\.[\w*]|[-+][A-Za-z]")
_TELLING = re.compile(
    r"(?P<address>(?:(?<![a-z])(?:ip(?:v?[46])?(?![a-z])|cidr|dns|tcp|udp|src|dst)|addr|host|inet|server|listen|bind|gateway"
    r"|subnet|network|proxy|peer|ping|https?://)[a-z0-9]*(?:[-/]|\s?==\s?)?)"
    r"|version|release|revision|build|driver|firmware|(?<![a-z])v(?:er)?(?![a-z])|section|chapter|clause|appendix|§"
    r"|(?<![a-z])oid|object.?identifier|[=~!<>]=\s?\Z|\^\Z|~\Z|[a-z][-/]\Z",
    re.IGNORECASE,
)
_NEAR, _LINE = 100, 60
_FRACTIONS = re.compile(r"(?<![\d.])\d*\.\d+[ ,]\Z"), re.compile(r"[ ,]\d*\.\d+(?![\d.])")
_NOT_HOSTS = re.compile(r"0\.(?!0\.)|2\.5\.(?:4|29)\.")
_BYTES = re.compile(r"[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){7}")
_ASSIGNED = re.compile(r"[23][0-9a-f]{3}:|f(?:[cdf][0-9a-f]|e[89ab])[0-9a-f]:|::ffff:|64:ff9b:", re.IGNORECASE)
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
        spans = list(_ipv6(text))
        ends = {end: start for start, end in spans}
        spans += [(start, end) for start, end in _ipv4(text) if ends.get(end, end) > start]
        return [Entity(start, end, "IP_ADDRESS", detector=self.name) for start, end in sorted(spans)]


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
    """Without the punctuation of the sentence around it: one colon before it, a full stop or one colon after it."""
    if text[start] == ":" and text[start + 1] != ":":
        start += 1
    while text[end - 1] == "." or (text[end - 1] == ":" and text[end - 2] != ":"):
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
    if _NOT_HOSTS.match(value) or all((_FRACTIONS[0].search(line), _FRACTIONS[1].match(text, end))):
        return False
    told = _tells(line)
    if told is None and len(value) == 7:
        around = text[max(0, start - _NEAR) : start], text[end : end + _NEAR]
        return any(match["address"] for part in around for match in _TELLING.finditer(part))
    return told is not False


def _is_ipv6(text: str, start: int, end: int) -> bool:
    """Whether an IPv6 address is meant, and no slice, scope or field of a table."""
    line, after = _line_before(text, start), text[end : end + 1]
    if _INDEX.search(line):
        return False
    quoted = line[-1:] in {'"', "'", "`"} and after in {'"', "'", "`", "/", "%"}
    bracketed = after == "]" and _BRACKET.search(line)
    told = not _LISTED.search(line) and _tells(line)
    return bool(_ASSIGNED.match(text, start) or quoted or bracketed or told)


def _line_before(text: str, start: int) -> str:
    line = text[max(0, start - _LINE) : start]
    return line[line.rfind("\n") + 1 :]


def _tells(line: str) -> bool | None:
    """What the last telling word says: an address follows, or something else; nothing without such a word."""
    words = list(_TELLING.finditer(line))
    return bool(words[-1]["address"]) if words else None
