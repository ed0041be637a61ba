"""ODEX: the references pass where the libraries are there, but for those that ask the network or that time broke."""

import sys
from collections import Counter
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.odex import ODEX, all_problems, libraries
from tests.evaluation.judging import judge, published, references, wrong

# References that ask the network.
NETWORK = {
    *("en/24/22676", "en/25/22676", "en/26/22676", "en/27/22676", "en/341/2805231", "en/396/7243750"),
    *("ja/50/39340", "ja/105/27922", "ja/153/40646"),
    *("ru/9/681594", "ru/41/182910", "ru/76/133137", "ru/99/45499", "ru/158/60925", "ru/175/690089", "ru/196/299217"),
    *("ru/217/205664", "ru/221/77855", "ru/231/178993", "ru/237/93346", "ru/250/14314"),
}
# References that newer versions of Python, NumPy and others refuse.
OUTDATED = {
    *("en/205/34945274", "en/225/35622945", "en/231/29877663", "ja/142/41336"),
    *("ru/71/407127", "ru/197/65166", "ru/227/295537"),
}
# Tests that no reference passes reliably: an endless loop that only memory ends, a time in seconds, an order of a set.
BROKEN = {"es/14/59300", "ru/48/313184", "ru/238/319702"}

# References that need what the sandbox refuses: sockets, the machinery behind `imp`.
REFUSED = {"en/415/6420361", "ja/4/8656", "ja/40/29614"}
# References that count on sharing their global variables with the tests.
GLOBALS = {"ja/43/33677", "ja/45/42442"}


@pytest.fixture(scope="module")
def everything() -> list[Problem]:
    return all_problems(published("odex"))


def test_problems(everything: list[Problem]) -> None:
    assert Counter(problem.group for problem in everything) == {
        "English": 439,
        "Spanish": 90,
        "Japanese": 164,
        "Russian": 252,
    }
    assert len({problem.id for problem in everything}) == 945
    assert everything[1].prompt == (
        'def f_3844801(myList):\n    """check if all elements in list `myList` are identical\n    """\n    return'
    )
    assert not any(problem.prompt[-1].isspace() for problem in everything)


def test_references_pass() -> None:
    task = ODEX()
    problems = task.problems(published("odex"))
    known = {f"ODEX/{name}" for name in NETWORK | OUTDATED | BROKEN | REFUSED | GLOBALS}
    passing = [problem for problem in problems if problem.id not in known]
    assert len(passing) > 700
    assert wrong(task, references(passing[::2])) == {}


def test_wrong_answers_fail(everything: list[Problem]) -> None:
    task = ODEX()
    closed = [problem for problem in everything if not problem.row["library"] and not problem.row["suffix"]][:40]
    assert len(closed) == 40
    for result in judge(task, [(problem, " object()") for problem in closed]):
        assert not result.passed


def test_the_program_is_the_answer_in_its_function(everything: list[Problem]) -> None:
    task = ODEX()
    frame = next(problem for problem in everything if problem.row["suffix"] == "\n\treturn df")
    program = task.program(frame, "\n    df = df.dropna()")
    lines = program.code.rstrip().splitlines()
    assert lines[-2:] == ["    df = df.dropna()", "    return df"]
    assert "import pandas as pd" in [line.strip() for line in lines]
    assert program.libraries == ("numpy", "pandas")
    assert program.tests.endswith(f"\ncheck({frame.row['entry_point']})")
    assert all(test in program.tests for test in frame.row["test"])


def test_missing_libraries_are_told(everything: list[Problem], tmp_path: Path) -> None:
    """An interpreter without any library judges the problems that need none."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
    bare.chmod(0o755)
    task = ODEX()
    task.python = str(bare)
    judged = {problem.id for problem in task.problems(published("odex"))}
    skipped = task.skipped()
    assert skipped["numpy"] == (
        "the library is not installed (problems that need it: 42 English, 10 Spanish, 21 Japanese, 3 Russian)"
    )
    for problem in everything:
        assert (problem.id in judged) == (not libraries(problem.row) & skipped.keys())


def test_no_interpreter() -> None:
    task = ODEX()
    task.python = "/nowhere/python"
    with pytest.raises(UserError, match="/nowhere/python runs no Python"):
        task.problems(published("odex"))
