"""The thread in which the model writes, for all requests together: continuous batching.

    event loop                                 model's thread
    submit ──► inbox ────────────────────────► Batch.add: as soon as a row is free,
                                               Batch.step, again and again: a token for every row
    deliver ◄── what this step gave
    cancel ──────────────────────────────────► Batch.remove: when the step under way is done

The event loop never waits for the model, and what a completion gets does not depend on its neighbours, up to the
rounding of sums: in bfloat16, that is enough to change some of the tokens that are drawn.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Literal

from starcoder.batch import Batch
from starcoder.sampling import NOT_FINITE, Ends, Finish, Logprob, Sampling

_FAILURES = 3
_log = logging.getLogger("starcoder.serving")


class FullError(Exception):
    """No room for a request now; it may be made again later."""


class ClosingError(Exception):
    """The server takes no more requests, or ended before this one did."""


class ModelError(Exception):
    """The model failed while it wrote."""


@dataclass(frozen=True)
class Wish:
    """One completion that is wanted.

    Args:
        ids: its prompt, one token at least.
        sampling: how its tokens are chosen, and how many at most; `stop`, `seed` and `batch_size` have no meaning here.
        key: what its random numbers are a function of.
        ends: whether it is at its end when it has just grown.
        logprobs: tell how likely each token was, and this many of the likeliest.
        prompt_logprobs: the same for the prompt's tokens.
    """

    ids: Sequence[int]
    sampling: Sampling
    key: Sequence[int]
    ends: Ends
    logprobs: int | None = None
    prompt_logprobs: int | None = None


@dataclass(frozen=True)
class Event:
    """A step of one completion.

    Args:
        choice: its place among the request's.
        token: the one it got, if it got one.
        finish: why it ended, if it did.
        logprob: how likely the token was, where that was asked for.
        prompt: with the first event, how likely each of the prompt's tokens but the first was, where asked for.
    """

    choice: int
    token: int | None
    finish: Finish | None
    logprob: Logprob | None = None
    prompt: list[Logprob] | None = None


Deliver = Callable[[list[Event] | Exception], None]
"""Takes what happened to a request in one step, on the model's thread; an exception is the last."""


@dataclass(eq=False)
class Ticket:
    """A request under way; once it is `over`, nothing more is delivered."""

    deliver: Deliver
    over: bool = False


@dataclass(eq=False)
class _Row:
    ticket: Ticket
    choice: int
    wish: Wish


@dataclass(eq=False)
class Engine:
    """Takes requests and delivers their tokens.

    Args:
        new_batch: makes an empty batch of `rows` rows; another one is made when the model has failed.
        rows: completions that grow together.
        queue: completions that may wait beyond these.
    """

    new_batch: Callable[[], Batch]
    rows: int
    queue: int
    _inbox: list[_Row] = field(default_factory=list)
    _rows: dict[int, _Row] = field(default_factory=dict)
    _closing: bool = False
    _stopped: bool = False
    _failures: int = 0

    def __post_init__(self) -> None:
        self._changed = Condition()
        self._thread = Thread(target=self._work, name="starcoder-model", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    @property
    def load(self) -> tuple[int, int]:
        """Completions that grow, and that wait; those that were given up are neither."""
        total = sum(not row.ticket.over for row in [*self._rows.values(), *self._inbox])
        return min(total, self.rows), max(total - self.rows, 0)

    @property
    def state(self) -> Literal["ok", "failing", "closing", "stopped"]:
        """Whether requests are taken; while it is failing, as after several failures in a row, with little hope."""
        if self._stopped or not self._thread.is_alive():
            return "stopped"
        if self._closing:
            return "closing"
        return "failing" if self._failures >= _FAILURES else "ok"

    def submit(self, wishes: Sequence[Wish], deliver: Deliver) -> Ticket:
        """Take a request.

        Raises:
            FullError: when there is no room for all of `wishes`.
            ClosingError: after `close` or `stop`.
        """
        with self._changed:
            if self._closing or self._stopped:
                raise ClosingError
            if sum(self.load) + len(wishes) > self.rows + self.queue:
                raise FullError
            ticket = Ticket(deliver)
            self._inbox += [_Row(ticket, choice, wish) for choice, wish in enumerate(wishes)]
            self._changed.notify()
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Forget a request: nothing more is delivered, its rows are free once the step under way is done."""
        with self._changed:
            ticket.over = True
            self._inbox = [row for row in self._inbox if row.ticket is not ticket]

    def close(self) -> None:
        """Take no more requests; those that are here go on."""
        self._closing = True

    def stop(self) -> None:
        """End all that is under way, with `ClosingError`; `join` waits until the model rests."""
        with self._changed:
            self._closing = self._stopped = True
            self._changed.notify()
        self._end(ClosingError())

    def join(self, timeout: float | None = None) -> None:
        """Wait until the thread has ended, at most `timeout` seconds."""
        self._thread.join(timeout)

    def _work(self) -> None:
        try:
            batch = self.new_batch()
            while self._wait():
                try:
                    self._exchange(batch)
                    self._step(batch)
                except Exception:  # whatever the model raised: what it held has failed, the server goes on
                    _log.exception("the model failed")
                    self._failures += 1
                    self._end(ModelError())
                    self._rows = {}
                    batch = self.new_batch()
        finally:
            self.close()
            self._end(ClosingError())

    def _wait(self) -> bool:
        """Sleep until there is something to do; say whether to go on."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._inbox or self._rows)
            return not self._stopped

    def _exchange(self, batch: Batch) -> None:
        """Let out what was cancelled, and in what has come."""
        for handle in [handle for handle, row in self._rows.items() if row.ticket.over]:
            batch.remove(handle)
            del self._rows[handle]
        with self._changed:
            while self._inbox:
                wish = self._inbox[0].wish
                handle = batch.add(wish.ids, wish.sampling, wish.key, wish.ends, wish.logprobs, wish.prompt_logprobs)
                self._rows[handle] = self._inbox.pop(0)

    def _step(self, batch: Batch) -> None:
        if not self._rows:
            return
        happened: dict[Ticket, list[Event]] = {}
        failed: set[Ticket] = set()
        for handle, token, finish, logprob, prompt in batch.step():
            row = self._rows.pop(handle) if finish else self._rows[handle]
            if finish == "failed":
                failed.add(row.ticket)
            else:
                happened.setdefault(row.ticket, []).append(Event(row.choice, token, finish, logprob, prompt))
        self._failures = 0 if happened else self._failures + bool(failed)
        for ticket, events in happened.items():
            if not ticket.over:
                ticket.deliver(events)
        if failed:
            _log.error(NOT_FINITE)
            self._finish(failed, ModelError())

    def _end(self, error: Exception) -> None:
        """End all requests."""
        with self._changed:
            rows, self._inbox = [*self._rows.values(), *self._inbox], []
        self._finish([row.ticket for row in rows], error)

    def _finish(self, tickets: Iterable[Ticket], error: Exception) -> None:
        """End requests that are not over."""
        with self._changed:
            ended = [ticket for ticket in dict.fromkeys(tickets) if not ticket.over]
            for ticket in ended:
                ticket.over = True
            self._inbox = [row for row in self._inbox if not row.ticket.over]
        for ticket in ended:
            ticket.deliver(error)
