"""The plugins of detect-secrets that the paper's key detection runs (§4.2), on the lines where they can find something.

Each plugin is asked only about lines that hold what its patterns need: a literal, or a run of its characters. Those are
looked for in the whole text by regular expressions that never go back, so the time is linear in the text; the plugins'
own patterns, some of which are quadratic, see lines of at most `LONGEST` characters or such a stretch of a longer one.
On ordinary lines the findings equal those of all plugins on all lines.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

LONGEST = 2000  # characters of a line; a longer one is seen in stretches around what the plugins need
_AROUND = 300  # characters on either side of it
_FOLDED = "\\u0130\\u0131\\u017f\\u212a"  # what equals i, s and k in a pattern that ignores case

_ASSIGNED = "[=:> '\"]"  # what stands before the value of a key in the plugins' patterns

_NEEDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"A(?:KC[a-zA-Z0-9]{10}|P[\dA-F][a-zA-Z0-9]{8})", ("ArtifactoryDetector",)),
    (r"A(?:3T[A-Z0-9]|BIA|CCA|KIA|SIA)[0-9A-Z]{16}", ("AWSKeyDetector",)),
    (
        rf"['\"](?:[0-9A-Fa-f]{{9}}|[A-Za-z0-9+/\\_={_FOLDED}-]{{23}})",
        ("AWSKeyDetector", "Base64HighEntropyString", "HexHighEntropyString"),
    ),
    (r"AccountKey=", ("AzureStorageKeyDetector",)),
    (r"[MNO][a-zA-Z\d_-]{23,25}\.", ("DiscordBotTokenDetector",)),
    (r"gh[pours]_[A-Za-z0-9_]{36}", ("GitHubTokenDetector",)),
    (r"eyJ[A-Za-z0-9_=-]", ("JwtTokenDetector",)),
    (r"-us[0-9]", ("MailchimpDetector",)),
    (r":_authToken=", ("NpmDetector",)),
    (r"SG\.[a-zA-Z0-9_-]{22}\.", ("SendGridDetector",)),
    (r"[xX][oO][xX]", ("SlackDetector",)),
    (r"://[hH]", ("SlackDetector",)),
    (r"k_live_", ("StripeDetector",)),
    (r"AC[a-z0-9]{32}", ("TwilioKeyDetector",)),
    (r"SK[a-z0-9]{32}", ("TwilioKeyDetector",)),
    (r"://[aA][pP][iI\u0130\u0131]", ("SoftlayerDetector",)),
    (
        rf"{_ASSIGNED}(?:[A-Za-z{_FOLDED}]{{24}}|[A-Za-z0-9_{_FOLDED}-]{{44}})",
        ("CloudantDetector", "IbmCloudIamDetector", "IbmCosHmacDetector", "SoftlayerDetector"),
    ),
)
"""What a plugin's patterns need of a line; an entropy of 4.5 bits needs 23 characters, one of 3 bits needs 9."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a plugin found: a stretch of the text, the part of its line that the plugin saw, and its place in it."""

    start: int
    end: int
    plugin: Any
    line: str
    offset: int

    @property
    def value(self) -> str:
        """The text found."""
        return self.line[self.offset : self.offset + self.end - self.start]


def plugin_findings(text: str) -> Iterator[Finding]:
    """What the plugins find in the text, before any filter."""
    for need, plugins in _compiled():
        for start, end in stretches(text, need):
            line = text[start:end].rstrip()
            for plugin in plugins:
                yield from on_line(plugin, line, start)


def on_line(plugin: Any, line: str, place: int) -> Iterator[Finding]:
    """What a plugin's `analyze_line` finds in a line that starts at `place`, with the places of it."""
    for pattern in getattr(plugin, "denylist", None) or [plugin.regex]:
        for match in pattern.finditer(line):
            for start, end in _spans(match, plugin):
                if _holds(plugin, line[start:end]):
                    yield Finding(place + start, place + end, plugin, line, start)


def _spans(match: re.Match[str], plugin: Any) -> list[tuple[int, int]]:
    """What `findall` returns of a match: its groups with something in them, or all; of a quoted string the inside."""
    if hasattr(plugin, "entropy_limit"):
        return [match.span(2)]
    return [match.span(group) for group in range(1, match.re.groups + 1) if match[group]] or [match.span()]


def _holds(plugin: Any, value: str) -> bool:
    """What a plugin asks of a value beyond its pattern."""
    if hasattr(plugin, "entropy_limit"):
        return bool(plugin.calculate_shannon_entropy(value) > plugin.entropy_limit)
    return not hasattr(plugin, "is_formally_valid") or bool(plugin.is_formally_valid(value))


def stretches(text: str, need: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """The lines with a match of `need`; of a line above `LONGEST`, overlapping windows around them."""
    place = 0
    while match := need.search(text, place):
        at = match.start()
        start, end = _line(text, at)
        place = max(end, at + 1)
        if end - start > LONGEST:
            start, end = max(start, at - _AROUND), min(end, at + LONGEST - _AROUND)
            place = end - _AROUND if end - at > _AROUND else place
        yield start, end


def _line(text: str, place: int) -> tuple[int, int]:
    """Where the line of that place starts and ends; no further away than `LONGEST`: lines may be huge."""
    floor, ceiling = max(0, place - LONGEST), min(len(text), place + LONGEST)
    end = text.find("\n", place, ceiling)
    return text.rfind("\n", floor, place) + 1 or floor, ceiling if end < 0 else end


@cache
def all_plugins() -> dict[str, Any]:
    """The plugins of the paper by class name, with the library's own limits."""
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    found: Mapping[str, Any] = get_mapping_from_secret_type_to_class()
    classes = {plugin.__name__: plugin for plugin in found.values()}
    return {name: classes[name]() for _, names in _NEEDS for name in names}


@cache
def _compiled() -> list[tuple[re.Pattern[str], list[Any]]]:
    return [(re.compile(need), [all_plugins()[name] for name in names]) for need, names in _NEEDS]
