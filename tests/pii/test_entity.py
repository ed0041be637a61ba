from hypothesis import given
from hypothesis import strategies as st

from starcoder.pii.entity import LABELS, Entity, first_come

ENTITIES = st.builds(
    lambda start, length, label: Entity(start, start + length, label),
    st.integers(0, 40),
    st.integers(1, 12),
    st.sampled_from(LABELS),
)


@given(st.lists(ENTITIES, max_size=20))
def test_first_come_is_first_served(entities: list[Entity]) -> None:
    kept: list[Entity] = []
    for entity in entities:
        if not any(entity.overlaps(other) for other in kept):
            kept.append(entity)
    assert first_come(entities) == sorted(kept)


def test_tens_of_thousands_are_no_burden() -> None:
    entities = [Entity(3 * n, 3 * n + 2, "KEY") for n in range(100_000)]
    assert first_come([*entities, *entities]) == entities
