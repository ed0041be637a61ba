"""DS-1000: the authors' references pass and wrong solutions fail, as far as the libraries are there."""

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.program import Program, Result, Status
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.ds1000 import DOWNLOADS, LIBRARIES, DS1000Completion, DS1000Insertion

ROOT = Path(__file__).parents[3]
DATA = ROOT / "../shared/data"
OWN_PYTHON = ROOT / "build/ds1000/bin/judge"
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE)
AWKWARD = bytes(range(256))
OLDER_NUMPY = {"DS-1000/353"}  # its test calls np.in1d

needs_data = pytest.mark.skipif(not (DATA / "ds1000").is_dir(), reason="DS-1000's data is not here")


def judged_by(python: str) -> DS1000Completion:
    task = DS1000Completion()
    task.python = python
    return task


def read() -> list[Problem]:
    return DS1000Completion().read(DATA)


def imported(code: str) -> set[str]:
    """The packages that lines of the code import; prose in it may look like an import."""
    return set(_IMPORT.findall(code)) & set().union(*(library.packages for library in LIBRARIES.values()))


def runnable(problems: Iterable[Problem]) -> list[Problem]:
    """Those whose packages this interpreter has."""

    def complete(problem: Problem) -> bool:
        packages = imported(problem.row["code_context"]) | imported(problem.reference)
        return all(importlib.util.find_spec(package) for package in packages)

    return [problem for problem in problems if complete(problem) and problem.id not in OLDER_NUMPY]


def judge(sandbox: Sandbox, solutions: list[tuple[Problem, str]]) -> dict[str, Result]:
    task = DS1000Completion()
    futures = {problem.id: sandbox.submit(task.program(problem, solution)) for problem, solution in solutions}
    return {name: future.result() for name, future in futures.items()}


def failures(results: dict[str, Result]) -> dict[str, str]:
    return {name: f"{result.status}: {result.detail}" for name, result in results.items() if not result.passed}


@needs_data
def test_references_pass_and_wrong_solutions_fail() -> None:
    groups: dict[str, list[Problem]] = {}
    for problem in runnable(read()):
        groups.setdefault(problem.group, []).append(problem)
    sample = groups["NumPy"] + groups["Matplotlib"][:4]
    assert len(sample) >= 80
    with Sandbox(workers=2) as sandbox:
        assert failures(judge(sandbox, [(problem, problem.reference) for problem in sample])) == {}
        some = sample[::4]
        for wrong in ("pass", "raise SystemExit(0)", "import os\nos._exit(0)"):
            found = judge(sandbox, [(problem, wrong) for problem in some])
            assert {name for name, result in found.items() if result.passed} == set()
        assigned = [problem for problem in sample if problem.row["code_context"].count('[insert]\n"""') == 1]
        assert len(assigned) >= 40
        found = judge(sandbox, [(problem, f"{problem.reference}\nresult = 'wrong'") for problem in assigned[::2]])
        assert {result.status for result in found.values()} == {Status.FAILED}
        banned = [problem for problem in sample if '"for" not in tokens' in problem.row["code_context"]]
        found = judge(sandbox, [(problem, f"{problem.reference}\nfor _ in ():\n    pass") for problem in banned])
        assert banned
        assert {result.status for result in found.values()} == {Status.FAILED}


@pytest.mark.skipif(not OWN_PYTHON.exists(), reason=f"{OWN_PYTHON} is not here: see recipes/evaluation/ds1000.txt")
@needs_data
def test_all_references_pass_with_their_own_libraries() -> None:
    task = judged_by(str(OWN_PYTHON))
    problems = task.problems(DATA)
    assert len(problems) == 985
    with Sandbox(workers=2, python=str(OWN_PYTHON)) as sandbox:
        assert failures(judge(sandbox, [(problem, problem.reference) for problem in problems])) == {}


