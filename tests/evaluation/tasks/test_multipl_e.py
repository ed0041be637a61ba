"""MultiPL-E: its problems and programs; in every language, answers written for these tests pass, slips in them fail."""

import json
from collections import Counter
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.languages import LANGUAGES, missing
from starcoder.evaluation.program import Status
from starcoder.evaluation.tasks import multipl_e
from starcoder.evaluation.tasks.multipl_e import TITLES, HumanEvalMultiPLE, MBPPMultiPLE, MBPPPaper, MultiPLE
from tests.evaluation.judging import judge, published
from tests.evaluation.tasks.multipl_e_references import GCD, REFERENCES, SUM_PRODUCT

FOLDER = "multipl-e"
SLOW = ("cpp", "go", "rkt", "scala", "ts")


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with all toolchains."""
    monkeypatch.setattr(multipl_e, "missing", lambda _: {})


@pytest.mark.usefixtures("complete")
@pytest.mark.parametrize(
    ("task", "python", "go", "java", "r", "total"),
    [(HumanEvalMultiPLE(), 161, 154, 158, 161, 3025), (MBPPMultiPLE(), 397, 374, 386, 397, 7384)],
)
def test_problems(task: MultiPLE, python: int, go: int, java: int, r: int, total: int) -> None:
    problems = task.problems(published(FOLDER))
    sizes = Counter(problem.group for problem in problems)
    assert len(problems) == len({problem.id for problem in problems}) == total
    assert (sizes["Python"], sizes["Go"], sizes["Java"], sizes["R"]) == (python, go, java, r)
    assert set(sizes) == set(TITLES.values())
    assert len(sizes) == 19
    assert all(problem.prompt == problem.prompt.strip() and problem.stop for problem in problems)


@pytest.mark.usefixtures("complete")
def test_every_language_takes_the_end_marker() -> None:
    for task in (HumanEvalMultiPLE(), MBPPMultiPLE()):
        for problem in task.problems(published(FOLDER)):
            program = task.program(problem, "")
            if program.language != "python":
                LANGUAGES[program.language].with_end_marker(program.tests, "left", "right")


def test_the_papers_mbpp_is_the_python_translation() -> None:
    problems = MBPPPaper().problems(published(FOLDER))
    assert len(problems) == 397
    assert {problem.group for problem in problems} == {""}
    assert problems[0].id.startswith("mbpp_")
    assert problems[0].prompt.startswith("def ") or problems[0].prompt.startswith("from ")
    assert problems[0].stop == ("\ndef", "\n#", "\nif", "\nclass")
    assert MBPPPaper.defaults.stop == ("<file_sep>",)


def test_a_program_is_prompt_completion_line_break_tests() -> None:
    task = HumanEvalMultiPLE(("js", "py"))
    by_id = {problem.id: problem for problem in task.problems(published(FOLDER))}
    script = task.program(by_id["js/HumanEval_53_add"], " return x + y; }")
    assert script.code.endswith("function add(x, y){ return x + y; }\n")
    assert script.language == "js"
    assert script.tests.startswith("const assert = require('node:assert');")
    python = task.program(by_id["py/HumanEval_53_add"], "\n    return x + y")
    assert python.language == "python"
    assert python.entry_point == "add"


@pytest.mark.parametrize("language", REFERENCES)
def test_references(language: str) -> None:
    """Of the languages that are slow one slip must do."""
    task, folder = HumanEvalMultiPLE((language,)), published(FOLDER)
    if reason := missing({language} - {"py"}):
        pytest.skip(reason[language])
    numbers = {int(problem.id.split("_")[1]): problem for problem in task.problems(folder)}
    known = [reference for reference in REFERENCES[language] if reference.number in numbers]
    slips = [reference for reference in known if reference.number == GCD or language not in SLOW]
    completions = [(numbers[reference.number], reference.right) for reference in known]
    completions += [(numbers[reference.number], reference.wrong) for reference in slips]
    results = judge(task, completions)
    told = [
        f"{problem.id}: {result.status} {result.detail}"
        for (problem, _), result in zip(completions, results, strict=True)
    ]
    assert [result.passed for result in results] == [True] * len(known) + [False] * len(slips), told
    assert {result.status for result in results[len(known) :]} == {Status.FAILED}, told


def test_java_without_the_library_of_tuples(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = published(FOLDER)
    if reason := missing(["java"]):
        pytest.skip(reason["java"])
    monkeypatch.setattr(multipl_e, "javatuples", lambda: None)
    task = HumanEvalMultiPLE(("java",))
    problems = {int(problem.id.split("_")[1]): problem for problem in task.problems(folder)}
    assert len(problems) == 150
    assert SUM_PRODUCT not in problems
    assert list(task.skipped()) == ["Java with tuples"]
    assert "javatuples.jar" in task.skipped()["Java with tuples"]
    reference = next(reference for reference in REFERENCES["java"] if reference.number == GCD)
    program = task.program(problems[GCD], reference.right)
    assert "javatuples" in problems[GCD].prompt
    assert "javatuples" not in program.code


def test_languages_that_cannot_run_are_skipped_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    reasons = {"jl": "Julia needs julia", "js": "JavaScript needs node"}
    monkeypatch.setattr(multipl_e, "missing", lambda names: {name: reasons[name] for name in names if name in reasons})
    task = HumanEvalMultiPLE(("js", "py", "jl"))
    assert {problem.group for problem in task.problems(published(FOLDER))} == {"Python"}
    assert task.skipped() == {"JavaScript": "JavaScript needs node", "Julia": "Julia needs julia"}


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no cobol, ada: its languages are cpp, cs, d, go"):
        HumanEvalMultiPLE(("cobol", "py", "ada"))
    with pytest.raises(UserError, match=r"no mbpp-py-reworded.json in .*multipl-e"):
        MBPPPaper().problems(tmp_path)
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mbpp-py-reworded.json").write_text(
        json.dumps([{"name": "mbpp_1", "prompt": "", "tests": ""}])
    )
    with pytest.raises(UserError, match="row 1 has no stop_tokens"):
        MBPPPaper().problems(tmp_path)
