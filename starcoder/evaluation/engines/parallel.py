"""Work side by side in threads that do not keep the process from ending, which an executor's do."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import Generic, TypeVar

Part = TypeVar("Part")
Found = TypeVar("Found")


class _Crew(Generic[Part, Found]):
    """Threads that work, each on one part after the other.

    Args:
        work: what is done for a part.
        size: how many threads there are.
        closed: once it is set, as an error does, parts are passed over.

    Attributes:
        todo: parts; None sends one thread home.
        found: what was found, errors, and None for each part that is done.
    """

    def __init__(self, work: Callable[[Part], Iterator[Found]], size: int, closed: Event) -> None:
        self.work, self.size, self.closed = work, size, closed
        self.todo: SimpleQueue[Part | None] = SimpleQueue()
        self.found: SimpleQueue[Found | Exception | None] = SimpleQueue()
        for _ in range(size):
            Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while (part := self.todo.get()) is not None:
            try:
                for found in () if self.closed.is_set() else self.work(part):
                    self.found.put(found)
            except Exception as error:
                self.closed.set()
                self.found.put(error)
            self.found.put(None)

    def dismiss(self) -> None:
        """Have the threads end with the part that they are at."""
        self.closed.set()
        for _ in range(self.size):
            self.todo.put(None)

    def rest(self, running: int, grace: float) -> Iterator[Found]:
        """Yield what `running` parts still bring within `grace` seconds."""
        end = time.monotonic() + grace
        while running:
            try:
                item = self.found.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return
            if item is None:
                running -= 1
            elif not isinstance(item, Exception):
                yield item


def side_by_side(
    work: Callable[[Part], Iterator[Found]], parts: Iterator[Part], threads: int, closed: Event, grace: float
) -> Iterator[Found]:
    """Yield what `work` yields for all parts, in any order.

    Args:
        work: what is done for a part.
        parts: what is to be done; they are taken not long before they are begun.
        threads: how many parts are worked on at once.
        closed: set when no part is to be begun any more: after an error, or when nobody listens.
        grace: seconds after an error within which what is under way may still bring something.

    Raises:
        Exception: the first that `work` raises, when what comes within `grace` has been yielded.
    """
    crew = _Crew(work, threads, closed)
    running = 0
    try:
        while True:
            for part in islice(parts, 2 * threads - running):
                crew.todo.put(part)
                running += 1
            if not running:
                return
            item = crew.found.get()
            if isinstance(item, Exception):
                yield from crew.rest(running, grace)
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        crew.dismiss()
