"""The benchmarks' own solutions in a model's place: whatever fails is the fault of the machine, or of the data."""

from collections.abc import Iterator, Sequence
from typing import Any

from starcoder.errors import UserError
from starcoder.evaluation.engines.base import Completion, Request, Sampling


class References:
    """An engine that completes each prompt with the benchmark's reference."""

    name = "references"
    context_length: int | None = None

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"engine": "references"}

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        """Refuse a task that asks for probabilities, and problems without a reference."""
        if likelihood:
            raise UserError("references are completions, and the task asks for probabilities: name a model")
        if without := next((request.problem for request in requests if not request.reference), None):
            raise UserError(f"the benchmark has no reference for its problem {without!r}: name a model")

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield the references."""
        for request in requests:
            for sample in request.samples:
                yield Completion(request.problem, sample, request.reference, "stop")

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        """There are none."""
        raise UserError("references are completions, no probabilities")
