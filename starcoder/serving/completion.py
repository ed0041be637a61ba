"""A request from the interface's words to the model's, and its tokens back to text."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from starcoder.generation import ends_with
from starcoder.sampling import Finish, Sampling
from starcoder.serving.engine import Engine, Event, Ticket, Wish
from starcoder.serving.prompts import Limits, read_prompts
from starcoder.serving.protocol import ApiError, CompletionRequest
from starcoder.serving.text import TextStream
from starcoder.tokenizer import EOD, Tokenizer

MAX_TOKENS = 16
"""Longest completion when a request names none: OpenAI's default."""


@dataclass(frozen=True)
class Piece:
    """Text that a completion has grown by, and why it ended if it did."""

    choice: int
    text: str
    finish: Finish | None


class Completion:
    """A request: read, then `start`ed, then a stream of `pieces`, unless it is `cancel`led.

    Attributes:
        request: what was asked.
        prompt_tokens: tokens of its prompts, each counted once.
        completion_tokens: tokens that were written so far.
    """

    def __init__(self, request: CompletionRequest, tokenizer: Tokenizer, limits: Limits) -> None:
        """Read `request`; this may take a while, as texts are encoded.

        Raises:
            ApiError: when the request asks for what it cannot have.
        """
        prompts = read_prompts(request, tokenizer, limits)
        self.request = request
        self.prompt_tokens = sum(map(len, prompts))
        self.completion_tokens = 0
        self.wishes = _wishes(request, prompts, tokenizer, limits)
        self._texts = [TextStream(tokenizer, request.stop) for _ in self.wishes]
        self._echo = _spelled(request, tokenizer) if request.echo else []
        self._arrived: asyncio.Queue[list[Event] | Exception] = asyncio.Queue()
        self._ticket: Ticket | None = None

    def start(self, engine: Engine) -> None:
        """Have the model write; from within the event loop that `pieces` runs in.

        Raises:
            FullError, ClosingError: as from `Engine.submit`.
        """
        self._engine, loop = engine, asyncio.get_running_loop()

        def deliver(events: list[Event] | Exception) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and with it whoever waited
                loop.call_soon_threadsafe(self._arrived.put_nowait, events)

        if self.wishes[0].sampling.max_new_tokens:
            self._ticket = engine.submit(self.wishes, deliver)
        else:
            self._arrived.put_nowait([Event(choice, None, "length") for choice in range(len(self.wishes))])

    def cancel(self) -> None:
        """Whatever is not written yet never will be."""
        if self._ticket:
            self._engine.cancel(self._ticket)

    async def pieces(self) -> AsyncIterator[Piece]:
        """Yield the pieces of all completions as they come.

        Raises:
            ClosingError, ModelError, UserError: when the model writes no more of them.
        """
        for choice, text in enumerate(self._echo):
            yield Piece(choice, text, None)
        left = len(self.wishes)
        while left:
            events = await self._arrived.get()
            if isinstance(events, Exception):
                raise events
            for event in events:
                left -= event.finish is not None
                yield self._piece(event)

    def _piece(self, event: Event) -> Piece:
        stream, text = self._texts[event.choice], ""
        if event.token not in (None, EOD):
            self.completion_tokens += 1
            text += stream.push(event.token)
        if event.finish:
            text += stream.finish()
        return Piece(event.choice, text, event.finish)


def _spelled(request: CompletionRequest, tokenizer: Tokenizer) -> list[str]:
    """The prompt of each completion as text."""
    texts = [prompt if isinstance(prompt, str) else tokenizer.decode(prompt) for prompt in request.prompt]
    return [text for text in texts for _ in range(request.n or 1)]


def _wishes(
    request: CompletionRequest, prompts: Sequence[Sequence[int]], tokenizer: Tokenizer, limits: Limits
) -> list[Wish]:
    """The completions of a request: those of a prompt stand together, and each has random numbers of its own."""
    longest = min(MAX_TOKENS, limits.max_tokens) if request.max_tokens is None else request.max_tokens
    if longest > limits.max_tokens:
        message = f"max_tokens is {longest}, this server writes at most {limits.max_tokens}"
        raise ApiError(400, message, "max_tokens")
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
    temperature = 1.0 if request.temperature is None else request.temperature
    sampling = Sampling(longest, temperature, 1.0 if request.top_p is None else request.top_p)
    ends = ends_with(tokenizer.decode, request.stop)
    each = [ids for ids in prompts for _ in range(request.n or 1)]
    return [Wish(ids, sampling, (seed, place), ends) for place, ids in enumerate(each)]
