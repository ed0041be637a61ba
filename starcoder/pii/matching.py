"""How good a detector is (paper §4.1): a hit overlaps at least 80 % of what is there and of itself, label by label."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from starcoder.pii.entity import Entity
from starcoder.pii.examples import SCORED, Example

OVERLAP = 0.8
"""Share of both, the found and the true entity, that they have to have in common."""


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of one label; they add up over texts.

    Attributes:
        hits: Entities that were found.
        extra: Findings that hit none, apart from those that touch what need not be found.
        missed: Entities that were not found.
    """

    hits: int = 0
    extra: int = 0
    missed: int = 0

    def __add__(self, other: "Score") -> "Score":
        return Score(self.hits + other.hits, self.extra + other.extra, self.missed + other.missed)

    @property
    def precision(self) -> float:
        """Share of the findings that are hits; 0 where nothing was found."""
        return self.hits / max(1, self.hits + self.extra)

    @property
    def recall(self) -> float:
        """Share of the entities that were found; 0 where there are none."""
        return self.hits / max(1, self.hits + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.hits / max(1, 2 * self.hits + self.extra + self.missed)


@dataclass(frozen=True, slots=True)
class Scores:
    """The counts of every scored label; they add up over texts: `sum(…, Scores())`.

    Attributes:
        by_label: One `Score` for each of `SCORED`, in that order.
    """

    by_label: dict[str, Score] = field(default_factory=lambda: dict.fromkeys(SCORED, Score()))

    def __add__(self, other: "Scores") -> "Scores":
        return Scores({label: self.by_label[label] + other.by_label[label] for label in SCORED})

    @property
    def total(self) -> Score:
        """All labels together (the micro average)."""
        return sum(self.by_label.values(), Score())


def is_hit(found: Entity, true: Entity) -> bool:
    """Whether `found` counts as `true`."""
    shared = min(found.end, true.end) - max(found.start, true.start)
    longer = max(found.end - found.start, true.end - true.start)
    return found.label == true.label and shared >= OVERLAP * longer


def match(found: Sequence[Entity], true: Sequence[Entity]) -> dict[int, int]:
    """The largest one-to-one assignment of hits: place in `true` of each entity → place in `found`."""
    partner: dict[int, int] = {}
    for number in range(len(found)):
        _assign(number, found, true, partner, set())
    return partner


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the findings in a text and of the entities in it.

    Attributes:
        hits: Entities that were found.
        extra: Findings that hit none.
        missed: Entities that were not found.
    """

    hits: tuple[Entity, ...]
    extra: tuple[Entity, ...]
    missed: tuple[Entity, ...]


def judge(example: Example, found: Iterable[Entity]) -> Outcome:
    """Compare findings with what is in the text.

    A finding without partner that touches a fragment of `example.ignored` counts neither way. Findings of a label that
    is not scored (AMBIGUOUS) are left out.
    """
    findings = [entity for entity in found if entity.label in SCORED]
    true, ignored = example.entities, example.ignored
    partner = match(findings, true)
    lone = [entity for number, entity in enumerate(findings) if number not in set(partner.values())]
    return Outcome(
        tuple(true[place] for place in sorted(partner)),
        tuple(entity for entity in lone if not any(map(entity.overlaps, ignored))),
        tuple(entity for place, entity in enumerate(true) if place not in partner),
    )


def score(example: Example, found: Iterable[Entity]) -> Scores:
    """The counts of `judge`."""
    outcome = judge(example, found)
    hits, extra, missed = (
        Counter(entity.label for entity in part) for part in (outcome.hits, outcome.extra, outcome.missed)
    )
    return Scores({label: Score(hits[label], extra[label], missed[label]) for label in SCORED})


def score_all(examples: Iterable[Example], found: Iterable[Iterable[Entity]]) -> Scores:
    """The sum of the scores of many texts."""
    return sum(map(score, examples, found), Scores())


def _assign(
    number: int, found: Sequence[Entity], true: Sequence[Entity], partner: dict[int, int], seen: set[int]
) -> bool:
    """Give one finding an entity, moving earlier findings on to others where that makes room (Kuhn's algorithm)."""
    for place, entity in enumerate(true):
        if place not in seen and is_hit(found[number], entity):
            seen.add(place)
            if place not in partner or _assign(partner[place], found, true, partner, seen):
                partner[place] = number
                return True
    return False
