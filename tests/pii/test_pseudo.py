"""Which labels of models are trained on."""

import json
from pathlib import Path

import pytest

from starcoder.pii.entity import Entity
from starcoder.pii.examples import Example, read_examples
from starcoder.pii.pseudo import filtered


def kept(text: str, *fragments: Entity) -> list[tuple[Entity, ...]]:
    return [example.fragments for example in filtered([Example(text, fragments)])]


@pytest.mark.parametrize(
    ("label", "score", "expected"),
    [
        ("NAME", 0.7, "kept"),
        ("NAME", 0.69, "left out"),
        ("NAME", 0.6, "left out"),
        ("NAME", 0.59, "file left out"),
        ("USERNAME", 0.7, "kept"),
        ("USERNAME", 0.61, "left out"),
        ("USERNAME", 0.609, "file left out"),
        ("EMAIL", 0.9, "kept"),
        ("EMAIL", 0.1, "left out"),
        ("AMBIGUOUS", 1.0, "left out"),
    ],
)
def test_confidence_decides(label: str, score: float, expected: str) -> None:
    fragment = Entity(0, 3, label, score)
    results = {"kept": [(fragment,)], "left out": [()], "file left out": []}
    assert kept("ada", fragment) == results[expected]


@pytest.mark.parametrize(
    ("label", "text", "expected"),
    [
        ("KEY", "api_key = '", True),
        ("KEY", "API_KEY: ", True),
        ("KEY", "key_of_the_thing = ", False),
        ("KEY", "key\n= ", False),
        ("PASSWORD", "passwd=", True),
        ("PASSWORD", "word = ", False),
        ("IP_ADDRESS", "host: '", True),
        ("IP_ADDRESS", "version: ", False),
        ("IP_ADDRESS", "server" + " " * 200, False),
    ],
)
def test_a_trigger_word_decides(label: str, text: str, expected: bool) -> None:
    fragment = Entity(len(text), len(text) + 4, label, 0.2)
    assert kept(text + "x9Q7", fragment) == [(fragment,) if expected else ()]


def test_scores_are_read_from_the_file(tmp_path: Path) -> None:
    file = tmp_path / "pseudo.jsonl"
    rows = [{"category": "NAME", "position": [0, 3], "score": 0.65}, {"category": "NAME", "position": [4, 7]}]
    file.write_text(json.dumps({"text": "ada eve", "fragments": rows}))
    (example,) = read_examples(file)
    assert [fragment.score for fragment in example.fragments] == [0.65, 1.0]
    assert [fragment.start for fragment in filtered([example])[0].fragments] == [4]
