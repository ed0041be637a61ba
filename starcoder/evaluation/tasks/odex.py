"""ODEX (Wang et al. 2022): questions from Stack Overflow in four languages, answered with any library (§6.1.3).

Zero-shot, with the prompt of its authors: the function's head, the question as docstring, and the beginning of the body
(often `return`). White space at the prompt's end is stripped: with it, models lose more than half of their score
(issue 5 of github.com/zorazrw/odex). The program leaves the docstring out: some questions are no Python string.

A problem whose libraries are not installed cannot be judged; it is left out, and `skipped` counts it. Neither can one
that asks the network, but those fail: their libraries do not tell.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from starcoder.errors import UserError, one_line
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.program import Program
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row

GROUPS = {"en": "English", "es": "Spanish", "ja": "Japanese", "ru": "Russian"}
_FIELDS = ("task_id", "intent", "prompt", "suffix", "canonical_solution", "test_start", "test", "entry_point")
_PROBE = "import importlib.util as u, json, sys; print(json.dumps([m for m in sys.argv[1:] if not u.find_spec(m)]))"
_IMPORT = re.compile(r"^\s*(?:import|from)\s+(\w+)", re.MULTILINE)


class ODEX(Executed):
    """The 945 problems but for those whose libraries are missing, a row of the table for each language."""

    name = "odex"
    title = "ODEX"
    section = "§6.1.3"
    data = "odex"
    source = "the folder data of github.com/zorazrw/odex, or huggingface.co/datasets/neulab/odex"
    rows_skipped = False
    defaults = Defaults(
        n_samples=200,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=512,
        stop=("###", "\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif"),
    )

    def __init__(self) -> None:
        self._skipped: dict[str, list[str]] = {}

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        problems = all_problems(folder)
        missing = self._missing({name for problem in problems for name in libraries(problem.row)})
        skipped: dict[str, list[str]] = defaultdict(list)
        for problem in problems:
            for name in libraries(problem.row) & missing:
                skipped[name].append(problem.group)
        self._skipped = dict(skipped)
        return [problem for problem in problems if not libraries(problem.row) & missing]

    @override
    def skipped(self) -> dict[str, str]:
        """The libraries that are missing, each with the number of problems that need it, once `problems` was called."""
        return {name: _reason(groups) for name, groups in sorted(self._skipped.items())}

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        row = problem.row
        # The imports that the answer, too, may count on; the authors' process had `urllib.request` from elsewhere.
        setup = (
            "import urllib.request\n" * ("urllib" in row["library"]) + row["test_start"].rpartition("\ndef check(")[0]
        )
        code, reference = (
            f"{setup}\n" + f"{row['prompt'].rstrip()}{text}{row['suffix']}\n".replace("\t", "    ")
            for text in (completion, problem.reference)
        )
        tests = f"{row['test_start']}{''.join(row['test'])}\ncheck({row['entry_point']})"
        # Only what is in machine code: a sandbox that lets libraries in guards its own memory less.
        loaded = sorted(libraries(row) - (sys.stdlib_module_names - {"ctypes"}))
        return Program(code, tests, "python", row["entry_point"], reference, tuple(loaded))

    def _missing(self, modules: set[str]) -> set[str]:
        try:
            run = subprocess.run([self.python, "-c", _PROBE, *modules], capture_output=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise UserError(f"odex: {self.python} runs no Python ({one_line(error)}): name another") from error
        return set(json.loads(run.stdout))


def all_problems(folder: Path | None) -> list[Problem]:
    """Every problem, whether or not its libraries are installed; a question asked twice is told by its row's number."""
    return [
        _problem(language, number, row)
        for language in GROUPS
        for number, row in enumerate(_rows(folder, language), start=1)
    ]


def libraries(row: Mapping[str, Any]) -> set[str]:
    """The modules that a problem's row names, and those that its tests import besides."""
    return {*row["library"], *_IMPORT.findall("\n".join([row["test_start"], *row["test"]]))}


def _rows(folder: Path | None, language: str) -> list[Row]:
    file = f"{language}_test.jsonl"
    return load_rows(folder, "odex", f"{file}*", HubFile("neulab/odex", file), fields=_FIELDS)


def _problem(language: str, number: int, row: Row) -> Problem:
    head, _, body = row["prompt"].partition("\n")
    prompt = f'{head}\n    """{row["intent"]}\n    """\n{body}'.replace("\t", "    ").rstrip()
    reference = row["prompt"][len(row["prompt"].rstrip()) :] + row["canonical_solution"]
    return Problem(f"ODEX/{language}/{number}/{row['task_id']}", prompt, None, reference, GROUPS[language], row=row)


def _reason(groups: list[str]) -> str:
    counts = ", ".join(f"{groups.count(group)} {group}" for group in GROUPS.values() if group in groups)
    return f"the library is not installed (problems that need it: {counts})"
