"""What becomes of an entity (paper §4.4): which of them are redacted, by what, and nothing else in the text changes.

    EMAIL, KEY, NAME, PASSWORD   become <EMAIL>, <KEY>, <NAME>, <PASSWORD>
    IP_ADDRESS                   becomes one of ten private addresses
    USERNAME, AMBIGUOUS          stay

A replacement depends on the value alone, so it is the same throughout a file, and in every other file on every machine.
The released code drew the address at random for each file, and put a blank in place of the nothing between entities
that touch, and before one that begins a file; here every character outside the entities is left as it is.
"""

import ast
import hmac
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from starcoder.errors import UserError
from starcoder.pii.entity import Detector, Entity, check_labels

PLACEHOLDERS = {"EMAIL": "<EMAIL>", "KEY": "<KEY>", "NAME": "<NAME>", "PASSWORD": "<PASSWORD>"}
REDACTED = tuple(sorted([*PLACEHOLDERS, "IP_ADDRESS"]))
"""The labels that are redacted."""
IPV4 = ("172.16.31.10", "172.16.58.3", "172.16.17.32", "192.168.127.12", "192.168.3.11")
IPV6 = (
    "fd00:c2b6:b24b:be67:2827:688d:e6a1:6a3b",
    "fd00:a516:7c1b:17cd:6d81:2137:bd2a:2c5b",
    "fc00:e968:6179::de52:7100",
    "fc00:db20:35b:7399::5",
    "fdf8:f53e:61e4::18",
)
NAME_SERVERS = frozenset(
    [
        *("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "76.76.19.19", "76.223.122.150", "9.9.9.9", "149.112.112.112"),
        *("208.67.222.222", "208.67.220.220", "8.26.56.26", "8.20.247.20", "94.140.14.14", "94.140.15.15"),
    ]
)
"""Public DNS servers, which are nobody's secret."""
SALT = "starcoder"
"""Key of the hash that chooses an address; with another one, the choice says nothing about ours."""
PASSES = 5
"""How often a text is looked at again, because a replacement made something near it look like an entity."""
PYTHON = "python"

_SHORTEST = 4  # characters
_SHORTEST_KEY = 9
_PLACEHOLDER = re.compile("|".join(PLACEHOLDERS.values()))
_LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDERS.values()))
_PARSED = 2**25  # characters parsed to find the entities that a Python text cannot do without: some seconds
Replacement = tuple[Entity, str]


@dataclass(frozen=True, slots=True)
class Redacted:
    """A text after redaction.

    Attributes:
        text: The text; the very object that was given when nothing is replaced.
        counts: How many entities of each label were replaced.
        left: How many of each label would be replaced but are not: Python code that parses would not without them, or
            they were still found after the last of the passes.
    """

    text: str
    counts: Mapping[str, int] = field(default_factory=dict)
    left: Mapping[str, int] = field(default_factory=dict)


def check_redacted(labels: Sequence[str]) -> frozenset[str]:
    """Return `labels` as a set.

    Raises:
        UserError: there is none, or one does not exist or is never redacted.
    """
    if not labels or (never := sorted(check_labels(labels) - set(REDACTED))):
        what = f"{', '.join(never)} is never redacted" if labels else "no label is to be redacted"
        raise UserError(f"{what}: labels that can be are {', '.join(REDACTED)}")
    return frozenset(labels)


def redactable(
    text: str, entities: Iterable[Entity], labels: Iterable[str] = REDACTED, salt: str = SALT
) -> list[Replacement]:
    """The entities of `text` that the paper redacts, sorted, each with what it is replaced by.

    Not redacted are values of up to 3 characters; addresses that do not parse, are private or a public DNS server's;
    keys of up to 8 characters, or which do not look random; and names of one word. What an earlier redaction has put
    there is no entity either. Of entities that overlap, the first counts.

    Args:
        text: The original text.
        entities: What a detector has found in it.
        labels: Of `REDACTED`, what to replace.
        salt: Key of the hash that chooses the address that stands for another.
    """
    wanted, chosen, end = frozenset(labels), list[Replacement](), 0
    for entity in sorted(entities):
        if entity.label not in wanted or entity.start < end:
            continue
        replacement = _replacement(text[entity.start : entity.end], entity.label, salt)
        if replacement is not None and not _is_redacted(text, entity):
            chosen.append((entity, replacement))
            end = entity.end
    return chosen


def redact(
    text: str,
    entities: Iterable[Entity],
    language: str = "",
    labels: Iterable[str] = REDACTED,
    salt: str = SALT,
) -> Redacted:
    """Replace what is redactable, once.

    Args:
        text: The original text.
        entities: What a detector has found in it.
        language: Python code that parses will still do: an entity stays when it would not, such as a key that is the
            name of a variable.
        labels: Of `REDACTED`, what to replace.
        salt: Key of the hash that chooses the address that stands for another.
    """
    found = redactable(text, entities, labels, salt)
    if not found:
        return Redacted(text)
    replaced = _that_parse(text, found) if language == PYTHON else found
    counts = _count(replaced)
    return Redacted(_apply(text, replaced) if replaced else text, counts, _count(found) - counts)


