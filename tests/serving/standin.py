"""The stand-in for continuous batching: every row alone, without a cache."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from starcoder.generation import Ends, Finish, Sampling, choose
from starcoder.model import StarCoder
from starcoder.tokenizer import EOD


class Batch:
    def __init__(self, model: StarCoder, rows: int = 32, vocab_size: int | None = None) -> None:
        self.model, self.most, self.vocab_size = model.eval(), rows, vocab_size
        self.rows: dict[int, Any] = {}
        self.handles = iter(range(10**9))

    def add(self, ids: Sequence[int], sampling: Sampling, key: Sequence[int] = (0,), ends: Ends = lambda ids: False) -> int:
        handle = next(self.handles)
        room = min(sampling.max_new_tokens, self.model.config.context_length - len(ids))
        self.rows[handle] = (list(ids), sampling, np.random.default_rng(list(key)), ends, [], room)
        return handle

    def remove(self, handle: int) -> None:
        self.rows.pop(handle, None)

    @torch.inference_mode()
    def step(self) -> list[tuple[int, int | None, Finish | None]]:
        return [self._grow(handle) for handle in list(self.rows)[: self.most]]

    def _grow(self, handle: int) -> tuple[int, int | None, Finish | None]:
        prompt, sampling, rng, ends, ids, room = self.rows[handle]
        logits = self.model(torch.tensor([prompt + ids]))[:, -1, : self.vocab_size]
        token = int(choose(logits, sampling, [rng]))
        finish: Finish | None = "stop" if token == EOD else None
        if token != EOD:
            ids.append(token)
            finish = "stop" if ends(ids) else "length" if len(ids) >= room else None
        if finish:
            del self.rows[handle]
        return handle, None if token == EOD else token, finish
