"""All rules together."""

import pickle
from itertools import pairwise
from random import Random

import pytest

from starcoder.errors import UserError
from starcoder.pii.detectors import RegexDetector, open_detector
from starcoder.pii.entity import Entity
from starcoder.pii.redaction import Replacement, redact, redactable
from tests.pii.fuzz import assert_sound, texts
from tests.pii.secrets import TOKENS

SECRET = TOKENS["GitHub"](Random(1))
TEXT = f"""# Maintainer: jane.roe@acme-widgets.org
SERVER = "93.184.216.34"
GITHUB_TOKEN = "{SECRET}"
"""


def test_each_rule_finds_its_own_in_the_order_of_the_text() -> None:
    entities = RegexDetector().detect(TEXT)
    assert [(entity.label, TEXT[entity.start : entity.end]) for entity in entities] == [
        ("EMAIL", "jane.roe@acme-widgets.org"),
        ("IP_ADDRESS", "93.184.216.34"),
        ("KEY", SECRET),
    ]


def test_a_key_comes_before_what_stands_in_it() -> None:
    text = f"git clone https://{SECRET}@github.com/acme/widgets"
    assert [text[entity.start : entity.end] for entity in RegexDetector().detect(text)] == [SECRET]


def test_a_detector_survives_pickling() -> None:
    detector = pickle.loads(pickle.dumps(open_detector()))
    assert detector.name == "regex"
    assert detector.detect(TEXT) == RegexDetector().detect(TEXT)


def test_a_model_that_is_missing_is_one_clear_line(tmp_path: object) -> None:
    with pytest.raises(UserError):
        open_detector(f"{tmp_path}/nothing", device="cpu")


def test_rules_and_redaction_survive_10_000_odd_texts() -> None:
    detector = RegexDetector()
    for text in texts(10_000, seed=11):
        entities = assert_sound(detector, text)
        redacted, replacements = redact(text, entities), redactable(text, entities)
        outside = "".join(text[a.end : b.start] for a, b in pairwise(_borders(text, replacements)))
        assert len(redacted.text) == len(outside) + sum(len(new) for _, new in replacements)
        assert redacted.counts or redacted.text is text


def _borders(text: str, replacements: list[Replacement]) -> list[Entity]:
    return [Entity(0, 0, ""), *(entity for entity, _ in replacements), Entity(len(text), len(text), "")]
