"""The one shape of every benchmark: problems → prompts → post-processing → program or comparison → verdict.

A task is a class in a module of its own; `starcoder.evaluation.tasks.TASKS` lists them. What a task does not say, the
loop in `evaluate.py` does for all of them: sampling, running, resuming, counting and reporting.
"""

import hashlib
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from starcoder.evaluation.program import Program, Result
from starcoder.evaluation.sandbox import Sandbox


@dataclass(frozen=True)
class Problem:
    """One problem of a benchmark.

    Args:
        id: its name in the benchmark, unique within the task.
        prompt: what the model reads, without sentinels that the task does not want; the text before the gap when there
            is a `suffix`.
        suffix: the text after the gap, for infilling.
        reference: the completion that is right, where the benchmark has one.
        group: the row of the table it belongs to, such as a language or library; empty when the task has one row.
        stop: stop strings of this problem, besides those of the task.
        row: the benchmark's own data.
    """

    id: str
    prompt: str
    suffix: str | None = None
    reference: str = ""
    group: str = ""
    stop: tuple[str, ...] = ()
    row: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def digest(self) -> str:
        """What tells it from a problem of the same name in other data."""
        return hashlib.sha256(json.dumps(asdict(self), default=repr, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Defaults:
    """The paper's settings of a task (each cites its source).

    They hold where the user says nothing else; only samples are then one a problem, and the report says so.
    """

    n_samples: int = 1
    temperature: float = 0.2
    top_p: float = 0.95
    max_new_tokens: int = 512
    stop: tuple[str, ...] = ()


class Task(ABC):
    """A benchmark.

    Attributes:
        name: what `--tasks` calls it.
        title: its name in tables.
        section: the paper's section.
        data: name of its folder in the folder of benchmark data; empty when it needs none.
        source: where a user gets that data, one line.
        defaults: the paper's settings.
        styles: prompt styles (`prompting.STYLES`) that it may be asked in.
        rows_skipped: whether what it skips are rows of its table.
        runs: whether it needs a sandbox.
        python: the interpreter that runs Python programs, settled before `problems`.
        sandbox: the run's, lent to tasks that need one.
        window: tokens of the model's window, when it is known; settled before anything is planned.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    section: ClassVar[str]
    data: ClassVar[str] = ""
    source: ClassVar[str] = ""
    defaults: ClassVar[Defaults] = Defaults()
    styles: ClassVar[tuple[str, ...]] = ("plain",)
    rows_skipped: ClassVar[bool] = True
    runs: ClassVar[bool] = False
    python: str = sys.executable
    sandbox: Sandbox | None = None
    window: int | None = None

    @abstractmethod
    def problems(self, folder: Path | None) -> list[Problem]:
        """All problems that can be posed on this machine.

        Args:
            folder: the folder of benchmark data (it holds the sub-folder `self.data`), or None.

        Raises:
            UserError: when the data is missing (it says where to get it) or damaged (it says which file and line).
        """

    def skipped(self) -> dict[str, str]:
        """Groups that cannot be judged on this machine, each with the reason, such as a missing toolchain.

        Their problems are not in `problems`; a table with skipped groups says so and prints no total.
        """
        return {}

    def missing(self) -> dict[str, str]:
        """Measures that cannot be taken on this machine, each with the reason, such as a missing classifier.

        `scores` leaves them out; known after `problems`.
        """
        return {}


class Executed(Task):
    """A benchmark whose completions are run; its measure is pass@k."""

    runs = True

    @abstractmethod
    def program(self, problem: Problem, completion: str) -> Program:
        """What decides whether `completion` (already cut at the stop strings) is right."""

    def answer(self, problem: Problem, result: Result) -> str | None:
        """What the completion answered, for majority votes; None when the task has no answers."""
        return None

    def right_answer(self, problem: Problem) -> str | None:
        """The answer that wins the vote, as `answer` spells it."""
        return None


class Matched(Task):
    """A benchmark whose completions are compared with the reference."""

    @abstractmethod
    def scores(self, problem: Problem, completion: str) -> dict[str, float]:
        """Measures between 0 and 1 of one completion, by name, such as `exact_match`; always the same names."""

    def right(self, scores: Mapping[str, float]) -> bool:
        """Whether a completion with these scores is good: the first one is full."""
        return next(iter(scores.values()), 0.0) == 1

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The numbers of a table's row, from the mean of each score over the row's completions; always the same names.

        A number that cannot be told, such as a share of nothing, is NaN.
        """
        return dict(means)


class Likelihood(Task):
    """A benchmark that asks the model for probabilities, and for no completion."""

    @abstractmethod
    def requests(self, problem: Problem) -> list[tuple[str, str]]:
        """Pairs of a context and a text whose tokens' nats are wanted; an empty context begins a document."""

    @abstractmethod
    def scores(self, problem: Problem, nats: Sequence[Sequence[float]]) -> dict[str, tuple[float, float]]:
        """Measures by name, each as a sum and the weight to divide it by, given the nats of each request's tokens."""

    def summary(self, means: Mapping[str, float]) -> dict[str, float]:
        """The numbers of a table's row, from Σ sum / Σ weight of each measure over the problems of the row."""
        return dict(means)
