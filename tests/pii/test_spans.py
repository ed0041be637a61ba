"""From tags to entities: the way back from examples, and what a model says that makes no sense."""

import random
import re

import numpy as np
import pytest
from numpy.typing import NDArray

from starcoder.errors import UserError
from starcoder.pii.bio import IGNORED, TAGS, Tokens, encode, tag
from starcoder.pii.entity import Entity
from starcoder.pii.spans import Tags, trim
from starcoder.tokenizer import train

TOKENIZER = train(["password = 'ada lovelace'; token: 0123 ghp_x\n"] * 20, 290).backend
OURS = Tags(dict(enumerate(TAGS)))
RELEASED = ("AMBIGUOUS", "EMAIL", "IP_ADDRESS", "KEY", "NAME", "PASSWORD", "USERNAME")
STARPII = ("O", *(f"{place}-{label}" for label in RELEASED for place in "BI"))


def one_hot(tags: NDArray[np.int64], count: int, sure: float = 0.9) -> NDArray[np.float32]:
    rows = np.full((len(tags), count), (1 - sure) / (count - 1), np.float32)
    rows[np.arange(len(tags)), np.where(tags == IGNORED, 0, tags)] = sure
    return rows


def words(text: str) -> Tokens:
    """A word a token, and the blank between them in none."""
    starts = np.array([i for i, c in enumerate(text) if c != " " and (i == 0 or text[i - 1] == " ")])
    ends = np.array([text.find(" ", i) if " " in text[i:] else len(text) for i in starts])
    return Tokens(np.zeros(len(starts), np.int64), starts, ends, np.arange(len(starts)))


def found(text: str, *names: str) -> list[tuple[str, str]]:
    numbers = np.array([STARPII.index(name) for name in names])
    entities = Tags(dict(enumerate(STARPII))).entities(text, words(text), one_hot(numbers, 15))
    return [(text[e.start : e.end], e.label) for e in entities]


@pytest.mark.parametrize("seed", range(100))
def test_labelled_words_come_back(seed: int) -> None:
    rng = random.Random(seed)
    parts, fragments, at = [], [], 0
    for _ in range(12):
        value = "".join(rng.choice("adelov0123") for _ in range(rng.randint(2, 9)))
        label = rng.choice(("NAME", "KEY", "PASSWORD", "EMAIL", None, None))
        if label:
            fragments.append(Entity(at, at + len(value), label, detector="ner"))
        parts.append(value + rng.choice((" = ", ": ", ", ", "\n")))
        at += len(parts[-1])
    text = "".join(parts)
    tokens = encode(TOKENIZER, text)
    got = OURS.entities(text, tokens, one_hot(tag(tokens, fragments), len(TAGS)))
    assert [(e.start, e.end, e.label) for e in got] == [(e.start, e.end, e.label) for e in fragments]
    assert all(0.85 < e.score <= 1 for e in got)


def test_what_no_tagging_can_be_becomes_what_is_meant() -> None:
    assert found("ada lovelace said", "I-NAME", "I-NAME", "O") == [("ada lovelace", "NAME")]
    assert found("ada lovelace said", "B-NAME", "I-KEY", "O") == [("ada", "NAME"), ("lovelace", "KEY")]
    assert found("ada bob eve", "B-NAME", "B-NAME", "I-NAME") == [("ada", "NAME"), ("bob eve", "NAME")]
    assert found("ada", "B-AMBIGUOUS") == [("ada", "AMBIGUOUS")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fe80::12 x", ["fe80::12"]),  # two signs between words of one label
        ("ab//++cd x", ["ab//++cd"]),
        ("ab//+++cd x", ["ab", "cd"]),
        ("ab, cd x", ["ab", "cd"]),
    ],
)
def test_signs_within_an_entity_may_be_missed_but_not_blanks(text: str, expected: list[str]) -> None:
    parts = [match.span() for match in re.finditer(r"\w+|[^\w\s]+", text)]
    starts, ends = np.array(parts).T
    tokens = Tokens(np.zeros(len(parts), np.int64), starts, ends, np.arange(len(parts)))
    names = np.array([TAGS.index("I-KEY") if text[a].isalnum() and text[a] != "x" else 0 for a in starts])
    found = OURS.entities(text, tokens, one_hot(names, len(TAGS)))
    assert [text[e.start : e.end] for e in found] == expected


def test_a_label_that_nobody_asks_for_is_left_out() -> None:
    tokens = words("a@example.com x")
    assert OURS.entities("a@example.com x", tokens, one_hot(np.array([TAGS.index("B-EMAIL_EXAMPLE"), 0]), 15)) == []


def test_a_word_has_the_mean_of_its_tokens() -> None:
    tokens = Tokens(np.zeros(3, np.int64), np.array([0, 2, 4]), np.array([2, 4, 5]), np.array([0, 0, 1]))
    tags = Tags({0: "O", 1: "B-NAME", 2: "I-NAME", 3: "B-KEY", 4: "I-KEY"})
    rows = np.array([[0.1, 0.6, 0.0, 0.3, 0.0], [0.1, 0.0, 0.2, 0.0, 0.7], [1, 0, 0, 0, 0]], np.float32)
    (entity,) = tags.entities("abcd;", tokens, rows)
    assert (entity.start, entity.end, entity.label) == (0, 4, "KEY")
    assert entity.score == pytest.approx(0.5)


@pytest.mark.parametrize(("beside", "expected"), [(0.3, "ada de lovelace"), (0.2, "lovelace")])
def test_words_beside_half_a_name_belong_to_it(beside: float, expected: str) -> None:
    text = "by ada de lovelace said"
    tags = Tags({0: "O", 1: "B-NAME", 2: "I-NAME", 3: "B-KEY", 4: "I-KEY"})
    rows = np.array([[1 - p, p / 2, p / 2, 0, 0] for p in (0.1, beside, beside, 0.9, 0.1)], np.float32)
    (entity,) = tags.entities(text, words(text), rows)
    assert (text[entity.start : entity.end], entity.label) == (expected, "NAME")


def test_a_word_of_another_label_is_not_taken() -> None:
    text = "ada hunter2"
    tags = Tags({0: "O", 1: "NAME", 2: "PASSWORD"})
    found = tags.entities(text, words(text), np.array([[0, 0.9, 0.1], [0.1, 0.4, 0.5]], np.float32))
    assert [(text[e.start : e.end], e.label) for e in found] == [("ada", "NAME"), ("hunter2", "PASSWORD")]


def test_spans_are_trimmed() -> None:
    text = ' ("p4ss!=") '
    assert trim(text, 0, len(text), "PASSWORD") == (3, 7)
    assert trim(text, 0, 9, "KEY") == (3, 9)
    assert trim("---", 0, 3, "NAME") is None


def test_tags_without_places_are_understood_and_others_refused() -> None:
    plain = Tags({0: "O", 1: "NAME"})
    (entity,) = plain.entities("ada lovelace", words("ada lovelace"), one_hot(np.array([1, 1]), 2))
    assert (entity.start, entity.end) == (0, 12)
    with pytest.raises(UserError, match="LABEL_0, LABEL_1"):
        Tags({0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(UserError, match="no 'O'"):
        Tags({0: "B-NAME", 1: "I-NAME"})
