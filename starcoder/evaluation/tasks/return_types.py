"""Return types of Python functions, filled into `def f(…) -> ▢:` (§6.2.3; the set of the InCoder paper).

Every function of CodeXGLUE's code-to-text test split that states its return type is a problem. As InCoder's authors
made them: the function is parsed and written anew, without the types of its plain arguments, and the return type is cut
out; it must occur once. What follows the gap goes on after the colon, so the model writes the colon, which ends its
completion, and ends with the beginning of another function, so that the model sees where this one stops.

A prediction is right when it is the same expression. F1 is over all problems together: precision over the predictions
that are expressions, recall over all problems. `f1` is that, `f1_not_none` the same over the functions that return
something else than None; StarCoder has 86.4 and 77.1, StarCoderBase 86.6 and 77.4 percent.

Data: the Hub's `google/code_x_glue_ct_code_to_text` as `code-to-text/python/test*.parquet`, or the authors'
`code-to-text/python/test.jsonl`; the field `original_string` is read.
"""

import ast
from collections.abc import Mapping
from pathlib import Path
from textwrap import indent

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.task import Defaults, Matched, Problem

HUB = HubFile("google/code_x_glue_ct_code_to_text", "python/test-00000-of-00001.parquet")
PATTERN = "python/test*"
_UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


class ReturnTypes(Matched):
    """F1 of predicted return types."""

    name = "return-types"
    title = "Python return types"
    section = "§6.2.3"
    data = "code-to-text"
    source = f"huggingface.co/datasets/{HUB.repo}"
    defaults = Defaults(n_samples=1, temperature=0.2, top_p=0.95, max_new_tokens=32, stop=(":",))

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        rows = load_rows(folder, self.data, PATTERN, HUB, fields=("original_string",))
        found = [return_type_problem(str(number), row["original_string"]) for number, row in enumerate(rows)]
        if not any(found):
            raise UserError(f"{self.data} has no function that states its return type: download it again")
        return [problem for problem in found if problem]

    @override
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        predicted = normalized(completion)
        right, told, counts = predicted == problem.reference, predicted is not None, problem.reference != "None"
        return {
            "right": float(right),
            "told": float(told),
            "not_none": float(counts),
            "not_none_right": float(counts and right),
            "not_none_told": float(counts and told),
        }

    @override
    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        return {
            "f1_not_none": _f1(means["not_none_right"], means["not_none_told"], means["not_none"]),
            "f1": _f1(means["right"], means["told"], 1.0),
        }


def _f1(right: float, told: float, all_: float) -> float:
    """Harmonic mean of right/told and right/all."""
    return 2 * right / (told + all_) if all_ else float("nan")


def normalized(annotation: str) -> str | None:
    """An annotation as Python itself writes it; None when it is no expression."""
    try:
        return ast.unparse(ast.parse(annotation.strip(), mode="eval"))
    except _UNREADABLE:
        return None


def return_type_problem(id_: str, source: str) -> Problem | None:
    """The problem that a source file with one function of a stated return type makes; None when it makes none."""
    try:
        module = ast.parse(source)
    except _UNREADABLE:
        return None
    functions = [node for node in module.body if isinstance(node, ast.FunctionDef)]
    stated = [function.returns for function in functions if function.returns]
    for function in functions:
        for argument in function.args.args:
            argument.annotation = None
    if len(stated) != 1:
        return None
    return_type = ast.unparse(stated[0])
    before, *after = ast.unparse(module).split(f" -> {return_type}")
    if len(after) != 1:
        return None
    body = after[0].removeprefix(":") + "\n\ndef "
    if any("(self" in line for line in before.split("\n")[:2]):
        before, body = indent(before, "    "), indent(body, "    ")
    return Problem(id_, f"{before} ->", body, return_type)
