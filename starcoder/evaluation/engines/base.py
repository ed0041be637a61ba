"""The small interface between the tasks and whatever holds the model."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

FIM_SPELLINGS = {
    "starcoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    "santacoder": ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    "qwen": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    "deepseek": ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"),
}
"""Sentinels before the prefix, before the suffix and before the gap, in the spelling of some families of models."""


def random_key(seed: int, problem: str, sample: int) -> list[int]:
    """What a sample's random numbers are a function of."""
    digest = hashlib.sha256(problem.encode()).digest()
    return [seed, int.from_bytes(digest[:8], "little"), sample]


@dataclass(frozen=True)
class Request:
    """A prompt and the samples of it that are wanted.

    Args:
        problem: the problem's id; with the run's seed and a sample's number it decides that sample's random numbers.
        prompt: text; the spelling of a sentinel in it is the control token when there is no suffix.
        suffix: the text after the gap when the model is to infill (both are plain text then).
        samples: numbers of the samples.
        stop: texts that end a completion and are cut from it.
        reference: the completion that the benchmark calls right; models do not see it.
    """

    problem: str
    prompt: str
    suffix: str | None
    samples: tuple[int, ...]
    stop: tuple[str, ...] = ()
    reference: str = field(default="", repr=False)

    @property
    def digest(self) -> str:
        """What its completions are an answer to."""
        asked = json.dumps([self.prompt, self.suffix, self.stop])
        return hashlib.sha256(asked.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Completion:
    """One sample.

    Args:
        problem: id of its problem.
        sample: its number.
        text: the completion, cut at the stop string.
        finish: "stop" (a stop string or the end of the document) or "length".
    """

    problem: str
    sample: int
    text: str
    finish: str


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen: temperature 0 takes the likeliest token."""

    temperature: float
    top_p: float
    max_new_tokens: int
    seed: int = 0


class Engine(Protocol):
    """Whatever completes prompts.

    Attributes:
        name: what the report calls the model.
        settings: what reproduces its numbers: engine, versions, device, precision, weights' digest.
        context_length: tokens of its window; None when unknown.
    """

    name: str
    settings: dict[str, Any]
    context_length: int | None

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        """Refuse, before the first token, what cannot be done: infilling without sentinels, completions without room.

        With `likelihood` the requests ask for no completion but for the probabilities of their references.
        Engines that hold the model themselves cut prompts that leave no room for `max_new_tokens`, on the left (and a
        suffix on the right), and count them in `settings["truncated_prompts"]`.

        Raises:
            UserError: naming the first problem that it concerns.
        """

    def complete(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Completion]:
        """Yield all samples of all requests as they are finished, in any order.

        A sample depends on (seed, problem, sample number) alone, not on what is completed beside it.
        """

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        """Yield, in order, the cross-entropy in nats of each token of a pair's text after its context.

        A context is read like a prompt, the text as plain text; an empty context begins a document. A context that does
        not fit is cut on the left. A text longer than the window goes on in windows that overlap by
        half, so that the first `context_length` numbers are those of one window.

        Raises:
            UserError: when the engine tells no probabilities.
        """
