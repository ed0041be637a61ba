"""The 80 % rule against a brute-force reference."""

import random
from itertools import permutations

import pytest

from starcoder.pii.entity import Entity
from starcoder.pii.examples import CATEGORIES, SCORED, Example
from starcoder.pii.matching import Score, Scores, is_hit, match, score, score_all


def entity(rng: random.Random, labels: tuple[str, ...], length: int = 40) -> Entity:
    start = rng.randrange(length)
    return Entity(start, start + rng.randint(1, 12), rng.choice(labels))


def hit_by_characters(one: Entity, other: Entity) -> bool:
    a, b = set(range(one.start, one.end)), set(range(other.start, other.end))
    return one.label == other.label and 10 * len(a & b) >= 8 * len(a) and 10 * len(a & b) >= 8 * len(b)


def most_hits(found: list[Entity], true: list[Entity]) -> int:
    short, long = sorted((found, true), key=len)
    return max(sum(map(hit_by_characters, short, order)) for order in permutations(long, len(short)))


def test_a_hit_covers_four_fifths_of_both() -> None:
    true = Entity(10, 20, "KEY")
    assert is_hit(Entity(10, 18, "KEY"), true)
    assert is_hit(Entity(12, 20, "KEY"), true)
    assert is_hit(Entity(10, 22, "KEY"), true)
    assert not is_hit(Entity(9, 22, "KEY"), true)
    assert not is_hit(Entity(10, 17, "KEY"), true)
    assert not is_hit(Entity(10, 20, "NAME"), true)


@pytest.mark.parametrize("seed", range(300))
def test_matching_is_the_largest_one_to_one_assignment(seed: int) -> None:
    rng = random.Random(seed)
    labels = ("NAME", "KEY")[: rng.randint(1, 2)]
    true = [entity(rng, labels, 6) for _ in range(rng.randint(0, 5))]
    found = [entity(rng, labels, 6) for _ in range(rng.randint(0, 5))]
    partner = match(found, true)
    assert len(set(partner.values())) == len(partner) == most_hits(found, true)
    assert all(hit_by_characters(found[number], true[place]) for place, number in partner.items())


@pytest.mark.parametrize("seed", range(200))
def test_counts_agree_with_brute_force(seed: int) -> None:
    rng = random.Random(seed)
    example = Example("x" * 60, tuple(sorted(entity(rng, CATEGORIES) for _ in range(rng.randint(0, 9)))))
    found = [entity(rng, SCORED) for _ in range(rng.randint(0, 5))]
    scores = score(example, found)
    for label in SCORED:
        predicted = [e for e in found if e.label == label]
        true = [e for e in example.fragments if e.label in (label, f"{label}_LICENSE")]
        hits = most_hits(predicted, [Entity(e.start, e.end, label) for e in true])
        got = scores.by_label[label]
        assert (got.hits, got.missed) == (hits, len(true) - hits)
        careless = sum(any(e.overlaps(i) for i in example.ignored) for e in predicted)
        assert len(predicted) - hits - careless <= got.extra <= len(predicted) - hits


def test_what_nobody_cares_about_counts_neither_way() -> None:
    example = Example("x" * 50, (Entity(0, 9, "EMAIL_EXAMPLE"), Entity(10, 19, "ID"), Entity(20, 29, "EMAIL_LICENSE")))
    inside, beside = Entity(8, 12, "KEY"), Entity(30, 40, "KEY")
    scores = score(
        example, [Entity(0, 9, "EMAIL"), inside, Entity(20, 29, "EMAIL"), beside, Entity(41, 45, "AMBIGUOUS")]
    )
    assert scores.by_label["EMAIL"] == Score(hits=1)
    assert scores.by_label["KEY"] == Score(extra=1)
    assert scores.total == Score(1, 1, 0)


def test_scores_add_up_and_give_the_textbook_measures() -> None:
    example = Example("x" * 50, (Entity(0, 10, "NAME"), Entity(20, 30, "NAME"), Entity(40, 50, "KEY")))
    scores = score_all([example, example], [[Entity(0, 10, "NAME"), Entity(12, 18, "NAME")], [Entity(40, 50, "KEY")]])
    name = scores.by_label["NAME"]
    assert name == Score(1, 1, 3)
    assert (name.precision, name.recall) == (0.5, 0.25)
    assert name.f1 == pytest.approx(1 / 3)
    assert scores.by_label["KEY"].f1 == pytest.approx(2 / 3)
    assert scores + Scores() == scores == sum([scores], Scores())
    assert (Score().precision, Score().recall, Score().f1) == (0, 0, 0)
