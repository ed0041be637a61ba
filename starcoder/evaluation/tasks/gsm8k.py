"""GSM8K answered with programs (PAL, Gao et al. 2022): arithmetic in words, solved by a function `solution` (§7.1).

Eight worked examples precede each question, in PAL's form. The examples are ours, since those of PAL's authors are
their text: a score made with ours is close to the paper's setting, but not the same. To use theirs, put their prompt
into the folder of benchmark data as `gsm8k/prompt.txt`, with `{question}` where the question goes.

An answer is right within 0.001. For majority votes (maj1@40 at temperature 0.7) a program's answer is what `solution`
gives, rounded to that.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typing_extensions import override

from starcoder.errors import UserError
from starcoder.evaluation.data import HubFile, load_rows
from starcoder.evaluation.program import Program, Result
from starcoder.evaluation.task import Defaults, Executed, Problem
from starcoder.rows import Row

_HUB = HubFile("openai/gsm8k", "main/test-00000-of-00001.parquet")
_QUESTION = "{question}"
_ANSWER = "#### "
_MARK = "\nanswer: "

_TESTS = f"""
answer = solution()
print({_MARK!r}, answer, sep="")
assert abs(float(answer) - {{right!r}}) < 1e-3
"""

_EXAMPLES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "A bakery makes 24 rolls in the morning and twice as many in the afternoon. It sells 50 of them. How many "
        "rolls are left?",
        (
            "rolls_morning = 24",
            "rolls_afternoon = 2 * rolls_morning",
            "rolls_sold = 50",
            "rolls_left = rolls_morning + rolls_afternoon - rolls_sold",
            "result = rolls_left",
        ),
    ),
    (
        "Nadia reads 15 pages on each of the five working days and 30 pages on each day of the weekend. How many weeks "
        "does she need for a book of 540 pages?",
        (
            "pages_per_week = 15 * 5 + 30 * 2",
            "pages_of_book = 540",
            "weeks = pages_of_book / pages_per_week",
            "result = weeks",
        ),
    ),
    (
        "A cyclist rides at 18 kilometres an hour for two and a half hours, rests, and then rides another 12 "
        "kilometres. How many kilometres does he ride in all?",
        (
            "speed = 18",
            "hours = 2.5",
            "distance_before_rest = speed * hours",
            "distance_after_rest = 12",
            "result = distance_before_rest + distance_after_rest",
        ),
    ),
    (
        "A theatre has 32 rows of 20 seats. Tonight 85% of the seats are taken. How many seats stay empty?",
        (
            "seats = 32 * 20",
            "seats_taken = seats * 85 / 100",
            "seats_empty = seats - seats_taken",
            "result = seats_empty",
        ),
    ),
    (
        "Oskar has three times as many marbles as Lena, and Lena has 7 fewer than Tom, who has 19. How many marbles do "
        "the three have together?",
        (
            "marbles_tom = 19",
            "marbles_lena = marbles_tom - 7",
            "marbles_oskar = 3 * marbles_lena",
            "result = marbles_tom + marbles_lena + marbles_oskar",
        ),
    ),
    (
        "Two pipes fill an empty tank of 600 litres. One brings 25 litres a minute, the other 15. After how many "
        "minutes is the tank full?",
        (
            "tank_litres = 600",
            "litres_per_minute = 25 + 15",
            "result = tank_litres / litres_per_minute",
        ),
    ),
    (
        "A pen costs $1.50 and a notebook $4. Ravi buys 6 pens and 3 notebooks and pays with a $50 bill. How many "
        "dollars does he get back?",
        (
            "cost_pens = 6 * 1.50",
            "cost_notebooks = 3 * 4",
            "paid = 50",
            "result = paid - (cost_pens + cost_notebooks)",
        ),
    ),
    (
        "A gardener sows 240 seeds. One sixth of them never sprout, and snails eat 35 of those that do. How many "
        "plants remain?",
        (
            "seeds = 240",
            "sprouts = seeds - seeds / 6",
            "plants = sprouts - 35",
            "result = plants",
        ),
    ),
)


class GSM8KPAL(Executed):
    """The 1,319 test problems, greedily; the presets have the majority vote."""

    name = "gsm8k-pal"
    title = "GSM8K (PAL)"
    section = "§7.1"
    data = "gsm8k"
    source = "test.jsonl of github.com/openai/grade-school-math, or huggingface.co/datasets/openai/gsm8k"
    defaults = Defaults(n_samples=1, temperature=0.0, top_p=1.0, max_new_tokens=512, stop=("\n\n\n",))

    @override
    def problems(self, folder: Path | None) -> list[Problem]:
        rows = load_rows(folder, self.data, "test.jsonl*", _HUB, fields=("question", "answer"))
        template = _template(folder)
        return [_problem(number, row, template) for number, row in enumerate(rows)]

    @override
    def program(self, problem: Problem, completion: str) -> Program:
        return Program(completion, _TESTS.format(right=_right(problem.row)), entry_point="solution")

    @override
    def answer(self, problem: Problem, result: Result) -> str | None:
        if result.passed:
            return self.right_answer(problem)
        _, mark, text = result.stdout.rpartition(_MARK)
        try:
            value = float(text) if mark else math.nan
        except ValueError:
            return None
        return _spelled(value) if math.isfinite(value) else None

    @override
    def right_answer(self, problem: Problem) -> str:
        return _spelled(_right(problem.row))


def _problem(number: int, row: Row, template: str) -> Problem:
    try:
        reference = f"def solution():\n    return {_right(row)!r}\n"
    except ValueError:
        raise UserError(f"gsm8k: row {number + 1} has no number after {_ANSWER!r}: download it again") from None
    return Problem(f"GSM8K/{number}", template.replace(_QUESTION, row["question"]), reference=reference, row=row)


def _right(row: Mapping[str, Any]) -> float:
    return float(row["answer"].rpartition(_ANSWER)[2].replace(",", ""))


def _spelled(value: float) -> str:
    return str(round(value, 3) + 0.0)  # + 0.0: no "-0.0"


def _template(folder: Path | None) -> str:
    """The prompt with a place for the question: the user's, or ours."""
    path = folder / "gsm8k" / "prompt.txt" if folder else None
    if path is None or not path.is_file():
        return "".join(_example(question, lines) for question, lines in _EXAMPLES) + _opening(_QUESTION)
    text = path.read_text()
    if _QUESTION not in text:
        raise UserError(f"{path} has no {_QUESTION}: write it where the question goes")
    return text


def _opening(question: str) -> str:
    return f"Q: {question}\n\n# solution in Python:\n\n\n"


def _example(question: str, lines: tuple[str, ...]) -> str:
    body = "".join(f"    {line}\n" for line in (*lines, "return result"))
    return f'{_opening(question)}def solution():\n    """{question}"""\n{body}\n\n\n\n\n'
