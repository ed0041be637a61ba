"""The published numbers: what can be cross-checked is, and no number goes without its source."""

import pytest

from starcoder.evaluation.languages import LANGUAGES
from starcoder.evaluation.published import PUBLISHED, Published, published
from starcoder.evaluation.tables import is_share
from starcoder.evaluation.tasks import TASKS
from starcoder.evaluation.tasks.ds1000 import LIBRARIES
from starcoder.evaluation.tasks.multipl_e import TITLES

DS1000_SIZES = {
    "Matplotlib": 155,
    "NumPy": 220,
    "Pandas": 291,
    "PyTorch": 68,
    "SciPy": 106,
    "scikit-learn": 115,
    "TensorFlow": 45,
}


def every() -> list[tuple[str, str, str, str, Published]]:
    return [
        (task, group, measure, model, number)
        for task, groups in PUBLISHED.items()
        for group, measures in groups.items()
        for measure, models in measures.items()
        for model, number in models.items()
    ]


def test_every_number_is_in_its_units_and_has_a_source() -> None:
    numbers = every()
    assert len(numbers) > 250
    for task, _, measure, _, number in numbers:
        assert task in TASKS
        assert number.source
        assert ("recalled" in number.source) <= number.recalled
        assert 0 <= number.value <= 1 if is_share(measure) else number.value > 1


def test_the_headline_is_confirmed_by_a_public_page() -> None:
    table = published("humaneval", "", "pass@1")
    found = {model: (number.value, number.recalled) for model, number in table.items()}
    assert found["StarCoder"] == (0.336, False)
    assert found["StarCoderBase"] == (0.304, False)
    assert found["StarCoder-Prompted"] == (0.408, False)
    assert found["StarCoderBase-3B"] == (0.2146, True)
    assert published("mbpp-paper", "", "pass@1")["StarCoder"].value == 0.527
    assert published("mbpp", "", "pass@1")["StarCoder"].value == 0.436
    assert published("humaneval", "", "pass@7") == published("no-task", "", "pass@1") == {}


def test_the_rows_are_those_of_the_tasks() -> None:
    assert {toolchain.title for toolchain in LANGUAGES.values()} >= set(PUBLISHED["humaneval-multipl-e"]) - {"Python"}
    assert set(PUBLISHED["humaneval-multipl-e"]) == set(TITLES.values())
    for mode in ("completion", "insertion"):
        assert set(PUBLISHED[f"ds1000-{mode}"]) == {library.title for library in LIBRARIES.values()} | {""}
    assert set(PUBLISHED["santacoder-fim"]) == {"Java", "JavaScript", "Python"}


@pytest.mark.parametrize("mode", ["completion", "insertion"])
def test_the_total_of_ds1000_is_the_mean_over_its_problems(mode: str) -> None:
    table = PUBLISHED[f"ds1000-{mode}"]
    for model, total in table[""]["pass@1"].items():
        cells = [table[group]["pass@1"][model].value * size for group, size in DS1000_SIZES.items()]
        assert sum(cells) / 1000 == pytest.approx(total.value, abs=0.001)


def test_multipl_es_python_is_humaneval_but_for_rounding() -> None:
    python, table = published("humaneval-multipl-e", "Python", "pass@1"), published("humaneval", "", "pass@1")
    for model in ("StarCoder", "StarCoderBase", "SantaCoder"):
        assert python[model].value == pytest.approx(table[model].value, abs=0.001)
    assert not python["StarCoder"].recalled


@pytest.mark.parametrize(
    ("format_", "counts"),
    [
        ("completion", {"StarCoderBase": (855, 340), "InCoder-6B": (871, 309), "CodeGen-16B-Multi": (955, 402)}),
        ("completion", {"code-cushman-001": (964, 408)}),
        ("insertion", {"StarCoderBase": (987, 354), "InCoder-6B": (854, 293)}),
    ],
)
def test_the_shares_of_the_security_table_are_its_counts(format_: str, counts: dict[str, tuple[int, int]]) -> None:
    for model, (valid, insecure) in counts.items():
        task = f"security-{format_}"
        assert published(task, "", "valid")[model].value == valid / 1000
        assert published(task, "", "insecure")[model].value == pytest.approx(insecure / valid, abs=5e-5)
