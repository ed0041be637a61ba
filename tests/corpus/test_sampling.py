from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.sampling import fair_share, fit, held_out, random_key

_SIZES = st.dictionaries(st.text(max_size=5), st.integers(0, 1000), min_size=1, max_size=20)


@given(st.lists(st.integers(0, 60), max_size=8), st.integers(0, 300))
def test_fair_share_is_the_largest_cap_within_the_budget(sizes: list[int], budget: int) -> None:
    def total(cap: int) -> int:
        return sum(min(size, cap) for size in sizes)

    cap = fair_share(sizes, budget)
    assert total(cap) <= budget
    assert total(cap) == sum(sizes) or total(cap + 1) > budget


@given(_SIZES, st.integers(0, 5000), st.integers(0, 3))
def test_fit_stays_in_the_budget_and_leaves_nothing_that_fits(sizes: dict[str, int], budget: int, seed: int) -> None:
    chosen = fit(sizes, budget, seed)
    rest = budget - sum(sizes[name] for name in chosen)
    assert rest >= 0
    assert all(sizes[name] > rest for name in set(sizes) - chosen)
    assert fit(dict(reversed(sizes.items())), budget, seed) == chosen


def test_fit_is_a_fair_sample() -> None:
    """Of equal things each is chosen equally often: 2,000 draws of 3 from 10, within 4 standard deviations."""
    sizes = {str(number): 1 for number in range(10)}
    draws = [fit(sizes, 3, seed) for seed in range(2000)]
    assert {len(draw) for draw in draws} == {3}
    for name in sizes:
        assert abs(sum(name in draw for draw in draws) - 600) < 4 * (2000 * 0.3 * 0.7) ** 0.5


@given(_SIZES, st.floats(0.01, 0.9), st.integers(0, 3))
def test_held_out(sizes: dict[str, int], share: float, seed: int) -> None:
    chosen = held_out(sizes, share, seed)
    budget = int(share * sum(sizes.values()))
    smallest = min(sizes.values())
    assert chosen
    assert sum(sizes[name] for name in chosen) <= max(budget, smallest)
    assert all(sizes[name] <= max(budget // 4, smallest) for name in chosen)


def test_random_keys_depend_on_seed_and_name() -> None:
    assert len({random_key(seed, name) for seed in range(10) for name in ("a", "b", "")}) == 30
    assert random_key(0, "numpy").hex() == random_key(0, "numpy").hex() != random_key(1, "numpy").hex()
