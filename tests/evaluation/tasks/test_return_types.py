"""Return types: how functions become problems, and F1 against counts made by hand."""

import json
import math
from pathlib import Path
from statistics import fmean

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.tasks.return_types import ReturnTypes, normalized, return_type_problem


def test_a_function_becomes_a_gap_after_the_arrow() -> None:
    problem = return_type_problem("0", "def f(a: int, *, b: str='x') -> Dict[str,int]:\n    # why\n    return {b: a}\n")
    assert problem is not None
    assert problem.prompt == "def f(a, *, b: str='x') ->"
    assert problem.suffix == "\n    return {b: a}\n\ndef "
    assert problem.reference == "Dict[str, int]"


def test_a_method_is_indented_as_in_its_class() -> None:
    problem = return_type_problem("0", "def f(self, a) -> bool:\n        return a\n")
    assert problem is not None
    assert (problem.prompt, problem.suffix) == ("    def f(self, a) ->", "\n        return a\n\n    def ")


@pytest.mark.parametrize(
    "source",
    [
        "def f(a):\n    return a\n",
        "def f(a) -> int\n",
        "async def f(a) -> int:\n    return a\n",
        "def f(a) -> int:\n    def g() -> int:\n        return a\n    return g()\n",
        "def f() -> int:\n    pass\ndef g() -> str:\n    pass\n",
    ],
)
def test_other_functions_make_no_problem(source: str) -> None:
    assert return_type_problem("0", source) is None


def test_types_are_compared_as_expressions() -> None:
    assert normalized(" Dict[ str,int ]") == "Dict[str, int]" == normalized("(Dict)[str, int]")
    assert normalized("List[") is normalized("") is normalized("x = 1") is None


def test_f1_is_over_all_problems(tmp_path: Path) -> None:
    functions = [f"def f{n}() -> {kind}:\n    pass\n" for n, kind in enumerate(["int", "None", "str", "None", "bool"])]
    path = tmp_path / "code-to-text/python/test.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps({"original_string": text}) + "\n" for text in [*functions, "def g(): pass"]))
    task = ReturnTypes()
    problems = task.problems(tmp_path)
    assert [problem.id for problem in problems] == ["0", "1", "2", "3", "4"]
    # Right: int, None; wrong: None -> str, bool -> int; no expression: str.
    rows = [task.scores(*pair) for pair in zip(problems, [" int", "None", "[str", "str", "int"], strict=True)]
    means = {name: fmean(row[name] for row in rows) for name in rows[0]}
    precision, recall = 2 / 4, 2 / 5
    precision_not_none, recall_not_none = 1 / 2, 1 / 3
    assert task.summary(means) == {
        "f1": pytest.approx(2 * precision * recall / (precision + recall)),
        "f1_not_none": pytest.approx(2 * precision_not_none * recall_not_none / (precision_not_none + recall_not_none)),
    }
    none_only = task.scores(problems[1], "None")
    assert task.summary(none_only)["f1"] == 1.0
    assert math.isnan(task.summary(none_only)["f1_not_none"])


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = tmp_path / "code-to-text/python/test.jsonl"
    with pytest.raises(UserError, match=r"huggingface\.co/datasets/google/code_x_glue_ct_code_to_text"):
        ReturnTypes().problems(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('{"code": "def f(): pass"}\n')
    with pytest.raises(UserError, match="row 1 has no original_string"):
        ReturnTypes().problems(tmp_path)
    path.write_text('{"original_string": "def f(): pass"}\n')
    with pytest.raises(UserError, match="no function that states its return type"):
        ReturnTypes().problems(tmp_path)