@needs_data
def test_counts_and_settings() -> None:
    task, problems = DS1000Completion(), read()
    assert Counter(problem.group for problem in problems) == {  # the paper's table
        **{"Matplotlib": 155, "NumPy": 220, "Pandas": 291, "PyTorch": 68},
        **{"SciPy": 106, "scikit-learn": 115, "TensorFlow": 45},
    }
    assert len({problem.id for problem in problems}) == 1000
    assert (task.defaults.n_samples, task.defaults.temperature, task.defaults.top_p) == (40, 0.2, 0.95)
    assert task.defaults.stop == ("</code>", "# SOLUTION END")


@needs_data
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_table_of_libraries_is_what_the_problems_import() -> None:
    found: dict[str, set[str]] = {}
    for problem in read():
        context = problem.row["code_context"]
        tree = ast.parse(context)
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        (run,) = re.findall(r'exec_context = r?"""(.*?)"""', context, re.DOTALL)
        names |= set(_IMPORT.findall(run))
        packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"mpl_toolkits"}
        found.setdefault(problem.group, set()).update(packages)
    assert {library.title: library.packages for library in LIBRARIES.values()} == found


def interpreter(folder: Path, absent: list[str], program: str = "/bin/judge") -> str:
    """A program that answers the probe as an interpreter without some packages would."""
    script = folder / f"python-{program.rpartition('/')[2]}"
    script.write_text(f"#!/bin/sh\necho '{json.dumps([absent, program])}'\n")
    script.chmod(0o755)
    return str(script)


@needs_data
def test_libraries_that_the_interpreter_lacks_are_skipped(tmp_path: Path) -> None:
    task = DS1000Completion()
    task.python = interpreter(tmp_path, ["tensorflow"])
    problems = task.problems(DATA)
    assert len(problems) == 1000 - 220 - 45 - 15
    assert {problem.group for problem in problems}.isdisjoint(("NumPy", "TensorFlow"))
    skipped = task.skipped()
    assert skipped.keys() == {"NumPy", "TensorFlow", "Matplotlib", "scikit-learn"}
    assert skipped["TensorFlow"] == f"{task.python} has no tensorflow"
    assert skipped["scikit-learn"].startswith("1 of its problems download cal_housing_py3.pkz")


def test_this_interpreter_is_probed_by_default() -> None:
    skipped = DS1000Completion().skipped()
    for library in LIBRARIES.values():
        absent = sorted(package for package in library.packages if importlib.util.find_spec(package) is None)
        if "tensorflow" not in library.packages:
            assert skipped.get(library.title) == (f"{sys.executable} has no {', '.join(absent)}" if absent else None)


def test_tensorflow_needs_a_program_of_another_name(tmp_path: Path) -> None:
    skipped = judged_by(interpreter(tmp_path, [], "/usr/bin/python3.11")).skipped()
    assert skipped.keys() == {"TensorFlow", "NumPy"}
    assert "copy it to another name" in skipped["TensorFlow"]
    assert judged_by(interpreter(tmp_path, ["xgboost"])).skipped().keys() == {"scikit-learn"}


@needs_data
def test_downloads_are_put_into_the_program(tmp_path: Path) -> None:
    (tmp_path / "ds1000" / "downloads").mkdir(parents=True)
    (tmp_path / "ds1000" / "ds1000.jsonl.gz").symlink_to((DATA / "ds1000" / "ds1000.jsonl.gz").resolve())
    for name in DOWNLOADS:
        (tmp_path / "ds1000" / "downloads" / name).write_bytes(name.encode() + AWKWARD)
    task = judged_by(interpreter(tmp_path, []))
    assert len(task.problems(tmp_path)) == 1000
    assert task.skipped() == {}
    for problem in task.read(tmp_path):
        before, context, _ = task.program(problem, "").tests.partition(problem.row["code_context"])
        assert context
        needed = [name for name, call in DOWNLOADS.items() if call in context]
        assert sum(before.count(name) for name in DOWNLOADS) == 2 * len(needed)  # as a name, and in the content
        if needed == ["tips.csv"]:
            check = "assert os.environ['SEABORN_DATA'] == os.getcwd()"
            subprocess.run([sys.executable, "-c", before + check], cwd=tmp_path, check=True)
            assert (tmp_path / "tips.csv").read_bytes() == b"tips.csv" + AWKWARD


