"""MBPP: the references of all 974 problems pass, and slips in them do not."""

import json
import re
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.program import Status
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.mbpp import MBPP, entry_point, problem_of
from starcoder.rows import read_rows
from tests.evaluation.judging import judge, published, references, wrong

TASK = MBPP()


@pytest.fixture(scope="module")
def everything() -> list[Problem]:
    return [problem_of(row) for row in read_rows(published("mbpp") / "mbpp" / "mbpp.jsonl")]


def test_problems() -> None:
    problems = TASK.problems(published("mbpp"))
    assert [problem.id for problem in problems] == [f"MBPP/{number}" for number in range(11, 511)]
    assert problems[0].prompt == (
        '"""\nWrite a python function to remove first and last occurrence of a given character from the string.\n'
        'assert remove_Occ("hello","l") == "heo"\n"""\n'
    )


def test_references_of_all_problems_pass(everything: list[Problem]) -> None:
    assert len(everything) == 974
    assert wrong(TASK, references(everything)) == {}


def test_every_test_counts(everything: list[Problem]) -> None:
    """A function that answers the prompt's example and nothing else is wrong."""
    problem = next(problem for problem in everything if problem.id == "MBPP/11")
    memorised = 'def remove_Occ(s, c):\n    return {"hello": "heo"}[s]\n'
    no_function, parroted = judge(TASK, [(problem, "x = 1\n"), (problem, memorised)])
    assert [no_function.status, parroted.status] == [Status.FAILED, Status.FAILED]
    assert "remove_Occ" in no_function.detail
    assert "KeyError" in parroted.detail


def test_set_up_code_runs_after_the_completion(everything: list[Problem]) -> None:
    with_set_up = [problem for problem in everything if problem.row["test_setup_code"]]
    assert len(with_set_up) == 2
    for problem in with_set_up:
        tests = TASK.program(problem, "").tests
        assert tests.index("root = Node(1)") < tests.index("assert")


def test_entry_points(everything: list[Problem]) -> None:
    for problem in everything:
        found = TASK.program(problem, "").entry_point
        assert found
        assert re.search(rf"^def {found}\b", problem.reference, re.MULTILINE)
        assert re.search(rf"\b{found}\b", problem.row["test_list"][0])


@pytest.mark.parametrize(
    ("code", "test", "name"),
    [
        ("def f(): pass", "assert f() == 1", "f"),
        ("def g(): pass\ndef f(): pass", "assert set(f(len([]))) == set()", "f"),
        ("f = len", "assert f([]) == 0", None),
        ("def f(:", "assert f() == 1", None),
        ("def f(): pass", "assert f(", None),
    ],
)
def test_entry_point(code: str, test: str, name: str | None) -> None:
    assert entry_point(code, test) == name


def test_bad_rows_are_named(tmp_path: Path) -> None:
    (tmp_path / "mbpp").mkdir()
    (tmp_path / "mbpp" / "mbpp.jsonl").write_text(json.dumps({"task_id": 11, "text": "", "code": ""}))
    with pytest.raises(UserError, match="row 1 has no test_list"):
        TASK.problems(tmp_path)
