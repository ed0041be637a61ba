"""Prompts on their way through the model, before their completions grow.

Shapes: P prompts that go through it together, L layers, T tokens of the longest, C channels, D head size, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from starcoder.cache import KVCache
from starcoder.linear import linear
from starcoder.model import StarCoder
from starcoder.sampling import Logprob, logprobs

_LOGITS_AT_ONCE = 2**24


@dataclass(eq=False)
class Prefill:
    """A prompt, and what is known of it once it is prefilled.

    Args:
        ids: one at least.
        likeliest: how many of the likeliest to tell of at each of its tokens; none tells nothing.
        state: keys and values (L, T, 2·D), and the logits (V,) of what follows.
        logprobs: of all its tokens but the first, where they were asked for.
    """

    ids: list[int]
    likeliest: int | None = None
    state: tuple[Tensor, Tensor] | None = None
    logprobs: list[Logprob] | None = None


def prefill(model: StarCoder, prompts: Iterable[Prefill], vocab_size: int | None) -> None:
    """Have each prompt go through the model once, if it has not yet; they need not be of a length.

    Args:
        model: not sharded where logprobs are asked for.
        prompts: the same one may be there several times.
        vocab_size: the likeliest ids that are told are below.
    """
    new = {id(prompt): prompt for prompt in prompts if prompt.state is None}.values()
    for silent in (True, False):
        if some := [prompt for prompt in new if (prompt.likeliest is None) is silent]:
            _pass(model, some, vocab_size)


def _pass(model: StarCoder, prompts: Sequence[Prefill], vocab_size: int | None) -> None:
    """Pass prompts through the model, padded on the right, of which all ask for logprobs or none."""
    device = model.transformer.wte.weight.device
    lengths = [len(prompt.ids) for prompt in prompts]
    padded = pad_sequence([torch.tensor(prompt.ids) for prompt in prompts], batch_first=True)
    tokens, ends = padded.to(device), torch.tensor(lengths).to(device, non_blocking=True)  # (P, T), (P,)
    cache = KVCache(model.config, len(prompts), tokens.size(1), device)
    if prompts[0].likeliest is None:
        logits = model.next_logits(tokens, cache, ends)  # (P, V)
    else:
        x = model.hidden(tokens, cache)  # (P, T, C)
        logits = model.transformer.wte.logits(x[torch.arange(len(x), device=device), ends - 1])
        table = model.transformer.wte.floats()  # (V, C)
        for prompt, row in zip(prompts, x, strict=True):
            prompt.logprobs = list(_logprobs(table, prompt, row, vocab_size))
    cache.shorten(lengths)
    for place, prompt in enumerate(prompts):
        prompt.state = cache.sequence(place), logits[place]


def _logprobs(table: Tensor, prompt: Prefill, x: Tensor, vocab_size: int | None) -> Iterator[Logprob]:
    """How likely a prompt's tokens were, given table (V, C) and hidden states (T, C); as in `nats`, in fp32."""
    together = max(1, _LOGITS_AT_ONCE // len(table))
    for start in range(0, len(prompt.ids) - 1, together):
        ids = torch.tensor(prompt.ids[1:][start : start + together], device=x.device)
        logits = linear(x[start : start + len(ids)].float(), table)
        yield from logprobs(logits, ids, prompt.likeliest or 0, vocab_size)
