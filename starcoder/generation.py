"""Completion and infilling with a key/value cache.

Prompts of different lengths are one batch: they go through the model together, padded on the right, and then grow one
token at a time, each at its own position. A sequence that has ended leaves the batch and costs nothing more. A prompt
goes through the model once, however many completions it is to have: they all begin from copies of its cache.

    prompts, the longest first ──► `batch_size` prefilled together ──► their samples, `batch_size` at a time

Shapes: P prompts prefilled together, B samples that grow together, T tokens of the longest prompt, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils.rnn import pad_sequence

from starcoder import tokenizer as tokenizers
from starcoder.errors import UserError
from starcoder.model import KVCache, StarCoder
from starcoder.release.folder import local_folder
from starcoder.tokenizer import EOD, FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX, Tokenizer

T = TypeVar("T")
Ends = Callable[[list[int]], bool]
"""Whether a completion that has just grown is at its end."""
Finish = Literal["stop", "length"]
"""Why a completion ended: it was at its end, or it had no more room."""


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


def _never(ids: list[int]) -> bool:
    return False


@dataclass(frozen=True)
class Prompt:
    """A prompt and the samples of it that are wanted.

    Args:
        ids: token ids; none begin a new document.
        keys: one for each sample: its random numbers are a function of this list of numbers, none of them negative.
        ends: whether a completion that has just grown is at its end; `ends_with` makes one from stop strings.
    """

    ids: Sequence[int]
    keys: Sequence[Sequence[int]]
    ends: Ends = _never


@dataclass(frozen=True)
class Sample:
    """One completion.

    Args:
        prompt: place of its prompt in the list of prompts.
        sample: place of its key among the prompt's.
        ids: token ids, without the prompt and without `<|endoftext|>`.
        finish: why it ended.
    """

    prompt: int
    sample: int
    ids: list[int]
    finish: Finish


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
    check_vocabulary(model, tokenizer)
    ends = ends_with(tokenizer.decode, sampling.stop)
    completions = generate_tokens(model, prompts, sampling, vocab_size=tokenizer.vocab_size, ends=ends)
    return [cut(tokenizer.decode(ids), sampling.stop) for ids in completions]


def check_vocabulary(model: StarCoder, tokenizer: Tokenizer) -> None:
    """Refuse, as a `UserError`, a tokenizer with ids that the model does not know."""
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {model.config.vocab_size}")


def ends_with(decode: Callable[[list[int]], str], stop: Sequence[str]) -> Ends:
    """What says whether the last of a completion's tokens, spelled by `decode`, completed one of the texts `stop`."""
    reach = max((len(text.encode()) for text in stop), default=0)  # every token is a byte at least

    def ends(ids: list[int]) -> bool:
        tail = decode(ids[-reach:])
        return any(text in tail for text in stop)

    return ends if stop else _never


def cut(text: str, stop: Sequence[str]) -> str:
    """`text` up to the stop string that is complete first, however the text is cut into tokens."""
    found = [(text.index(mark) + len(mark), text.index(mark)) for mark in stop if mark in text]
    return text[: min(found)[1]] if found else text


