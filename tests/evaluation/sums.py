"""A benchmark of the tests' own, in each of the three shapes."""

from collections.abc import Sequence
from pathlib import Path

from starcoder.evaluation.program import Program, Result
from starcoder.evaluation.task import Defaults, Executed, Likelihood, Matched, Problem

NUMBERS = range(8)


def problems() -> list[Problem]:
    return [
        Problem(f"sums/{n}", f"def f(x):\n    return x + {n} +", reference=f" {n}", group="odd" if n % 2 else "even")
        for n in NUMBERS
    ]


class Sums(Executed):
    name = "sums"
    title = "Sums"
    section = "none"
    defaults = Defaults(n_samples=3, temperature=0.8, top_p=0.95, max_new_tokens=8, stop=("\n",))

    def problems(self, folder: Path | None) -> list[Problem]:
        return problems()

    def skipped(self) -> dict[str, str]:
        return {"imaginary": "there is no interpreter of it"}

    def program(self, problem: Problem, completion: str) -> Program:
        number = int(problem.id.split("/")[1])
        return Program(problem.prompt + completion, f"print(f(1))\nassert f(1) == {1 + 2 * number}", entry_point="f")

    def answer(self, problem: Problem, result: Result) -> str | None:
        return result.stdout.strip() or None

    def right_answer(self, problem: Problem) -> str:
        return str(1 + 2 * int(problem.id.split("/")[1]))


class Spelling(Matched):
    name = "spelling"
    title = "Spelling"
    section = "none"
    defaults = Defaults(max_new_tokens=8, stop=("\n",))

    def problems(self, folder: Path | None) -> list[Problem]:
        return problems()

    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        letters = sum(map(str.isalpha, completion)) / max(1, len(completion))
        return {"exact_match": float(completion == problem.reference), "letters": letters}


class Surprise(Likelihood):
    name = "surprise"
    title = "Surprise"
    section = "none"

    def problems(self, folder: Path | None) -> list[Problem]:
        return problems()

    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        return [(problem.prompt, problem.reference), ("", problem.prompt)]

    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        return {name: (sum(part), len(part)) for name, part in zip(("nats_answer", "nats_prompt"), nats, strict=True)}


class Nameless(Spelling):
    title = None  # type: ignore[assignment]


not_a_task = object
