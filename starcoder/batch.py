"""Sequences that grow together, one token a step, and that join and leave between steps (continuous batching).

A prompt goes through the model once, however many of its completions are wanted at a time: they all begin from copies
of its cache. A sequence that has ended gives its row to the next one that waits, and costs nothing more.

    add ──► waiting, in order ──► prefilled together ──► up to `rows` growing ──► step() tells each one's token

Shapes: P prompts prefilled together, B sequences that grow together, T tokens of the longest prompt, V vocabulary.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils.rnn import pad_sequence

from starcoder.decoding import Decoding, Static, power_of_two, resolved
from starcoder.errors import UserError
from starcoder.model import KVCache, StarCoder
from starcoder.sampling import Ends, Finish, Logprob, Sampling, choose_each, never
from starcoder.tokenizer import EOD

_SLOTS = 64
_PREFILLED_TOGETHER = 2**14


class Growth(NamedTuple):
    """What one step did to one sequence.

    Args:
        handle: the one that `Batch.add` gave.
        token: the id that it grew by; none where it ended at `<|endoftext|>` or had no room at all.
        finish: why it ended and left the batch; none while it goes on. It failed if the model's logits were not finite.
        logprob: how likely the token was, where `logprobs` were asked for.
        prompt: with a sequence's first growth, how likely each of the prompt's tokens but the first was, where
            `prompt_logprobs` were asked for.
    """

    handle: int
    token: int | None
    finish: Finish | Literal["failed"] | None
    logprob: Logprob | None = None
    prompt: list[Logprob] | None = None


@dataclass(eq=False)
class _Prompt:
    """A prompt that sequences wait for; once the first of them grows, its cache (L, T, 2·D) and logits (V,) too."""

    ids: list[int]
    state: tuple[Tensor, Tensor] | None = None


_JOINED = _Prompt([])
"""What a sequence that grows has as its prompt, so that the prompt goes when nobody waits for it."""


@dataclass
class _Row:
    """A sequence that grows."""

    handle: int
    prompt: _Prompt
    room: int
    sampling: Sampling
    rng: np.random.Generator
    ends: Ends
    ids: list[int] = field(default_factory=list)

    def grow(self, token: int) -> Growth:
        """Append `token` unless it is `<|endoftext|>`."""
        if token == EOD:
            return Growth(self.handle, None, "stop")
        self.ids.append(token)
        full: Finish | None = "length" if len(self.ids) >= self.room else None
        return Growth(self.handle, token, "stop" if self.ends(self.ids) else full)


class Batch:
    """Continuous batching: the samples of a key do not depend on what joins and leaves, up to the rounding of sums.

    Args:
        model: dropout is off during a step. Processes that share a sharded one must make the same calls.
        rows: most sequences that grow together; the others wait in the order in which they were added.
        vocab_size: only ids below are chosen; all of the model's when not given.
        decoding: how one token of every sequence is computed.
    """

    def __init__(
        self, model: StarCoder, rows: int = 32, vocab_size: int | None = None, decoding: Decoding = "auto"
    ) -> None:
        if rows < 1:
            raise UserError(f"a batch has {rows} rows, below 1")
        self.model, self.most, self.vocab_size = model, rows, vocab_size
        self._waiting: deque[_Row] = deque()
        self._growing: list[_Row] = []
        self._prompts: WeakValueDictionary[tuple[int, ...], _Prompt] = WeakValueDictionary()
        self._handles = count()
        self._cache = self._new_cache()
        decoding = resolved(decoding, model)
        self._static = None if decoding == "eager" else Static(model, compiled=decoding == "compiled")

    def __len__(self) -> int:
        """Number of sequences that wait or grow."""
        return len(self._waiting) + len(self._growing)

    @property
    def cache_bytes(self) -> int:
        """Memory of the keys and values; with eager decoding, none is held while nothing grows."""
        return self._cache.bytes

    def add(
        self,
        ids: Sequence[int],
        sampling: Sampling,
        key: Sequence[int] = (0,),
        ends: Ends = never,
        logprobs: int | None = None,
        prompt_logprobs: int | None = None,
    ) -> int:
        """Let a completion begin as soon as a row is free.

        Args:
            ids: the prompt's token ids; none begin a new document.
            sampling: of which temperature, top_p and max_new_tokens have a meaning here.
            key: what the random numbers are a function of; numbers, none of them negative.
            ends: whether the completion, which has just grown, is at its end.
            logprobs: tell how likely each token was, and this many of the likeliest; 0 tells of the token alone.
            prompt_logprobs: the same for the prompt's tokens; a completion without room tells them too.

        Returns:
            The sequence's handle.

        Raises:
            UserError: when the prompt does not fit the model's context, or holds an id that the model does not know.
        """
        check_prompt(ids, self.model)
        start = list(ids) or [EOD]
        prompt = self._prompts.setdefault(tuple(start), _Prompt(start))
        room = min(sampling.max_new_tokens, self.model.config.context_length - len(start))
        handle = next(self._handles)
        self._waiting.append(_Row(handle, prompt, room, sampling, np.random.default_rng(list(key)), ends))
        return handle

    def remove(self, handle: int) -> None:
        """Give a sequence up; nothing happens if it has ended or was removed before."""
        self._waiting = deque(row for row in self._waiting if row.handle != handle)
        self._leave({handle})

    def step(self) -> list[Growth]:
        """Let every sequence grow by one token; those that ended have left when the result comes."""
        with self._mode(), evaluating(self.model):
            grown = self._step()
        self._leave({growth.handle for growth in grown if growth.finish})
        return grown

    def _step(self) -> list[Growth]:
        logits = [self._decode()] if self._growing else []
        full, joining = self._admit()
        logits += [self._prefill(rows) for rows in joining]
        if not logits:
            return full
        tokens = choose_each(
            (torch.cat(logits) if len(logits) > 1 else logits[0])[:, : self.vocab_size],
            [row.sampling for row in self._growing],
            [row.rng for row in self._growing],
        )
        return full + [row.grow(token) for row, token in zip(self._growing, tokens.tolist(), strict=True)]

    def _decode(self) -> Tensor:
        """Logits (B, V) of what follows each sequence's last token."""
        self._reserve(len(self._growing), max(self._cache.lengths) + 1)
        tokens = [row.ids[-1] for row in self._growing]
        if self._static:
            return self._static.next_logits(tokens, self._cache)
        return self.model.next_logits(self._tensor(tokens).unsqueeze(1), self._cache)

    def _admit(self) -> tuple[list[Growth], list[list[_Row]]]:
        """Take from the queue what has no room to grow, and groups of rows to prefill together."""
        full: list[Growth] = []
        groups: list[list[_Row]] = [[]]
        free = self.most - len(self._growing)
        while self._waiting and (free or not self._waiting[0].room):
            row = self._waiting.popleft()
            if not row.room:
                full.append(Growth(row.handle, None, "length"))
                continue
            free -= 1
            width = max(len(other.prompt.ids) for other in [*groups[-1], row])
            if width * (len(groups[-1]) + 1) > _PREFILLED_TOGETHER:
                groups.append([])
            groups[-1].append(row)
        return full, [group for group in groups if group]

    def _prefill(self, rows: list[_Row]) -> Tensor:
        """Let rows join, once their prompts have gone through the model; logits (B, V) of their first tokens."""
        new = {id(row.prompt): row.prompt for row in rows if row.prompt.state is None}
        if new:
            self._pass(list(new.values()))
        states = [row.prompt.state for row in rows if row.prompt.state]
        longest = max(len(row.prompt.ids) for row in rows)
        self._reserve(len(self._growing) + len(rows), longest)
        for row, (kv, _) in zip(rows, states, strict=True):
            self._cache.join(kv)
            row.prompt = _JOINED
        self._growing += rows
        return torch.stack([logits for _, logits in states])

    def _pass(self, prompts: list[_Prompt]) -> None:
        """Pass prompts through the model, padded on the right, and keep what follows from them."""
        lengths = [len(prompt.ids) for prompt in prompts]
        padded = pad_sequence([torch.tensor(prompt.ids) for prompt in prompts], batch_first=True)
        tokens = padded.to(self._device)  # (P, T)
        cache = KVCache(self.model.config, len(prompts), tokens.size(1), self._device)
        logits = self.model.next_logits(tokens, cache, self._tensor(lengths))  # (P, V)
        cache.shorten(lengths)
        for place, prompt in enumerate(prompts):
            prompt.state = cache.sequence(place), logits[place]

    def _reserve(self, rows: int, slots: int) -> None:
        """Room in powers of two, so that copies are rare, up to the most that can ever be needed."""
        self._cache.reserve(
            min(self.most, power_of_two(rows)),
            min(self.model.config.context_length, max(_SLOTS, power_of_two(slots))),
        )

    def _leave(self, handles: set[int]) -> None:
        with self._mode():
            for place in reversed(range(len(self._growing))):
                if self._growing[place].handle in handles:
                    self._cache.leave(place)
                    self._growing[place] = self._growing[-1]
                    self._growing.pop()
        if not self._growing and not self._static:  # whose graphs hold its address
            self._cache = self._new_cache()

    def _mode(self) -> torch.no_grad | torch.inference_mode:
        """FSDP cannot gather parameters in inference mode, which is faster."""
        return torch.no_grad() if isinstance(self.model, FSDPModule) else torch.inference_mode()

    def _new_cache(self) -> KVCache:
        return KVCache(self.model.config, 0, 0, self._device)

    def _tensor(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers).to(self._device, non_blocking=True)

    @property
    def _device(self) -> torch.device:
        return self.model.transformer.wte.weight.device


def check_prompt(ids: Sequence[int], model: StarCoder, name: str = "the prompt") -> None:
    """Refuse, as a `UserError`, a prompt that the model cannot take."""
    context_length, vocab_size = model.config.context_length, model.config.vocab_size
    if len(ids) > context_length:
        raise UserError(f"{name} has {len(ids)} tokens, the model's context only {context_length}")
    if ids and not 0 <= min(ids) <= max(ids) < vocab_size:
        raise UserError(f"{name} holds a token id outside [0, {vocab_size})")


@contextmanager
def evaluating(model: StarCoder) -> Iterator[None]:
    """Dropout is off meanwhile."""
    if not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()
