"""Who is believed about what."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.combine import POLICY, CombinedDetector, combine, is_plausible
from starcoder.pii.entity import LABELS, Detector, Entity


class Fixed(Detector):
    """Finds what it was told."""

    def __init__(self, name: str, *found: Entity) -> None:
        self._name, self._found = name, list(found)

    @property
    def name(self) -> str:
        return self._name

    def detect(self, text: str) -> list[Entity]:
        return self._found


def rule(start: int, end: int, label: str) -> Entity:
    return Entity(start, end, label, 1.0, "regex")


def model(start: int, end: int, label: str) -> Entity:
    return Entity(start, end, label, 0.9, "ner")


def entities(label: st.SearchStrategy[str]) -> st.SearchStrategy[list[Entity]]:
    span = st.tuples(st.integers(0, 30), st.integers(1, 9), label, st.sampled_from((0.2, 0.65, 1.0)))
    return st.lists(span.map(lambda s: Entity(s[0], s[0] + s[1], *s[2:])), max_size=6)


def test_rules_come_first_and_the_model_adds() -> None:
    email, longer, other = rule(0, 9, "EMAIL"), model(0, 12, "NAME"), model(20, 29, "NAME")
    assert combine([email], [longer, other]) == [email, other]
    assert combine([email], [model(20, 29, "EMAIL")]) == [email]
    key, also = rule(0, 9, "KEY"), model(12, 20, "KEY")
    assert combine([key], [model(1, 9, "KEY"), also]) == [key, also]


def test_of_labels_that_overlap_the_costlier_to_miss_stays() -> None:
    assert combine([], [model(0, 5, "NAME")]) == [model(0, 5, "NAME")]
    assert combine([rule(0, 9, "KEY")], [model(2, 5, "PASSWORD")]) == [rule(0, 9, "KEY")]
    assert combine([rule(3, 9, "IP_ADDRESS")], [model(2, 5, "NAME")]) == [rule(3, 9, "IP_ADDRESS")]


@pytest.mark.parametrize(
    ("label", "before", "value", "expected"),
    [
        ("IP_ADDRESS", "at ", "8.8.8.8", True),
        ("IP_ADDRESS", "at ", "2001:db8::1", True),
        ("IP_ADDRESS", "at ", "1.2.3.400", False),
        ("IP_ADDRESS", "at ", "v1.2.3.4", False),
        ("KEY", "token = '", "Xk93jdLwq8Zm27Bn", True),
        ("KEY", '"integrity": "sha512-', "Zm9vYmFyMTIzNDU2Nzg5MGFi", False),
        ("KEY", '"x": "', "sha512-Zm9vYmFyMTIzNDU2Nzg5MGFi", False),
        ("KEY", "commit = '", "5beb31bdf78c0d314b101febf332e55f", False),
        ("KEY", "next_token = '", "Xk93jdLwq8Zm27Bn", False),
        ("KEY", "api_key = '", "xxxxxxxxxxxxxxxxxxxx", False),
        ("KEY", "api_key = '", "d41d8cd9-8f00-4204-a980-0998ecf8427e", False),
        ("KEY", "logo = '", "iVBORw0KGgoAAAANSUhEUgAAAAUA", False),
        ("PASSWORD", "with ", "hunter2", True),
        ("PASSWORD", "with ", "password", False),
        ("PASSWORD", "with ", "${PASSWORD}", False),
        ("NAME", "by ", "Ann Lee", True),
    ],
)
def test_what_a_model_finds_has_to_look_like_it(label: str, before: str, value: str, expected: bool) -> None:
    text = f"{before}{value}' and so on"
    found = Entity(len(before), len(before) + len(value), label, 1.0, "ner")
    assert is_plausible(text, found) is expected
    assert CombinedDetector(Fixed("regex"), Fixed("ner", found)).detect(text) == [found] * expected


def test_what_the_model_is_not_sure_of_is_left_out() -> None:
    unsure = [
        Entity(0, 9, "KEY", 0.79, "ner"),
        Entity(10, 15, "NAME", 0.59, "ner"),
        Entity(20, 25, "NAME", 0.6, "ner"),
    ]
    assert combine([], unsure) == unsure[2:]


def test_rules_have_no_say_about_meaning() -> None:
    assert combine([rule(0, 5, "NAME"), rule(6, 9, "USERNAME")], []) == []


@given(entities(st.sampled_from(LABELS)), entities(st.sampled_from(LABELS)))
def test_what_stands_is_disjoint_sorted_and_only_gives_way_to_what_stands_above(
    by_rules: list[Entity], by_model: list[Entity]
) -> None:
    kept = combine(by_rules, by_model)
    assert kept == sorted(kept)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    least = {(source, label): score for source, label, score in POLICY}
    for source, found in (("rules", by_rules), ("ner", by_model)):
        for entity in found:
            sure = entity.score >= least.get((source, entity.label), 2.0)
            if sure and entity not in kept:
                assert any(entity.overlaps(other) for other in kept)


def test_texts_go_to_both_together() -> None:
    rules, ner = Fixed("regex", rule(0, 9, "EMAIL")), Fixed("ner", model(10, 15, "NAME"))
    texts: Sequence[str] = ["a", "b"]
    both = CombinedDetector(rules, ner)
    assert both.detect_all(texts) == [[rule(0, 9, "EMAIL"), model(10, 15, "NAME")]] * 2
    assert both.detect("a") == both.detect_all(texts)[0]
    assert both.name == "regex+ner"
