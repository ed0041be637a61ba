"""The detectors by one name: all rules together, and the rules beside a model."""

from collections.abc import Iterator

from typing_extensions import override

from starcoder.pii.addresses import AddressDetector
from starcoder.pii.emails import EmailDetector
from starcoder.pii.entity import Detector, Entity, first_come
from starcoder.pii.keys import KeyDetector
from starcoder.pii.passwords import PasswordDetector


class RegexDetector(Detector):
    """E-mails, IP addresses and keys by rules (paper §4.2, the regex baseline), and passwords that have a form.

    Where two rules overlap, a key comes before a password, that before an e-mail and an e-mail before an address: a key
    is the longest and the least like anything else, and what stands inside of it would leave its rest behind; the end
    of a password and the host behind it can look like an e-mail.
    """

    def __init__(self) -> None:
        self._detectors = (KeyDetector(), PasswordDetector(), EmailDetector(), AddressDetector())

    @property
    @override
    def name(self) -> str:
        return "regex"

    @override
    def detect(self, text: str) -> list[Entity]:
        return first_come(self._entities(text))

    def _entities(self, text: str) -> Iterator[Entity]:
        for detector in self._detectors:
            yield from detector.detect(text)


def open_detector(model: str | None = None, device: str = "auto") -> Detector:
    """The rules, or the rules and a model combined.

    Args:
        model: Folder or Hub repository of a NER model; without one the rules work alone.
        device: Where the model runs: `auto`, `cpu`, `cuda`, …

    Raises:
        UserError: the model cannot be opened.
    """
    rules = RegexDetector()
    if model is None:
        return rules
    from starcoder.pii.combine import CombinedDetector
    from starcoder.pii.ner import NerDetector

    return CombinedDetector(rules, NerDetector.open(model, device))
