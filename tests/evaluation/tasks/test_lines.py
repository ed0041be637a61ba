"""Line completion: where files are cut, CodeXGLUE's format, and its two measures."""

import json
from pathlib import Path
from typing import Any

import pytest

from starcoder.corpus.document import Document, read_documents, write_documents
from starcoder.errors import UserError
from starcoder.evaluation.task import Problem
from starcoder.evaluation.tasks.lines import CODEXGLUE, LineCompletion

TASK = LineCompletion()


@pytest.fixture
def held_out(tmp_path: Path) -> Path:
    (tmp_path / "held-out").mkdir()
    documents = [
        Document("r", f"{name}.py", "python", "py", (), 1, Path(__file__).with_name(name).read_text())
        for name in ("test_lines.py", "test_long_context.py", "test_bits_per_byte.py")
    ]
    documents += [Document("r", f"{n}.go", "go", "go", (), 1, f"package x\nvar a{n}  =  {n} \n") for n in range(50)]
    documents += [Document("r", "one-line.go", "go", "go", (), 1, "package x")]
    write_documents(tmp_path / "held-out", "validation", documents)
    return tmp_path


def test_the_rest_of_the_line_is_wanted(held_out: Path) -> None:
    contents = {each.name: each.content for each in read_documents(held_out / "held-out", "validation")}
    problems = LineCompletion(characters=10**6).problems(held_out)
    assert {problem.id for problem in problems} == contents.keys() - {"r/one-line.go"}
    for problem in problems:
        content = contents[problem.id]
        assert content.startswith(problem.prompt)
        assert "\n" in problem.prompt
        rest = content[len(problem.prompt) :].partition("\n")[0]
        assert problem.reference == rest.strip() != ""
        assert not problem.prompt.endswith((" ", "\t"))
        assert TASK.scores(problem, rest + "\nmore") == {"exact_match": 1.0, "edit_similarity": 1.0}
    assert {problem.reference for problem in problems if problem.id == "r/7.go"} <= {
        *("var a7  =  7", "a7  =  7", "=  7", "7")
    }
    assert len({problem.prompt.rpartition("\n")[2] != "" for problem in problems}) == 2  # in a line, and before one


def test_seed_decides_the_cuts(held_out: Path) -> None:
    def cuts(**options: int) -> dict[str, str]:
        return {problem.id: problem.prompt for problem in LineCompletion(**options).problems(held_out)}

    assert cuts() == cuts(seed=0)
    assert cuts(seed=1) != cuts()
    few = cuts(per_language=2)
    assert len(few) == 4
    assert few.items() < cuts().items()
    assert {len(prompt) for prompt in cuts(characters=5).values()} == {5}


def test_measures() -> None:
    problem = Problem("r/a.py", "x = ", reference="f(a, b)")
    assert TASK.scores(problem, " f(a,  b)\nnext") == {
        "exact_match": 1.0,
        "edit_similarity": pytest.approx(14 / 15),
    }
    assert TASK.scores(problem, "") == {"exact_match": 0.0, "edit_similarity": 0.0}
    assert TASK.scores(problem, "f(b, a)") == {"exact_match": 0.0, "edit_similarity": pytest.approx(2 * 5 / 14)}


def write(folder: Path, name: str, *rows: Any) -> None:
    (folder / CODEXGLUE).mkdir(exist_ok=True)
    (folder / CODEXGLUE / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_codexglue(tmp_path: Path) -> None:
    write(
        tmp_path,
        "python.jsonl",
        {
            "input": "<s> import os <EOL> a = [ <NUM_LIT:1> , <NUM_LIT> ] <EOL>",
            "gt": "print ( \"<STR_LIT:hi there>\" , '<STR_LIT>' )",
        },
    )
    write(tmp_path, "java.jsonl", {"input": "<s> class A { int f ( ) { return", "gt": "this . x ;"})
    java, python = TASK.problems(tmp_path)
    assert (python.id, python.group, python.prompt) == ("python/1", "Python", "import os\na = [ 1 , 0 ]\n")
    assert python.reference == "print ( \"hi there\" , '' )"
    assert (java.group, java.prompt, java.reference) == ("Java", "class A { int f ( ) { return", "this . x ;")
    assert TASK.scores(java, " this . x ; } }")["exact_match"] == 1
    assert TASK.scores(java, " this . x { ;")["exact_match"] == 0
    assert TASK.scores(python, python.reference + ";")["exact_match"] == 0


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="held-out code is missing"):
        TASK.problems(None)
    (tmp_path / "held-out").mkdir()
    write_documents(tmp_path / "held-out", "validation", [Document("r", "a.go", "go", "go", (), 1, "package x")])
    with pytest.raises(UserError, match="no file in held-out has a second line"):
        TASK.problems(tmp_path)
    (tmp_path / CODEXGLUE).mkdir()
    with pytest.raises(UserError, match=r"holds no python\.jsonl or java\.jsonl"):
        TASK.problems(tmp_path)
    write(tmp_path, "python.jsonl", {"input": "a", "gt": "b"}, {"input": "a"})
    with pytest.raises(UserError, match=r"python\.jsonl:2 has no texts `input` and `gt`"):
        TASK.problems(tmp_path)
