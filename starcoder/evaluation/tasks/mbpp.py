"""MBPP (Austin et al. 2021), the 500 test problems: small Python functions from a sentence and one example (§6.1.1).

The paper's column of this name is something else: 397 problems that MultiPL-E translated, with its prompts and stop
strings, here the task `mbpp-paper`. StarCoder has 52.7 % of those and about 43.6 % of these.
"""

import ast
import warnings
from pathlib import Path

from typing_extensions import override

from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.program import Limits, Program
from starcoder.evaluation.prompting import STYLES
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row

_TEST = range(11, 511)
_HUB = HubFile("google-research-datasets/mbpp", "full/test-00000-of-00001.parquet")
_LIMITS = Limits(timeout=10)
"""The slowest reference, MBPP/123, takes 3 seconds: as many as the harness allows, so that its verdict is a coin's."""


class MBPP(Executed):
    """The task ids 11 to 510. The prompt is a docstring with the text and the first of the problem's tests."""

    name = "mbpp"
    title = "MBPP (500 test problems)"
    section = "§6.1.1"
    data = "mbpp"
    source = "mbpp.jsonl of github.com/google-research/google-research/tree/master/mbpp"
    defaults = Defaults(
        n_samples=200,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=512,
        stop=("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```"),
    )

    styles = STYLES

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        rows = load_rows(folder, "mbpp", "mbpp.jsonl*", _HUB, fields=("task_id", "text", "code", "test_list"))
        return [problem_of(row) for row in rows if row["task_id"] in _TEST]

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        row = problem.row
        tests = "\n".join([row.get("test_setup_code", ""), *row["test_list"]])
        return Program(
            problem.prompt + completion,
            tests,
            entry_point=entry_point(row["code"], row["test_list"][0]),
            reference=row["code"],
            limits=_LIMITS,
        )


def problem_of(row: Row) -> Problem:
    """The problem of a row of the benchmark's file."""
    prompt = f'"""\n{row["text"]}\n{row["test_list"][0]}\n"""\n'
    return Problem(f"MBPP/{row['task_id']}", prompt, reference=row["code"], row=row)


def entry_point(code: str, test: str) -> str | None:
    """The function of `code` that `test` calls; None when there is none or it cannot be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in strings that are not raw
            defined = {node.name for node in ast.parse(code).body if isinstance(node, ast.FunctionDef)}
            calls = [node.func for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return None
    return next((call.id for call in calls if isinstance(call, ast.Name) and call.id in defined), None)
