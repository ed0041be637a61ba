from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from starcoder.corpus.document import Document
from starcoder.corpus.mix import MIXES, NATURAL, PAPER, Mix, mix_key, rates, times
from starcoder.errors import UserError

GB = 10**9
# Volumes after the paper's filters, in MB; its other sources together have 729.95 GB.
PUBLISHED = {"json": 5620, "yaml": 3760, "css": 11_930, "commits": 64_000, "java": 86_940, "other": 643_010}

_KEYS = ("python", "json", "yaml", "css", "commits", "issues")
_VOLUMES = st.dictionaries(st.sampled_from(_KEYS), st.integers(0, 10**12))
_MIXES = st.builds(
    Mix,
    weights=st.dictionaries(st.sampled_from(_KEYS), st.just(0.0) | st.floats(0.01, 4)),
    caps=st.dictionaries(st.sampled_from(_KEYS), st.floats(0.001, 0.9)),
)


def document(number: int, **fields: object) -> Document:
    return Document("r", f"{number}.py", "python", "py", ("MIT",), 1, **fields)  # type: ignore[arg-type]


def test_the_paper_mix_gives_the_published_weights() -> None:
    """JSON and YAML come down to 1 GB each, CSS to 3, commits to 32: the published sum is 766.95 GB."""
    found = rates({key: volume * 10**6 for key, volume in PUBLISHED.items()}, PAPER)
    gigabytes = {key: rate * PUBLISHED[key] / 1000 for key, rate in found.items()}
    assert gigabytes == pytest.approx(
        {"json": 1, "yaml": 1, "css": 3, "commits": 32, "java": 86.94, "other": 643.01}, rel=1e-6
    )
    assert sum(gigabytes.values()) == pytest.approx(766.95)


def test_a_small_language_is_not_blown_up_to_its_cap() -> None:
    assert rates({"python": 999 * GB, "json": GB // 1000, "yaml": GB}, PAPER) == {"python": 1, "json": 1, "yaml": 1}


def test_a_cap_can_bind_because_another_does() -> None:
    """Of 100, AWK has a share of 0.1 and may; when Ada is cut down it would be 0.2, so that both are cut."""
    found = rates({"ada": 50, "awk": 10, "c": 40}, Mix(caps={"ada": 0.1, "awk": 0.15}))
    total = 40 / 0.75
    assert found == pytest.approx({"ada": 0.1 * total / 50, "awk": 0.15 * total / 10, "c": 1})


def test_caps_without_anything_else_do_not_hold() -> None:
    assert rates({"json": 10, "yaml": 30}, PAPER) == {"json": 1, "yaml": 1}
    assert rates({"css": 10, "commits": 30}, Mix({"commits": 0.0, "css": 2.0}, {"css": 0.5})) == {
        "css": 2,
        "commits": 0,
    }
    assert rates({}, PAPER) == {}


@given(_VOLUMES)
def test_the_natural_mix_takes_each_document_once(volumes: dict[str, int]) -> None:
    assert rates(volumes, NATURAL) == {key: 1.0 if volume else 0.0 for key, volume in volumes.items()}


@given(_VOLUMES, _MIXES)
def test_what_is_cut_down_is_at_its_cap_and_all_caps_hold(volumes: dict[str, int], mix: Mix) -> None:
    found = rates(volumes, mix)
    assert found.keys() == volumes.keys()
    taken = {key: rate * volumes[key] for key, rate in found.items()}
    natural = {key: volume * mix.weights.get(key, 1.0) for key, volume in volumes.items()}
    most = {key: mix.caps.get(key, 1.0) * sum(taken.values()) for key in volumes}
    cut = [key for key in volumes if taken[key] != pytest.approx(natural[key])]
    assert all(taken[key] == pytest.approx(most[key]) and taken[key] < natural[key] for key in cut)
    capped_alone = all(key in mix.caps for key in volumes if natural[key])
    assert (capped_alone and not cut) or all(taken[key] <= most[key] * (1 + 1e-6) for key in volumes)


def test_keys() -> None:
    assert [mix_key("python", kind) for kind in ("code", "issue", "commit", "notebook", "notebook-script")] == [
        "python",
        "issues",
        "commits",
        "notebooks",
        "notebook-scripts",
    ]
    assert {"natural": NATURAL, "paper": PAPER} == MIXES


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 1.0, 2.5])
def test_documents_are_taken_as_often_as_the_rate_says(rate: float) -> None:
    """10,000 draws: four standard deviations of the mean are 0.02."""
    counts = Counter(times(document(number), rate, seed=0) for number in range(10_000))
    assert set(counts) == {int(rate), int(rate) + (rate % 1 > 0)}
    assert sum(taken * n for taken, n in counts.items()) / 10_000 == pytest.approx(rate, abs=0.02)


def test_the_draw_depends_on_document_and_seed_alone() -> None:
    def draws(rate: float, seed: int = 0, **fields: object) -> list[int]:
        return [times(document(number, **fields), rate, seed) for number in range(200)]

    assert draws(0.5) == draws(0.5, content="a text", stars=3)
    assert draws(0.5) != draws(0.5, seed=1)
    assert draws(0.5) != draws(0.5, source="other")
    assert draws(0.5) != draws(0.5, kind="notebook")
    assert all(a <= b for a, b in zip(draws(0.3), draws(0.5), strict=True))
    assert draws(1.5) == [1 + n for n in draws(0.5)]


@pytest.mark.parametrize(
    "mix", [Mix(weights={"c": -1.0}), Mix(caps={"c": 1.0}), Mix(caps={"c": -0.1}), Mix(weights={"c": float("nan")})]
)
def test_what_is_no_mix_is_one_line(mix: Mix) -> None:
    with pytest.raises(UserError, match="weights of a mix"):
        rates({"c": 1}, mix)
