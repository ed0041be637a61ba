"""Rules and model together: who is believed about which label (measured by `starcoder pii benchmark`)."""

from collections.abc import Sequence
from ipaddress import ip_address

from starcoder.pii.entity import Detector, Entity, first_come
from starcoder.pii.guards import is_no_key
from starcoder.pii.password_guards import may_be_password

POLICY = (
    ("rules", "EMAIL", 0.0),
    ("rules", "IP_ADDRESS", 0.0),
    ("rules", "KEY", 0.0),
    ("rules", "PASSWORD", 0.0),
    ("ner", "KEY", 0.8),
    ("ner", "PASSWORD", 0.8),
    ("ner", "IP_ADDRESS", 0.6),
    ("ner", "NAME", 0.6),
    ("ner", "USERNAME", 0.5),
    ("ner", "AMBIGUOUS", 0.9),
)
"""Who may find what, and the least score. An entity gives way to every other that it overlaps and that stands above."""


class CombinedDetector(Detector):
    """What rules and a model find; where they overlap, what `POLICY` puts first.

    | label | found by |
    |---|---|
    | EMAIL | the rules: all addresses have a form |
    | IP_ADDRESS, KEY, PASSWORD | the rules, where it has a form; the model elsewhere, where it is sure enough |
    | NAME, USERNAME | the model, where it is fairly sure and contradicts no rule |

    What the model finds must look like what it says it is, as far as the rules know. The scores were chosen on part of
    the training side, its templates and names held out for it; `starcoder pii benchmark` measures on the other side.

    Of labels that overlap, the one that it costs most to miss wins: a password before the name inside of it.

    Args:
        rules: Finds what has a form.
        ner: Finds what has a meaning.
    """

    def __init__(self, rules: Detector, ner: Detector) -> None:
        self.rules, self.ner = rules, ner

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.rules.name}+{self.ner.name}"

    def detect(self, text: str) -> list[Entity]:
        """The entities of one text."""
        return self.detect_all([text])[0]

    def detect_all(self, texts: Sequence[str]) -> list[list[Entity]]:
        """The entities of each text, the model's in batches."""
        return [
            combine(by_rules, [entity for entity in by_model if is_plausible(text, entity)])
            for text, by_rules, by_model in zip(
                texts, self.rules.detect_all(texts), self.ner.detect_all(texts), strict=True
            )
        ]


def is_plausible(text: str, entity: Entity) -> bool:
    """Whether a value has the form of its label, and is none of what the rules know to look like a secret."""
    value = text[entity.start : entity.end]
    if entity.label == "IP_ADDRESS":
        return _is_address(value)
    if entity.label == "KEY":
        return not is_no_key(text, entity.start, entity.end)
    return entity.label != "PASSWORD" or may_be_password(value)


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def combine(by_rules: Sequence[Entity], by_model: Sequence[Entity]) -> list[Entity]:
    """Of two findings, what `POLICY` lets stand."""
    found = {"rules": by_rules, "ner": by_model}
    return first_come(
        entity
        for source, label, least in POLICY
        for entity in found[source]
        if entity.label == label and entity.score >= least
    )
