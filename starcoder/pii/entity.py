"""What a detector finds: a stretch of the original text with a label (paper §4.1), and what every detector can do."""

from abc import ABC, abstractmethod
from bisect import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starcoder.errors import UserError

LABELS = ("NAME", "EMAIL", "USERNAME", "KEY", "IP_ADDRESS", "PASSWORD", "AMBIGUOUS")
"""The labels of detectors. The first six are the classes of the paper's Table 8."""


@dataclass(frozen=True, slots=True, order=True)
class Entity:
    """Something personal or secret in a text.

    Attributes:
        start: Place of its first character in the original text, counted in characters from 0.
        end: Place after its last character; above `start`.
        label: One of `LABELS`.
        score: How sure the detector is, 0 to 1; a rule is always sure.
        detector: Name of the detector.
    """

    start: int
    end: int
    label: str
    score: float = 1.0
    detector: str = ""

    def overlaps(self, other: "Entity") -> bool:
        """Whether the two share a character."""
        return self.start < other.end and other.start < self.end


class Detector(ABC):
    """Finds entities. Picklable; the same text always gives the same entities, in their order and without overlaps."""

    @property
    @abstractmethod
    def name(self) -> str:
        """What reports call it."""

    @abstractmethod
    def detect(self, text: str) -> list[Entity]:
        """The entities of one text of any size, in any Unicode, sorted by start."""

    def detect_all(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text; a model computes them in batches."""
        return [self.detect(text) for text in texts]


def first_come(entities: Iterable[Entity]) -> list[Entity]:
    """Those that overlap none before them, sorted by start: whoever is more to be trusted comes first."""
    kept: list[Entity] = []
    for entity in entities:
        place = bisect(kept, entity)
        if not any(map(entity.overlaps, kept[max(0, place - 1) : place + 1])):
            kept.insert(place, entity)
    return kept


def split_labels(names: str) -> list[str]:
    """The labels that an option lists, separated by commas, in any case."""
    return [name.strip().upper() for name in names.split(",") if name.strip()]


def check_labels(labels: Sequence[str]) -> frozenset[str]:
    """Return `labels` as a set.

    Raises:
        UserError: one of them does not exist.
    """
    if unknown := sorted(set(labels) - set(LABELS)):
        raise UserError(f"no label {', '.join(unknown)}; labels are {', '.join(LABELS)}")
    return frozenset(labels)
