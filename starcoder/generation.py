"""Completion and infilling with a key/value cache.

Prompts of different lengths are one batch: they go through the model together, padded on the right, and then grow one
token at a time, each at its own position. A sequence that has ended leaves the batch and costs nothing more.

Shapes: B sequences that still grow, T tokens of the longest prompt, V vocabulary, C channels.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.linear import linear
from starcoder.model import KVCache, StarCoder
from starcoder.release.folder import local_folder
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen, and how many.

    What a prompt gets does not depend on the other prompts, up to the rounding of sums.

    Args:
        max_new_tokens: longest completion in tokens; the prompt does not count.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_p: choose among the fewest likeliest tokens whose probabilities sum to this (nucleus sampling).
        stop: texts that end a completion and are cut from it.
        seed: random numbers are a function of it, of the prompt's place in the list, and of the token's number.
        batch_size: prompts that are completed together.

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


def generate(model: StarCoder, tokenizer: Tokenizer, prompts: Sequence[str], **sampling: Any) -> list[str]:
    """Complete prompts, in which the spelling of a sentinel, such as `<filename>`, is the control token.

    A completion ends before `<|endoftext|>` or the stop string that is complete first, after `max_new_tokens`, or where
    prompt and completion fill the model's context.

    Args:
        model: dropout is off meanwhile.
        tokenizer: the one that the model was trained with.
        prompts: texts; an empty one begins a new document.
        sampling: fields of `Sampling`.

    Returns:
        The completions, without their prompts.

    Raises:
        UserError: when a prompt does not fit the model's context, the tokenizer does not fit the model, or an option is
            out of its range.
    """
    return _complete(model, tokenizer, [tokenizer.encode_prompt(prompt) for prompt in prompts], Sampling(**sampling))


def infill(model: StarCoder, tokenizer: Tokenizer, gaps: Sequence[tuple[str, str]], **sampling: Any) -> list[str]:
    """Write what stands between each prefix and suffix, which are plain text; the rest is as for `generate`."""
    prompts = [
        [FIM_PREFIX, *tokenizer.encode(prefix), FIM_SUFFIX, *tokenizer.encode(suffix), FIM_MIDDLE]
        for prefix, suffix in gaps
    ]
    return _complete(model, tokenizer, prompts, Sampling(**sampling))


def complete(
    model: str,
    prompt: str,
    suffix: str | None = None,
    max_new_tokens: int = 64,
    temperature: float = 0.2,
    top_p: float = 0.95,
    stop: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Print the completion of a prompt, or with a suffix, what stands between the two.

    Args:
        model: folder of a model and its tokenizer, or a Hub repository.
        prompt: the text to continue.
        suffix: the text after the gap.
        max_new_tokens: longest completion in tokens; the prompt does not count.
        temperature: what logits are divided by; 0 takes the likeliest token.
        top_p: choose among the fewest likeliest tokens whose probabilities sum to this.
        stop: texts that end the completion and are cut from it.
        seed: seed of the random choices.
    """
    sampling = {"max_new_tokens": max_new_tokens, "temperature": temperature, "top_p": top_p, "seed": seed}
    folder = local_folder(model)
    tokenizer = tokenizers.load(folder)
    network = StarCoder.from_pretrained(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    if suffix is None:
        print(generate(network, tokenizer, [prompt], stop=stop or (), **sampling)[0])
    else:
        print(infill(network, tokenizer, [(prompt, suffix)], stop=stop or (), **sampling)[0])


def _complete(model: StarCoder, tokenizer: Tokenizer, prompts: list[list[int]], sampling: Sampling) -> list[str]:
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}")
    reach = max((len(text.encode()) for text in sampling.stop), default=0)  # every token is a byte at least

    def ends(ids: list[int]) -> bool:
        return any(text in tokenizer.decode(ids[-reach:]) for text in sampling.stop)

    completions = generate_tokens(model, prompts, sampling, vocab_size=tokenizer.vocab_size, ends=ends)
    return [_cut(tokenizer.decode(ids), sampling.stop) for ids in completions]


def _cut(text: str, stop: Sequence[str]) -> str:
    """`text` up to the stop string that is complete first, however the text is cut into tokens."""
    found = [(text.index(mark) + len(mark), text.index(mark)) for mark in stop if mark in text]
    return text[: min(found)[1]] if found else text