FUNCTION = """A:
<code>
def f(a, n=2):
    # return the solution in this function
    # a = f(a, n=2)
    ### BEGIN SOLUTION"""
PREFIX = "Problem:\nHow?\nA:\n<code>\nimport numpy as np\na = 1\n</code>"


@pytest.mark.parametrize(
    ("prompt", "before", "after"),
    [
        (
            f"{PREFIX}\nb, c = ... # put solution in these variables\nBEGIN SOLUTION\n<code>\n",
            f"{PREFIX}\nBEGIN SOLUTION\n<code>\n",
            "\n</code>\nEND SOLUTION\n<code>\nprint(b, c)\n</code>\n",
        ),
        (
            f"{PREFIX}\nsolve this question with example variable `a`\nBEGIN SOLUTION\n<code>",
            f"{PREFIX}\nsolve this question with example variable `a`\nBEGIN SOLUTION\n<code>\n",
            "\n</code>\nEND SOLUTION\n",
        ),
        (
            FUNCTION,
            f"{FUNCTION}\n",
            "\na = f(a, n=2)\nprint(a)\n</code>\n",
        ),
        ("one \n\n [insert]\n\ntwo ", "one\n", "\ntwo\n"),  # as the first release had them
    ],
)
def test_insertion_prompts(tmp_path: Path, prompt: str, before: str, after: str) -> None:
    for library, expected in (("Numpy", (before, after)), ("Matplotlib", (prompt, None))):
        row = {"prompt": prompt, "reference_code": "", "code_context": "", "metadata": {}}
        row["metadata"] = {"library": library, "problem_id": 7}
        write(tmp_path, row)
        (problem,) = DS1000Insertion().read(tmp_path)
        assert (problem.prompt, problem.suffix) == expected


@needs_data
def test_all_insertion_prompts() -> None:
    shown = 0
    for completion, insertion in zip(read(), DS1000Insertion().read(DATA), strict=True):
        assert (completion.id, completion.group) == (insertion.id, insertion.group)
        assert completion.suffix is None
        if insertion.group == "Matplotlib":
            assert insertion == completion
            continue
        assert "... # put solution" not in insertion.prompt
        assert insertion.prompt.endswith(("\nBEGIN SOLUTION\n<code>\n", "\n    ### BEGIN SOLUTION\n"))
        assert insertion.suffix is not None
        code = insertion.suffix.replace("END SOLUTION", "").replace("<code>", "").replace("</code>", "")
        shown += "print(" in code
        ast.parse(code)
    assert shown == 1000 - 155 - 34  # 34 prompts name no variable to put the solution in


def write(folder: Path, *rows: object) -> None:
    (folder / "ds1000").mkdir(exist_ok=True)
    (folder / "ds1000" / "ds1000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_bad_input(tmp_path: Path) -> None:
    row = {"prompt": "", "reference_code": "", "code_context": "", "metadata": {"library": "Numpy", "problem_id": 0}}
    for damaged in ({**row, "metadata": "Numpy"}, {**row, "code_context": None}, {"prompt": ""}):
        write(tmp_path, row, damaged)
        with pytest.raises(UserError, match=r"row 2 "):
            DS1000Completion().read(tmp_path)
    write(tmp_path, {**row, "metadata": {"library": "Keras", "problem_id": 0}})
    with pytest.raises(UserError, match=r"row 1 .*Keras"):
        DS1000Completion().read(tmp_path)
    with pytest.raises(UserError, match=r"nowhere/python cannot run Python programs \(.*No such file"):
        judged_by("nowhere/python").skipped()
    with pytest.raises(UserError, match="cannot run Python programs"):
        judged_by("/bin/false").skipped()


@needs_data
def test_program_hands_the_completion_over_as_text() -> None:
    problem = read()[0]
    text = '    x = \'"""\\n\'\n\treturn\n'
    program = DS1000Completion().program(problem, text)
    space: dict[str, str] = {}
    exec(program.code, space)
    assert space["solution"] == text
    assert isinstance(program, Program)
    assert program.tests.endswith("test_execution(solution)\n")