class Redactor:
    """Redacts texts until its detector finds nothing to redact in them; picklable, for each process opens its own.

    Args:
        opener: Opens the detector when it is first needed; picklable, such as the class of a detector.
        labels: Of `REDACTED`, what to replace.
        salt: Key of the hash that chooses the address that stands for another.

    Raises:
        UserError: one of the labels is never redacted.
    """

    def __init__(self, opener: Callable[[], Detector], labels: Sequence[str] = REDACTED, salt: str = SALT) -> None:
        self._opener, self._labels, self._salt = opener, check_redacted(labels), salt

    @cached_property
    def detector(self) -> Detector:
        """What finds the entities."""
        return self._opener()

    @property
    def name(self) -> str:
        """What reports call it: the detector's name."""
        return self.detector.name

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "detector"}

    def redact_all(self, texts: Sequence[str], languages: Sequence[str]) -> list[Redacted]:
        """Redact the texts, each as if it were alone; the detector gets them together.

        Args:
            texts: Any texts.
            languages: The programming language of each; see `redact`.
        """
        results = [Redacted(text) for text in texts]
        changed = [number for number, text in enumerate(texts) if text]
        for _ in range(PASSES):
            pending, changed = changed, []
            for number, found in self._find(results, pending):
                step = redact(results[number].text, found, languages[number], self._labels, self._salt)
                if step.counts:
                    changed.append(number)
                results[number] = Redacted(step.text, Counter(results[number].counts) + Counter(step.counts), step.left)
        for number, found in self._find(results, changed):
            left = _count(redactable(results[number].text, found, self._labels, self._salt))
            results[number] = Redacted(results[number].text, results[number].counts, left)
        return results

    def _find(self, results: Sequence[Redacted], numbers: Sequence[int]) -> Iterable[tuple[int, list[Entity]]]:
        if not numbers:
            return ()
        return zip(numbers, self.detector.detect_all([results[number].text for number in numbers]), strict=True)


def describe(redactor: str, redacted: Mapping[str, int], left: Mapping[str, int]) -> str:
    """What was redacted by whom, and how much of each label, in a line."""
    counts, rest = (", ".join(f"{part[label]:,} {label}" for label in sorted(part)) for part in (redacted, left))
    return (
        f"PII: redacted by {redactor}: {counts or 'nothing was found'}{f'; left as they are: {rest}' if rest else ''}"
    )


def _replacement(value: str, label: str, salt: str) -> str | None:
    """What stands for `value`, or None when it is not redacted."""
    if len(value) < _SHORTEST:
        return None
    if label == "IP_ADDRESS":
        return _fake_address(value, salt)
    if label == "KEY" and (len(value) < _SHORTEST_KEY or not _is_gibberish(value)):
        return None
    if label == "NAME" and len(value.split()) < 2:
        return None
    return PLACEHOLDERS[label]


def _is_gibberish(value: str) -> bool:
    from starcoder.pii.gibberish import is_gibberish

    return is_gibberish(value)


def _fake_address(value: str, salt: str) -> str | None:
    try:
        address = ip_address(value)
    except ValueError:
        return None
    if address.is_private or value in NAME_SERVERS:
        return None
    return _choose(address, salt)


def _choose(address: IPv4Address | IPv6Address, salt: str) -> str:
    """One of the fake addresses, the same for however an address is spelled."""
    choices = IPV4 if address.version == 4 else IPV6
    digest = hmac.digest(salt.encode(errors="surrogatepass"), str(address).encode(), "sha256")
    return choices[int.from_bytes(digest) % len(choices)]


def _is_redacted(text: str, entity: Entity) -> bool:
    """Whether the entity is made of placeholders, whole or a part of one, and what stands between them."""
    start = max(0, entity.start - _LONGEST_PLACEHOLDER)
    around = text[start : entity.end + _LONGEST_PLACEHOLDER]
    without = _PLACEHOLDER.sub(lambda found: " " * len(found[0]), around)
    value = without[entity.start - start : entity.end - start]
    return value != text[entity.start : entity.end] and not any(map(str.isalnum, value))


def _count(replacements: Iterable[Replacement]) -> Counter[str]:
    return Counter(entity.label for entity, _ in replacements)


def _apply(text: str, replacements: Sequence[Replacement]) -> str:
    """Put the sorted replacements in their places."""
    parts, at = list[str](), 0
    for entity, replacement in replacements:
        parts += (text[at : entity.start], replacement)
        at = entity.end
    return "".join([*parts, text[at:]])


def _that_parse(text: str, found: list[Replacement]) -> list[Replacement]:
    """Those of `found` with which Python code still parses, all of them when it did not before.

    A group that breaks the code is halved until the entities are found that do; what is not settled after many tries
    stays.
    """
    if parses(_apply(text, found)) or not parses(text):
        return found
    safe, groups = list[Replacement](), [found]
    for _ in range(max(20, _PARSED // len(text))):
        if not groups:
            break
        group = groups.pop()
        if len(group) < len(found) and parses(_apply(text, safe + group)):
            safe += group
        elif len(group) > 1:
            half = len(group) // 2
            groups += (group[half:], group[:half])
    return safe


def parses(text: str) -> bool:
    """Whether `text` is Python code without a syntax error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strings with strange escapes
        try:
            ast.parse(text.removeprefix("\ufeff"))
        except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):  # the last four: nested too deeply
            return False
    return True
