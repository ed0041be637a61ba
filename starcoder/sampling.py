"""How the next token is chosen, and when a completion is at its end.

Shapes: B sequences, V vocabulary, K candidates.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from starcoder.errors import UserError

Ends = Callable[[list[int]], bool]
"""Whether a completion that has just grown is at its end."""
Finish = Literal["stop", "length"]
"""Why a completion ended: it was at its end, or it had no more room."""

NOT_FINITE = "the model's logits are not finite: its weights are damaged, or too large for their precision"

_LIKELIEST = 256
_COLDEST = 1e-5


class Logprob(NamedTuple):
    """How likely the model found a token, by its own distribution: before temperature and nucleus.

    Args:
        token: its id.
        logprob: natural logarithm of its probability.
        likeliest: as many of the likeliest ids as were asked for, each with its logarithm, the likeliest first.
    """

    token: int
    logprob: float
    likeliest: list[tuple[int, float]]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and how many.

    What a prompt gets does not depend on the other prompts, up to the rounding of sums. In float32 that hardly ever
    changes a token. In bfloat16 and float16 it often does where tokens are drawn: a prompt's completions alone and
    among others mostly part ways after a while, and both are drawn from the model's distribution.

    Args:
        max_new_tokens: longest completion in tokens; the prompt does not count.
        temperature: what logits are divided by; 0, like anything below 1e-5, takes the likeliest token.
        top_p: choose among the fewest likeliest tokens whose probabilities sum to this (nucleus sampling).
        stop: texts that end a completion and are cut from it.
        seed: random numbers are a function of it, of the prompt's place in the list, and of the token's number.
        batch_size: completions that grow together.

    Raises:
        UserError: naming every value that cannot be.
    """

    max_new_tokens: int = 64
    temperature: float = 0.0
    top_p: float = 1.0
    stop: Sequence[str] = ()
    seed: int = 0
    batch_size: int = 32

    def __post_init__(self) -> None:
        wrong = {
            f"max_new_tokens is {self.max_new_tokens}, below 0": self.max_new_tokens < 0,
            f"temperature is {self.temperature}, outside [0, ∞)": not 0 <= self.temperature < math.inf,
            f"top_p is {self.top_p}, outside (0, 1]": not 0 < self.top_p <= 1,
            f"stop is {self.stop!r}, no list of texts": isinstance(self.stop, str) or not all(self.stop),
            f"seed is {self.seed}, below 0": self.seed < 0,
            f"batch_size is {self.batch_size}, below 1": self.batch_size < 1,
        }
        if any(wrong.values()):
            raise UserError("generation: " + "; ".join(problem for problem, holds in wrong.items() if holds))


def never(ids: list[int]) -> bool:
    """The end of a completion that only `<|endoftext|>` or its length ends."""
    return False


def choose(logits: Tensor, sampling: Sampling, rngs: Sequence[np.random.Generator]) -> Tensor:
    """The next token (B,) of each row of logits (B, V), with one random number from each row's generator.

    Raises:
        UserError: when a row's logits are not finite.
    """
    tokens = choose_each(logits, [sampling] * len(logits), rngs)
    if (tokens < 0).any():
        raise UserError(NOT_FINITE)
    return tokens


def choose_each(logits: Tensor, samplings: Sequence[Sampling], rngs: Sequence[np.random.Generator]) -> Tensor:
    """As `choose`, each row in its own way; -1 for a row whose highest logit is not finite."""
    drawn = [row for row, sampling in enumerate(samplings) if sampling.temperature >= _COLDEST]
    highest, tokens = logits.max(dim=-1)  # (B,) each; NaN is the highest of all
    if drawn:
        options = [(samplings[row].temperature, samplings[row].top_p, rngs[row].random()) for row in drawn]
        rows = torch.tensor(drawn).to(logits.device, non_blocking=True)
        below = logits[rows].float().sub_(highest[rows].unsqueeze(1))  # so that no temperature lets them overflow
        tokens[rows] = _draw(below, torch.tensor(options).to(logits.device, non_blocking=True))
    return tokens.where(highest.isfinite(), -1)


def logprobs(logits: Tensor, tokens: Tensor, likeliest: int, vocab_size: int | None = None) -> list[Logprob]:
    """How likely tokens (B,) are, given logits (B, V), and the likeliest of the ids below `vocab_size`."""
    every = F.log_softmax(logits.float(), dim=-1)
    values = every.gather(1, tokens.unsqueeze(1)).squeeze(1)
    best = every[:, :vocab_size].topk(min(likeliest, every[:, :vocab_size].size(1)))
    return [
        Logprob(token, value, list(zip(ids, numbers, strict=True)))
        for token, value, numbers, ids in zip(tokens.tolist(), values.tolist(), *map(Tensor.tolist, best), strict=True)
    ]


def _draw(logits: Tensor, options: Tensor) -> Tensor:
    """A token (B,) from each nucleus, given logits (B, V) and (temperature, top_p, random number) of each, (B, 3).

    The likeliest few of the vocabulary nearly always are enough, and much faster to find than its whole order.
    """
    temperature, top_p, number = options.t().contiguous().unsqueeze(2)  # (B, 1) each
    probabilities = F.softmax(logits.div_(temperature), dim=-1)
    few = min(_LIKELIEST, logits.size(1))
    tokens, settled = _draw_among(*probabilities.topk(few), top_p, number)
    if few < logits.size(1) and not settled.all():
        rest = ~settled
        every = probabilities[rest].sort(dim=-1, descending=True)
        tokens[rest], _ = _draw_among(*every, top_p[rest], number[rest])
    return tokens


def _draw_among(probabilities: Tensor, ids: Tensor, top_p: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
    """A token (B,) from each nucleus among candidates (B, K), the likeliest first, and whether they were enough."""
    mass = probabilities.cumsum(dim=-1)  # (B, K)
    every, most = mass[:, -1:], mass.size(1)
    last = torch.searchsorted(mass, top_p)  # (B, 1), the end of the nucleus
    inside = last < most
    drawn = number * mass.gather(1, last.clamp(max=most - 1)).where(inside, 1.0)
    settled = inside | ((top_p == 1) & (drawn <= every))
    rank = torch.searchsorted(mass, drawn.minimum(every)).clamp(max=most - 1)  # beyond, where they are NaN
    return ids.gather(1, rank).squeeze(1), settled.squeeze(1)
