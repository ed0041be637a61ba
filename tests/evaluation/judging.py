"""What the tests of the tasks share: the published benchmarks, and verdicts of many completions at once."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from starcoder.evaluation.program import Result
from starcoder.evaluation.sandbox import Sandbox
from starcoder.evaluation.task import Executed, Problem

_PUBLISHED = Path(__file__).parents[2] / "../shared/data"


def published(name: str) -> Path:
    """The folder of benchmark data, for a test that needs the sub-folder `name`; without it the test is skipped."""
    if not (_PUBLISHED / name).is_dir():
        pytest.skip(f"the published data of {name} is not on this machine")
    return _PUBLISHED


def judge(task: Executed, completions: Iterable[tuple[Problem, str]], *, strict: bool = False) -> list[Result]:
    """The verdicts of completions, in their order."""
    with Sandbox(workers=2, strict=strict) as sandbox:
        futures = [sandbox.submit(task.program(problem, text)) for problem, text in completions]
        return [future.result() for future in futures]


def wrong(task: Executed, completions: Iterable[tuple[Problem, str]], *, strict: bool = False) -> dict[str, str]:
    """The problems whose completion does not pass, each with the verdict."""
    pairs = list(completions)
    results = judge(task, pairs, strict=strict)
    return {
        problem.id: f"{result.status}: {result.detail}"
        for (problem, _), result in zip(pairs, results, strict=True)
        if not result.passed
    }


def references(problems: Iterable[Problem]) -> list[tuple[Problem, str]]:
    """Each problem with its own reference."""
    return [(problem, problem.reference) for problem in problems]
