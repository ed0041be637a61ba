"""What the engines that hold the model themselves share: prompts as token ids that fit its window, and likelihoods.

Shapes: B windows, T tokens of a window, V vocabulary.
"""

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from starcoder.errors import UserError, one_line
from starcoder.evaluation.engines.base import Request
from starcoder.generation import batched, frame

Dtype = Literal["float32", "bfloat16", "float16", "int8"]
Window = tuple[list[int], int]
"""Token ids, and how many of them, at the end, are to be predicted."""

_TOKENS_AT_ONCE = 16_384  # of windows that go through the model together: their logits must fit in memory
_DIGEST_NUMBERS = 1024


class LocalEngine(ABC):
    """A model and a tokenizer in this process.

    Attributes:
        name: what the report calls the model.
        settings: what reproduces its numbers.
        context_length: tokens of its window; None when unknown.
        batch_size: completions or windows that go through the model together.
        start: ids that every sequence begins with, in which a prompt is never cut.
        empty: ids that stand for an empty prompt or context.
        sentinels: ids before prefix, suffix and gap; None when the model does not infill.
    """

    name: str
    settings: dict[str, Any]
    context_length: int | None
    batch_size: int
    start: Sequence[int] = ()
    empty: Sequence[int]
    sentinels: tuple[int, int, int] | None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Ids of plain text."""

    @abstractmethod
    def encode_prompt(self, text: str) -> list[int]:
        """Ids of text in which the spelling of a sentinel is the control token."""

    @abstractmethod
    def token_nats(self, tokens: Tensor) -> Tensor:
        """Cross-entropies (B, T) in nats of all but the first of tokens (B, T+1), in fp32."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""

    def check(self, requests: Sequence[Request], max_new_tokens: int, likelihood: bool) -> None:
        """Refuse what cannot be done, and count the prompts that are cut; see `Engine.check`.

        Of likelihoods, the prompts are the contexts and the references the texts whose nats will be asked for.
        """
        truncated = 0
        for request in requests:
            if request.suffix is not None and self.sentinels is None:
                raise UserError(f"{request.problem} wants infilling, and {self.name} has no tokens for it")
            fixed = len(self.start) + (1 if request.suffix is None else 3)
            if self.context_length is not None and max_new_tokens + fixed > self.context_length:
                raise UserError(
                    f"max_new_tokens is {max_new_tokens}, which leaves no room for the prompt of {request.problem} in "
                    f"{self.name}'s window of {self.context_length} tokens: choose fewer"
                )
            try:
                truncated += self._cut(request, max_new_tokens, likelihood)
            except UserError as error:
                raise UserError(f"{request.problem}: {error}") from None
        self.settings["truncated_prompts"] = truncated

    def prompt(self, request: Request, max_new_tokens: int) -> tuple[list[int], bool]:
        """Ids of a request's prompt, and whether they had to be cut so that `max_new_tokens` fit beside them."""
        room = None if self.context_length is None else self.context_length - max_new_tokens - len(self.start)
        if request.suffix is None:
            ids = self.encode_prompt(request.prompt)
            kept = _last(ids, room)
            return [*self.start, *kept] or list(self.empty), len(kept) < len(ids)
        assert self.sentinels is not None, "refused by `check`"
        before, after, gap = self.sentinels
        prefix, suffix = self.encode(request.prompt), self.encode(request.suffix)
        left, right = frame(prefix, suffix, None if room is None else room - 3)
        cut = len(left) + len(right) < len(prefix) + len(suffix)
        return [*self.start, before, *left, after, *right, gap], cut

    def _cut(self, request: Request, max_new_tokens: int, likelihood: bool) -> bool:
        """Whether a request's prompt, or a text's context, does not fit the window."""
        if likelihood:
            return self._before(request.prompt, len(self.encode(request.reference)), self._width)[1]
        return self.prompt(request, max_new_tokens)[1]

    def nats(self, pairs: Sequence[tuple[str, str]]) -> Iterator[list[float]]:
        """Yield the cross-entropies of each text's tokens after its context; see `Engine.nats`."""
        width = self._width
        for some in batched(pairs, self.batch_size):
            windows = [(place, window) for place, pair in enumerate(some) for window in self._windows(*pair, width)]
            found: list[list[float]] = [[] for _ in some]
            for (place, _), nats in zip(windows, self._window_nats([window for _, window in windows]), strict=True):
                found[place] += nats
            yield from found

    @property
    def _width(self) -> int:
        return self.context_length or 2048

    def _before(self, context: str, n_predicted: int, width: int) -> tuple[list[int], bool]:
        """Ids before a text of that many tokens, and whether a part of its context had to be left out."""
        ids = self.encode_prompt(context)
        start = list(self.start) if ids or self.start else list(self.empty)
        kept = _last(ids, max(1 - len(start), width + 1 - n_predicted - len(start)))
        return [*start, *kept], len(kept) < len(ids)

    def _windows(self, context: str, text: str, width: int) -> list[Window]:
        """Windows of at most `width` + 1 tokens over a text and its context, overlapping by half."""
        predicted = self.encode(text)
        ids = [*self._before(context, len(predicted), width)[0], *predicted]
        windows: list[Window] = []
        first, done = 0, len(ids) - len(predicted)
        while done < len(ids):
            end = min(first + width + 1, len(ids))
            windows.append((ids[first:end], end - done))
            first, done = first + max(1, width // 2), end
        return windows

    @torch.inference_mode()
    def _window_nats(self, windows: list[Window]) -> list[list[float]]:
        """Cross-entropies of the predicted tokens of each window."""
        found: dict[int, list[float]] = {}
        order = sorted(range(len(windows)), key=lambda place: len(windows[place][0]), reverse=True)
        while order:
            together = max(1, min(self.batch_size, _TOKENS_AT_ONCE // len(windows[order[0]][0])))
            batch, order = order[:together], order[together:]
            tokens = pad_sequence([torch.tensor(windows[place][0]) for place in batch], batch_first=True)  # (B, T+1)
            for place, row in zip(batch, self.token_nats(tokens.to(self.device)).tolist(), strict=True):
                ids, predicted = windows[place]
                found[place] = row[len(ids) - 1 - predicted : len(ids) - 1]
        return [found[place] for place in range(len(windows))]


def _last(ids: list[int], room: int | None) -> list[int]:
    """The last `room` of `ids`."""
    return ids if room is None else ids[max(0, len(ids) - room) :]


def place(device: str | None, dtype: Dtype | None) -> tuple[torch.device, torch.dtype]:
    """Where the model goes: CUDA where it is there, in bfloat16, otherwise the CPU, in float32.

    Raises:
        UserError: when there is no such device.
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"  # each process of torchrun takes a GPU of its own
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"there is no device {device} here: {one_line(error)}") from None
    precise: torch.dtype = getattr(torch, dtype or ("bfloat16" if chosen.type == "cuda" else "float32"))
    return chosen, precise


def describe(device: torch.device, dtype: torch.dtype) -> dict[str, str]:
    """Settings that every local engine reports."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"torch": torch.__version__, "device": name, "dtype": str(dtype).removeprefix("torch.")}


def weights_digest(model: nn.Module) -> str:
    """A hash of a thousand numbers of each parameter, spread evenly, as bfloat16 has them.

    It is the same whether the model is loaded in float32 or in bfloat16, and cheap for one that fills a GPU.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        numbers = parameter.detach().flatten()[:: max(1, parameter.numel() // _DIGEST_NUMBERS)]
        digest.update(f"{name} {tuple(parameter.shape)} ".encode())
        digest.update(numbers.to(torch.bfloat16).view(torch.int16).cpu().numpy().tobytes())
    return digest.hexdigest()