def generate_tokens(
    model: StarCoder,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    vocab_size: int | None = None,
    ends: Ends = _never,
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
    wanted = [Prompt(prompt, [[sampling.seed, place]], ends) for place, prompt in enumerate(prompts)]
    samples = sample_tokens(model, wanted, sampling, vocab_size)
    return [sample.ids for sample in sorted(samples, key=lambda sample: sample.prompt)]


def sample_tokens(
    model: StarCoder, prompts: Sequence[Prompt], sampling: Sampling, vocab_size: int | None = None
) -> Iterator[Sample]:
    """Yield all samples of all prompts as they end, with one pass of each prompt through the model.

    Args:
        model: dropout is off until the iterator is exhausted or closed. Processes that share a sharded one must
            complete the same prompts together.
        prompts: each with its samples' random keys, in whose favour `sampling.seed` has no meaning here, and with its
            own end, in whose favour `sampling.stop` has none.
        sampling: how tokens are chosen, how many, and how many samples grow together.
        vocab_size: only ids below are chosen; all of the model's when not given.

    Raises:
        UserError: when a prompt does not fit the model's context, or holds an id that the model does not know.
    """
    _check_prompts([prompt.ids for prompt in prompts], model)
    # FSDP cannot gather parameters in inference mode, which is faster.
    mode = torch.no_grad() if isinstance(model, FSDPModule) else torch.inference_mode()
    samples: Iterator[Sample] = mode(_samples)(model, prompts, sampling, vocab_size)
    return samples


def _samples(
    model: StarCoder, prompts: Sequence[Prompt], sampling: Sampling, vocab_size: int | None
) -> Iterator[Sample]:
    longest_first = sorted(enumerate(prompts), key=lambda numbered: len(numbered[1].ids), reverse=True)
    with evaluating(model):
        for group in batched(longest_first, sampling.batch_size):
            rows = [row for number, prompt in group for row in _rows(model, number, prompt, sampling)]
            yield from (row.sample() for row in rows if not row.room)
            if rows := [row for row in rows if row.room]:
                yield from _complete_rows(model, rows, sampling, vocab_size)


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """`items`, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))


def _check_prompts(prompts: Sequence[Sequence[int]], model: StarCoder) -> None:
    context_length, vocab_size = model.config.context_length, model.config.vocab_size
    for number, prompt in enumerate(prompts):
        if len(prompt) > context_length:
            raise UserError(f"prompt {number} has {len(prompt)} tokens, the model's context only {context_length}")
        if prompt and not 0 <= min(prompt) <= max(prompt) < vocab_size:
            raise UserError(f"prompt {number} holds a token id outside [0, {vocab_size})")


@contextmanager
def evaluating(model: StarCoder) -> Iterator[None]:
    """Dropout is off meanwhile."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@dataclass
class _Row:
    """A sample that grows."""

    number: int
    place: int
    prompt: list[int]
    room: int
    rng: np.random.Generator
    ends: Ends
    ids: list[int] = field(default_factory=list)
    finish: Finish = "length"

    def grow(self, token: int) -> bool:
        """Append `token` unless it is `<|endoftext|>`; say whether the completion goes on."""
        if token != EOD:
            self.ids.append(token)
        if token == EOD or self.ends(self.ids):
            self.finish = "stop"
        return self.finish == "length" and len(self.ids) < self.room

    def sample(self) -> Sample:
        return Sample(self.number, self.place, self.ids, self.finish)


def _rows(model: StarCoder, number: int, prompt: Prompt, sampling: Sampling) -> list[_Row]:
    ids = list(prompt.ids) or [EOD]
    room = min(sampling.max_new_tokens, model.config.context_length - len(ids))
    return [
        _Row(number, place, ids, room, np.random.default_rng(key), prompt.ends) for place, key in enumerate(prompt.keys)
    ]


def _complete_rows(model: StarCoder, rows: list[_Row], sampling: Sampling, vocab_size: int | None) -> Iterator[Sample]:
    """Pass the rows' prompts through the model, each once, and complete the rows."""
    prompts = {row.number: row.prompt for row in rows}
    places = {number: place for place, number in enumerate(prompts)}
    logits, cache = _prefill(model, list(prompts.values()))  # (P, V)
    for batch in batched(rows, sampling.batch_size):
        source = torch.tensor([places[row.number] for row in batch], device=logits.device)  # (B,)
        fork = cache.fork(source, max(row.room for row in batch))
        yield from _decode(model, list(batch), logits[source], fork, sampling, vocab_size)


def _decode(
    model: StarCoder, rows: list[_Row], logits: Tensor, cache: KVCache, sampling: Sampling, vocab_size: int | None
) -> Iterator[Sample]:
    """Complete one batch, given the logits (B, V) of each row's first token."""
    while rows:
        tokens = choose(logits[:, :vocab_size], sampling, [row.rng for row in rows])  # (B,)
        grows = [row.grow(token) for row, token in zip(rows, tokens.tolist(), strict=True)]
        if not all(grows):
            yield from (row.sample() for row, goes_on in zip(rows, grows, strict=True) if not goes_on)
            rows = [row for row, goes_on in zip(rows, grows, strict=True) if goes_on]
            kept = torch.tensor(grows, device=tokens.device)  # (B,)
            tokens = tokens[kept]
            cache.keep(kept)
        if rows:
            logits = model.next_logits(tokens.unsqueeze(1), cache)


def _prefill(model: StarCoder, prompts: list[list[int]]) -> tuple[Tensor, KVCache]:
    """Logits (P, V) of what follows each prompt, and the cache of the prompts."""
    device = model.transformer.wte.weight.device
    tokens = pad_sequence([torch.tensor(prompt) for prompt in prompts], batch_first=True).to(device)  # (P, T)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)  # (P,)
    cache = KVCache(model.config, len(prompts), tokens.size(1), device)
    logits = model.next_logits(tokens, cache, ends=lengths)
    cache.lengths = lengths
    return logits, cache


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
