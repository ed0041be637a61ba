"""GSM8K with programs: the data's answers, the worked examples, and votes."""

import json
import re
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.program import Result, Status
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.gsm8k import GSM8KPAL
from tests.evaluation.judging import judge, published, references, wrong

TASK = GSM8KPAL()
EXAMPLE_ANSWERS = [22, 4, 57, 96, 67, 15, 29, 165]


def _problem(answer: str, folder: Path) -> Problem:
    (folder / "gsm8k").mkdir(exist_ok=True)
    row = {"question": "How many?", "answer": f"So 1 #### 2.\n#### {answer}"}
    (folder / "gsm8k" / "test.jsonl").write_text(json.dumps(row))
    return TASK.problems(folder)[0]


def _returning(text: str) -> str:
    return f"def solution():\n    return {text}\n"


def test_answers_of_the_data_are_right_and_others_wrong() -> None:
    problems = TASK.problems(published("gsm8k"))
    assert len(problems) == 1319
    for problem in problems:
        written = problem.row["answer"].split("#### ")[1].replace(",", "")
        assert problem.reference == _returning(str(float(written)))
    assert wrong(TASK, references(problems[::8])) == {}
    off = [(problem, problem.reference.rstrip() + " + 1") for problem in problems[::16]]
    assert len(wrong(TASK, off)) == len(off)


def test_prompt_has_eight_examples_that_are_right(tmp_path: Path) -> None:
    prompt = _problem("1", tmp_path).prompt
    *examples, question = prompt.split("\n\n\n\n\n\n")
    assert question == "Q: How many?\n\n# solution in Python:\n\n\n"
    assert len(examples) == 8
    for example, answer in zip(examples, EXAMPLE_ANSWERS, strict=True):
        found = re.fullmatch(
            r'Q: (.+)\n\n# solution in Python:\n\n\n(def solution\(\):\n    """\1"""\n.+)', example, re.S
        )
        assert found
        space: dict[str, int] = {}
        exec(found[2] + "\nresult = solution()", space)
        assert space["result"] == answer


def test_stop_string_leaves_the_examples_programs_whole(tmp_path: Path) -> None:
    prompt = _problem("1", tmp_path).prompt
    for program in prompt.split("# solution in Python:\n\n\n")[1:-1]:
        assert program.split(TASK.defaults.stop[0])[0].endswith("return result")


@pytest.mark.parametrize(
    ("answer", "returned", "passes", "vote"),
    [
        ("18", "18", True, "18.0"),
        ("18", "'18'", True, "18.0"),
        ("2,125", "2125.0009", True, "2125.0"),
        ("-3.5", "-3.5", True, "-3.5"),
        ("18", "18.002", False, "18.002"),
        ("18", "17", False, "17.0"),
        ("0", "-0.0", True, "0.0"),
        ("18", "None", False, None),
        ("18", "'eighteen'", False, None),
        ("18", "float('nan')", False, None),
        ("18", "1 / 0", False, None),
    ],
)
def test_verdict_and_vote(answer: str, returned: str, passes: bool, vote: str | None, tmp_path: Path) -> None:
    problem = _problem(answer, tmp_path)
    (result,) = judge(TASK, [(problem, _returning(returned))])
    assert result.passed == passes
    assert TASK.answer(problem, result) == vote
    assert (TASK.right_answer(problem) == vote) == passes


def test_a_vote_is_what_solution_returns(tmp_path: Path) -> None:
    problem = _problem("7", tmp_path)
    loud = "def solution():\n    print('7', end='')\n    return 8\nprint(solution())\n"
    (result,) = judge(TASK, [(problem, loud)])
    assert TASK.answer(problem, result) == "8.0"
    assert TASK.answer(problem, Result(Status.TIMED_OUT)) is None
    (result,) = judge(TASK, [(problem, "def solution():\n    print(7)\n    raise ValueError\n")])
    assert TASK.answer(problem, result) is None


def test_published_prompt(tmp_path: Path) -> None:
    problem = _problem("1", tmp_path)
    (tmp_path / "gsm8k" / "prompt.txt").write_text("Q: one?\n\nQ: {question}\n\n# code {x}\n")
    assert TASK.problems(tmp_path)[0].prompt == "Q: one?\n\nQ: How many?\n\n# code {x}\n"
    assert TASK.problems(tmp_path)[0].id == problem.id
    (tmp_path / "gsm8k" / "prompt.txt").write_text("Q: one?")
    with pytest.raises(UserError, match=r"prompt\.txt has no \{question\}: write it where the question goes"):
        TASK.problems(tmp_path)


def test_an_answer_that_is_no_number(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1 has no number after '#### ': download it again"):
        _problem("many", tmp_path)
