"""The infilling of the SantaCoder and StarCoder papers: one masked line, to be given back exactly (§6.2.3).

4,792 lines of HumanEval solutions in Java, JavaScript and Python. Prefix and suffix go to the model as the data has
them: the prefix ends before the line break, so that the model writes it, and the suffix begins after one. White space
at the ends does not count, but a completion that goes on after the line is wrong: it has to end by itself.

The original run cut completions at `<|endoftext|>` and at `<|filename|>`, a slip for `<filename>`, which a model
writes where it believes the next file begins. We cut at all three.
"""

from pathlib import Path

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.task import Defaults, Matched, Problem
from starcoder.rows import Row

_GROUPS = {"java": "Java", "js": "JavaScript", "py": "Python"}
_HUB = HubFile("bigcode/santacoder-fim-task", "data/train-00000-of-00001-b6ec1fdd66018baa.parquet")


class SantaCoderFIM(Matched):
    """Exact match of single lines, a row of the table for each language."""

    name = "santacoder-fim"
    title = "SantaCoder FIM"
    section = "§6.2.3"
    data = "santacoder-fim"
    source = "huggingface.co/datasets/bigcode/santacoder-fim-task"
    defaults = Defaults(
        n_samples=1,
        temperature=0.2,
        top_p=0.95,
        max_new_tokens=512,
        stop=("<|endoftext|>", "<|filename|>", "<filename>"),
    )

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        fields = ("language", "prompt", "suffix", "canonical_solution")
        rows = load_rows(folder, self.data, "*fim*.jsonl*", _HUB, fields=fields)
        return [_problem(number, row) for number, row in enumerate(rows)]

    @override
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        return {"exact_match": float(completion.strip() == problem.reference.strip())}


def _problem(number: int, row: Row) -> Problem:
    language = row["language"]
    if language not in _GROUPS:
        raise UserError(f"santacoder-fim: row {number + 1} is in {language}: it must be in {', '.join(_GROUPS)}")
    reference = row["canonical_solution"]
    return Problem(f"{language}/{number}", row["prompt"], row["suffix"], reference, _GROUPS[language], row=row)
