"""HumanEval infilling: the text that was taken out is right, nothing at all is not."""

from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.infilling import (
    Infilling,
    MultiLineInfilling,
    RandomSpanInfilling,
    RandomSpanLightInfilling,
    SingleLineInfilling,
)
from tests.evaluation.judging import judge, published, references, wrong


@pytest.mark.parametrize(
    ("task", "count"),
    [
        (SingleLineInfilling(), 1033),
        (MultiLineInfilling(), 5815),
        (RandomSpanInfilling(), 1640),
        (RandomSpanLightInfilling(), 164),
    ],
)
def test_problems(task: Infilling, count: int) -> None:
    problems = task.problems(published("human-eval-infilling"))
    assert len({problem.id for problem in problems}) == len(problems) == count
    for problem in problems:
        assert (problem.prompt, problem.suffix) == (problem.row["prompt"], problem.row["suffix"])
        assert task.program(problem, "a\n b").code == f"{problem.prompt}a\n b{problem.suffix}"


@pytest.mark.parametrize("task", [SingleLineInfilling(), RandomSpanLightInfilling()])
def test_references_pass(task: Infilling) -> None:
    assert wrong(task, references(task.problems(published("human-eval-infilling")))) == {}


def test_a_gap_left_open_fails() -> None:
    task = RandomSpanLightInfilling()
    problems = task.problems(published("human-eval-infilling"))[:25]
    assert len(wrong(task, [(problem, "") for problem in problems])) > 0.9 * len(problems)
    assert not judge(task, [(problems[0], "\n            if True:\n                distance = 0")])[0].passed


def test_missing_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no HumanEval-SingleLineInfilling\.jsonl\* in .*human-eval-infilling"):
        SingleLineInfilling().problems(tmp_path)
    with pytest.raises(UserError, match="--data"):
        SingleLineInfilling().problems(None)
