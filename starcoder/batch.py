"""Sequences that grow together, one token a step, and that join and leave between steps (continuous batching).

A prompt goes through the model once, however many of its completions are wanted at a time: they all begin from copies
of its cache. A sequence that has ended gives its row to the next one that waits, and costs nothing more.

    add ──► waiting, in order ──► prefilled together ──► up to `rows` growing ──► step() tells each one's token

Shapes: B sequences that grow together, V vocabulary.
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

from starcoder.cache import KVCache
from starcoder.decoding import Decoding, Static, power_of_two, resolved
from starcoder.errors import UserError
from starcoder.model import StarCoder
from starcoder.prefill import Prefill, prefill
from starcoder.sampling import Ends, Finish, Logprob, Sampling, choose_each, logprobs, never
from starcoder.tokenizer import EOD

_SLOTS = 64
_PREFILLED_TOGETHER = 2**14
_PREFILLED_BESIDE = 2**11  # while others grow, who wait meanwhile


class Growth(NamedTuple):
    """What one step did to one sequence.

    Args:
        handle: the one that `Batch.add` gave.
        token: the id that it grew by; none where it ended at `<|endoftext|>` or had no room at all.
        finish: why it ended and left the batch; none while it goes on. It failed if the model's logits were not finite.
        logprob: how likely the token was, or `<|endoftext|>` at that end, where `logprobs` were asked for.
        prompt: with a sequence's first growth, how likely each of the prompt's tokens but the first was, where
            `prompt_logprobs` were asked for.
    """

    handle: int
    token: int | None
    finish: Finish | Literal["failed"] | None
    logprob: Logprob | None = None
    prompt: list[Logprob] | None = None


_JOINED = Prefill([])
"""What a sequence that grows has as its prompt, so that the prompt goes when nobody waits for it."""


@dataclass
class _Row:
    """A sequence that grows."""

    handle: int
    prompt: Prefill
    room: int
    sampling: Sampling
    rng: np.random.Generator
    ends: Ends
    likeliest: int | None
    ids: list[int] = field(default_factory=list)
    told: list[Logprob] | None = None

    def grow(self, token: int, logprob: Logprob | None) -> Growth:
        """Append `token` unless it is `<|endoftext|>`, or none at all."""
        if token == EOD:
            return self._told(None, "stop", logprob)
        if token < 0:
            return self._told(None, "failed", None)
        self.ids.append(token)
        full: Finish | None = "length" if len(self.ids) >= self.room else None
        return self._told(token, "stop" if self.ends(self.ids) else full, logprob)

    def full(self) -> Growth:
        """No growth, as there is no room."""
        sound = self.prompt.state is None or bool(self.prompt.state[1].isfinite().all())
        return self._told(None, "length" if sound else "failed", None)

    def _told(self, token: int | None, finish: Finish | Literal["failed"] | None, logprob: Logprob | None) -> Growth:
        told, self.told = self.told, None
        return Growth(self.handle, token, finish, logprob, told)


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
        self._prompts: WeakValueDictionary[tuple[int | None, ...], Prefill] = WeakValueDictionary()
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
            UserError: when the prompt does not fit the model's context, or holds an id that the model does not know; or
                when logprobs cannot be told.
        """
        check_prompt(ids, self.model)
        if min(logprobs or 0, prompt_logprobs or 0) < 0:
            raise UserError(f"logprobs are {logprobs}, of the prompt {prompt_logprobs}: below 0")
        if prompt_logprobs is not None and isinstance(self.model, FSDPModule):
            raise UserError("a sharded model tells no logprobs of prompts")
        start = list(ids) or [EOD]
        prompt = self._prompts.setdefault((prompt_logprobs, *start), Prefill(start, prompt_logprobs))
        room = min(sampling.max_new_tokens, self.model.config.context_length - len(start))
        row = _Row(next(self._handles), prompt, room, sampling, np.random.default_rng(list(key)), ends, logprobs)
        self._waiting.append(row)
        return row.handle

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
        parts = [self._decode()] if self._growing else []
        full, joining = self._admit()
        if joining:
            prefill(self.model, [row.prompt for row in joining], self.vocab_size)
            for row in joining:
                row.told = row.prompt.logprobs
            full += [row.full() for row in joining if not row.room]
            parts += self._join([row for row in joining if row.room])
        if not parts:
            return full
        logits = torch.cat(parts) if len(parts) > 1 else parts[0]  # (B, V)
        tokens = choose_each(
            logits[:, : self.vocab_size],
            [row.sampling for row in self._growing],
            [row.rng for row in self._growing],
        )
        chosen = tokens.tolist()
        for place in (place for place, token in enumerate(chosen) if token < 0):
            self._cache.clear(place)
        told = self._logprobs(logits, tokens)
        return full + [row.grow(chosen[place], told.get(place)) for place, row in enumerate(self._growing)]

    def _logprobs(self, logits: Tensor, tokens: Tensor) -> dict[int, Logprob]:
        """How likely the tokens (B,) were, given logits (B, V), for the places of those that ask."""
        asking = {place: row.likeliest for place, row in enumerate(self._growing) if row.likeliest is not None}
        if not asking:
            return {}
        rows = self._tensor([*asking])
        told = logprobs(logits[rows], tokens[rows].clamp(min=0), max(asking.values()), self.vocab_size)
        return {
            place: one._replace(likeliest=one.likeliest[:likeliest])
            for (place, likeliest), one in zip(asking.items(), told, strict=True)
        }

    def _decode(self) -> Tensor:
        """Logits (B, V) of what follows each sequence's last token."""
        self._reserve(len(self._growing), max(self._cache.lengths) + 1)
        tokens = [row.ids[-1] for row in self._growing]
        if self._static:
            return self._static.next_logits(tokens, self._cache)
        return self.model.next_logits(self._tensor(tokens).unsqueeze(1), self._cache)

    def _admit(self) -> tuple[list[Growth], list[_Row]]:
        """Take from the queue what has nothing to do, and rows to prefill together; the others' turn is a later step's.

        Those who grow wait for what joins, so that it is little at a time.
        """
        full: list[Growth] = []
        joining: list[_Row] = []
        lengths: dict[int, int] = {}  # of the prompts that are to go through the model
        most = _PREFILLED_BESIDE if self._growing else _PREFILLED_TOGETHER
        free = self.most - len(self._growing)
        while self._waiting:
            row = self._waiting[0]
            if row.room or row.prompt.likeliest is not None:
                longer = lengths if row.prompt.state else lengths | {id(row.prompt): len(row.prompt.ids)}
                too_long = len(longer) > len(lengths) > 0 and len(longer) * max(longer.values()) > most
                if free < bool(row.room) or too_long:
                    break
                lengths = longer
                free -= bool(row.room)
                joining.append(row)
            else:
                full.append(row.full())
            self._waiting.popleft()
        return full, joining

    def _join(self, rows: list[_Row]) -> list[Tensor]:
        """Let rows with prefilled prompts join; logits (B, V) of their first tokens, if there are any rows."""
        if not rows:
            return []
        states = [row.prompt.state for row in rows if row.prompt.state]
        self._reserve(len(self._growing) + len(rows), max(len(row.prompt.ids) for row in rows))
        for row, (kv, _) in zip(rows, states, strict=True):
            self._cache.join(kv)
            row.prompt = _JOINED
        self._growing += rows
        return [torch.stack([logits for _, logits in states])]

    def _reserve(self, rows: int, slots: int) -> None:
        self._cache.reserve(*self._room(rows, slots))

    def _room(self, rows: int, slots: int) -> tuple[int, int]:
        """Room in powers of two, so that copies are rare, up to the most that can ever be needed."""
        return (
            min(self.most, power_of_two(rows)),
            min(self.model.config.context_length, max(_SLOTS, power_of_two(slots))),
        )

    def _leave(self, handles: set[int]) -> None:
        with self._mode():
            for place in reversed(range(len(self._growing) if handles else 0)):
                if self._growing[place].handle in handles:
                    self._cache.leave(place)
                    self._growing[place] = self._growing[-1]
                    self._growing.pop()
            if handles and not self._static:  # whose graphs hold its address
                self._shrink()

    def _shrink(self) -> None:
        """Hold nothing while nothing grows, and less when a quarter is enough."""
        if not self._growing:
            self._cache = self._new_cache()
            return
        rows, slots = self._room(len(self._growing), max(self._cache.lengths) + 1)
        if 4 * rows * slots <= self._cache.shape[1] * self._cache.shape[2]:
            self._cache.resize(rows, slots)

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