def generate_tokens(
    model: StarCoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    vocab_size: int | None = None,
    ends: Callable[[list[int]], bool] = lambda ids: False,
) -> list[list[int]]:
    """Complete prompts of token ids; `sampling.stop` is text and has no meaning here.

    Args:
        model: dropout is off meanwhile.
        prompts: token ids; an empty prompt begins a new document.
        sampling: how tokens are chosen, and how many.
        vocab_size: only ids below are chosen; all of the model's when not given.
        ends: whether a completion that has just grown is at its end.

    Returns:
        The completions, without their prompts and without `<|endoftext|>`.

    Raises:
        UserError: when a prompt does not fit the model's context, or holds an id that the model does not know.
    """
    _check_prompts(prompts, model)
    table = model.transformer.wte.weight[:vocab_size]  # (V, C)
    completions: list[list[int]] = []
    with _evaluating(model):
        for start in range(0, len(prompts), sampling.batch_size):
            batch = [list(prompt) or [EOD] for prompt in prompts[start : start + sampling.batch_size]]
            rngs = [np.random.default_rng([sampling.seed, start + row]) for row in range(len(batch))]
            completions += _decode(model, table, batch, rngs, sampling, ends)
    return completions


def _check_prompts(prompts: Sequence[Sequence[int]], model: StarCoder) -> None:
    context_length, vocab_size = model.config.context_length, model.config.vocab_size
    for number, prompt in enumerate(prompts):
        if len(prompt) > context_length:
            raise UserError(f"prompt {number} has {len(prompt)} tokens, the model's context only {context_length}")
        if prompt and not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(f"prompt {number} holds a token id outside [0, {vocab_size})")


@contextmanager
def _evaluating(model: StarCoder) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(training)


def _decode(
    model: StarCoder,
    table: Tensor,
    prompts: list[list[int]],
    rngs: list[np.random.Generator],
    sampling: Sampling,
    ends: Callable[[list[int]], bool],
) -> list[list[int]]:
    """Complete one batch; `table` (V, C) holds the tokens that may be chosen."""
    completions: list[list[int]] = [[] for _ in prompts]
    room = [min(sampling.max_new_tokens, model.config.context_length - len(prompt)) for prompt in prompts]
    rows = [row for row, n in enumerate(room) if n > 0]
    if not rows:
        return completions
    hidden, cache = _prefill(model, [prompts[row] for row in rows], max(room))
    while rows:
        tokens = choose(linear(hidden, table), sampling, [rngs[row] for row in rows])  # (B,)
        grows = [
            _grow(completions[row], token, room[row], ends) for row, token in zip(rows, tokens.tolist(), strict=True)
        ]
        if not all(grows):
            rows = [row for row, goes_on in zip(rows, grows, strict=True) if goes_on]
            kept = torch.tensor(grows, device=tokens.device)  # (B,)
            tokens = tokens[kept]
            cache.keep(kept)
        if rows:
            hidden = model.hidden(tokens.unsqueeze(1), cache).squeeze(1)  # (B, C)
    return completions


def _grow(completion: list[int], token: int, room: int, ends: Callable[[list[int]], bool]) -> bool:
    """Append `token` unless it is `<|endoftext|>`; say whether the completion goes on."""
    if token == EOD:
        return False
    completion.append(token)
    return len(completion) < room and not ends(completion)


def _prefill(model: StarCoder, prompts: list[list[int]], room: int) -> tuple[Tensor, KVCache]:
    """Hidden state of each prompt's last token (B, C), and the cache, in which `room` more tokens fit."""
    table = model.transformer.wte.weight
    tokens = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(table.device)  # (B, T)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=table.device)  # (B,)
    cache = KVCache(model.config, len(prompts), tokens.size(1) + room, like=table)
    hidden = model.hidden(tokens, cache)  # (B, T, C)
    cache.lengths = lengths
    return hidden[torch.arange(len(prompts), device=table.device), lengths - 1], cache


def choose(logits: Tensor, sampling: Sampling, rngs: list[np.random.Generator]) -> Tensor:
    """The next token (B,) of each row of logits (B, V), with one random number from each row's generator."""
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities, ids = F.softmax(logits.float() / sampling.temperature, dim=-1).sort(dim=-1, descending=True)
    mass = probabilities.cumsum(dim=-1)  # (B, V)
    top_p = mass.new_full((len(mass), 1), sampling.top_p)
    last = torch.searchsorted(mass, top_p).clamp(max=mass.size(1) - 1)  # (B, 1), the end of the nucleus
    drawn = mass.new_tensor([[rng.random()] for rng in rngs]) * mass.gather(1, last)  # (B, 1)
    rank = torch.searchsorted(mass, drawn)
    return ids.gather(1, rank).squeeze(1)
