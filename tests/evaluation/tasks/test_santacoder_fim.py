"""The single-line FIM task: right is the masked line, and nothing but it."""

import json
from collections import Counter
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.santacoder_fim import SantaCoderFIM
from tests.evaluation.judging import published

TASK = SantaCoderFIM()


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return TASK.problems(published("santacoder-fim"))


def test_problems(problems: list[Problem]) -> None:
    assert Counter(problem.group for problem in problems) == {"Java": 1780, "JavaScript": 1969, "Python": 1043}
    assert len({problem.id for problem in problems}) == 4792
    assert all(problem.suffix is not None and "\n" not in problem.reference for problem in problems)


def test_references_are_right(problems: list[Problem]) -> None:
    for problem in problems:
        for completion in (problem.reference, f"\n{problem.reference}\n", problem.reference.strip()):
            assert TASK.scores(problem, completion) == {"exact_match": 1.0}


def test_other_lines_are_wrong(problems: list[Problem]) -> None:
    for problem, other in zip(problems, problems[1:] + problems[:1], strict=True):
        assert problem.suffix is not None
        goes_on = f"{problem.reference}\n{problem.suffix}x"
        for completion in ("", problem.reference.strip()[:-1], goes_on, f"x{problem.reference}"):
            assert TASK.scores(problem, completion) == {"exact_match": 0.0}
        same = problem.reference.strip() == other.reference.strip()
        assert TASK.scores(problem, other.reference) == {"exact_match": float(same)}


def test_unknown_language(tmp_path: Path) -> None:
    row = {"language": "cobol", "prompt": "", "suffix": "", "canonical_solution": "x"}
    (tmp_path / "santacoder-fim").mkdir()
    (tmp_path / "santacoder-fim" / "santacoder_fim.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match="row 1 is in cobol: it must be in java, js, py"):
        TASK.problems(tmp_path)
