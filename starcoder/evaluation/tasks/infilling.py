"""HumanEval infilling (Bavarian et al. 2022): a gap in the canonical solution of a HumanEval problem, to be filled.

The paper's §6.2.3 measures infilling otherwise (`santacoder-fim`); this is the benchmark of the paper that made
fill-in-the-middle known. The gap is a line, a block of lines, or a random span of characters; whatever makes the tests
pass is right, so a completion ends where the model ends it, and nothing is cut from prefix, suffix or completion.
"""

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from starcoder.evaluation.data import load_rows
from starcoder.evaluation.program import Program
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.evaluation.tasks.humaneval import FIELDS, program_with_check


class Infilling(Executed):
    """What the kinds of gaps have in common.

    Attributes:
        file: the benchmark's name of the kind.
    """

    section = "§6.2.3"
    data = "human-eval-infilling"
    source = "the folder data of github.com/openai/human-eval-infilling"
    defaults = Defaults(n_samples=1, temperature=0.2, top_p=0.95, max_new_tokens=512)
    file: ClassVar[str]

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        pattern = f"HumanEval-{self.file}.jsonl*"
        rows = load_rows(folder, self.data, pattern, fields=(*FIELDS, "suffix"), source=self.source)
        return [
            Problem(row["task_id"], row["prompt"], row["suffix"], reference=row["canonical_solution"], row=row)
            for row in rows
        ]

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        code, reference = (f"{problem.prompt}{text}{problem.suffix}" for text in (completion, problem.reference))
        return program_with_check(problem.row, code, reference)


class SingleLineInfilling(Infilling):
    """1,033 gaps of one line."""

    name = "humaneval-infilling-single"
    title = "HumanEval infilling, single line"
    file = "SingleLineInfilling"


class MultiLineInfilling(Infilling):
    """5,815 gaps of consecutive lines."""

    name = "humaneval-infilling-multi"
    title = "HumanEval infilling, multi-line"
    file = "MultiLineInfilling"


class RandomSpanInfilling(Infilling):
    """1,640 gaps between two random places: ten for each HumanEval problem."""

    name = "humaneval-infilling-random"
    title = "HumanEval infilling, random span"
    file = "RandomSpanInfilling"


class RandomSpanLightInfilling(Infilling):
    """164 of the random spans: one for each HumanEval problem."""

    name = "humaneval-infilling-random-light"
    title = "HumanEval infilling, random span (light)"
    file = "RandomSpanInfillingLight"
