"""A request from the interface's words to the model's, and its tokens back to text."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from starcoder.generation import ends_with
from starcoder.sampling import Finish, Sampling
from starcoder.serving.engine import Engine, Event, Ticket, Wish
from starcoder.serving.logprobs import Block, Teller
from starcoder.serving.prompts import Limits, Prompt, longest_completion, read_prompts
from starcoder.serving.protocol import CompletionRequest
from starcoder.serving.text import TextStream
from starcoder.tokenizer import EOD, Tokenizer


@dataclass(frozen=True)
class Piece:
    """Text that a completion has grown by, why it ended if it did, and what is told of the tokens if that was asked."""

    choice: int
    text: str
    finish: Finish | None
    logprobs: Block | None = None


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
        self.prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        self.completion_tokens = 0
        self._prompts = [prompt for prompt in prompts for _ in range(request.n or 1)]
        self.wishes = _wishes(request, self._prompts, tokenizer, limits)
        self._texts = [TextStream(tokenizer, request.stop) for _ in self.wishes]
        self._tellers = [Teller(tokenizer) for _ in self.wishes] if request.logprobs is not None else []
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

        wish = self.wishes[0]
        if wish.sampling.max_new_tokens or wish.prompt_logprobs is not None:
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
        for choice, prompt in enumerate(self._prompts if self.request.echo else []):
            yield Piece(choice, prompt.text, None)
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
        return Piece(event.choice, text, event.finish, self._told(event) if self._tellers else None)

    def _told(self, event: Event) -> Block | None:
        """What is told of the event's token, and with the first event of an echo of the prompt's."""
        told = []
        if event.prompt is not None and self._prompts[event.choice].text:  # the token of an empty one is not its own
            told = [(self._prompts[event.choice].ids[0], None), *((one.token, one) for one in event.prompt)]
        if event.token is not None or event.finish == "stop":
            told.append((EOD if event.token is None else event.token, event.logprob))
        return self._tellers[event.choice].block(told) if told else None


def _wishes(request: CompletionRequest, prompts: Sequence[Prompt], tokenizer: Tokenizer, limits: Limits) -> list[Wish]:
    """The completions of a request: those of a prompt stand together, and each has random numbers of its own."""
    seed = secrets.randbits(63) if request.seed is None else request.seed % 2**64
    temperature = 1.0 if request.temperature is None else request.temperature
    top_p = 1.0 if request.top_p is None else request.top_p
    sampling = Sampling(longest_completion(request, limits), temperature, top_p)
    ends = ends_with(tokenizer.decode, request.stop)
    of_prompt = request.logprobs if request.echo else None
    return [
        Wish(prompt.ids, sampling, (seed, place), ends, request.logprobs, of_prompt)
        for place, prompt in enumerate(prompts)
    ]
