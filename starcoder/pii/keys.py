"""The paper's keys (§4.2): plugins of detect-secrets behind its filters and guards, and the formats that they lack.

What a plugin finds counts when it is gibberish, none of detect-secrets' filters knows it, and neither its line nor its
file is about hashes. Known formats and values assigned to a key's name need to be gibberish only.
"""

from collections.abc import Iterator

from typing_extensions import override

from starcoder.pii.assigned import assigned
from starcoder.pii.entity import Detector, Entity, first_come
from starcoder.pii.guards import is_about_hashes, is_placeholder, is_secret, may_be_key, passes_filters
from starcoder.pii.prefilter import Finding, plugin_findings
from starcoder.pii.tokens import private_keys, tokens

_SHORTEST = 9  # the paper's redaction leaves shorter keys alone
_DELIMITERS = " \t\"'=:;,"  # which some plugins' patterns take in


class KeyDetector(Detector):
    """Finds keys; where rules overlap, private keys come before formats, these before assigned values and plugins."""

    @property
    @override
    def name(self) -> str:
        return "keys"

    @override
    def detect(self, text: str) -> list[Entity]:
        spans = (span for span in self._spans(text) if span[1] - span[0] >= _SHORTEST)
        return first_come(Entity(start, end, "KEY", detector=self.name) for start, end in spans)

    def _spans(self, text: str) -> Iterator[tuple[int, int]]:
        yield from private_keys(text)
        for start, end in (*tokens(text), *assigned(text)):
            if may_be_key(text[start:end]):
                yield start, end
        for finding in paper_findings(text):
            if is_secret(finding) and not is_placeholder(finding.value):
                yield _trimmed(finding)


def paper_findings(text: str) -> list[Finding]:
    """What the paper's rules keep of the plugins' findings."""
    findings = [finding for finding in plugin_findings(text) if passes_filters(finding)]
    return [] if findings and is_about_hashes(text) else findings


def _trimmed(finding: Finding) -> tuple[int, int]:
    """The finding without the delimiters around it."""
    left = len(finding.value) - len(finding.value.lstrip(_DELIMITERS))
    start = finding.start + left
    return start, start + len(finding.value.strip(_DELIMITERS))
