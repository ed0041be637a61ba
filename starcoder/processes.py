"""Worker processes: what every one of them does first, and a stream of tasks that they share."""

import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import Any, TypeVar

from starcoder.errors import UserError

Tool = TypeVar("Tool")
Task = TypeVar("Task")
Result = TypeVar("Result")
_tools: list[Any] = []  # the one of a worker process


def start_worker() -> None:
    """Leave Ctrl-C to the parent, and end with it: a parent that was killed cannot tell its workers to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def share_out(
    work: Callable[[Tool, Task], Result], tasks: Iterable[Task], tool: Tool, workers: int
) -> Iterator[Result]:
    """Yield the results of `work` on each of the tasks, in their order; few of them wait at a time.

    Args:
        work: A function that can be pickled.
        tasks: What it is called with, beside the tool.
        tool: Can be pickled; each process gets it once.
        workers: Processes; one is this one.

    Raises:
        UserError: A process died.
    """
    if workers == 1:
        for task in tasks:
            yield work(tool, task)
        return
    context = get_context("forkserver" if sys.platform == "linux" else "spawn")
    with ProcessPoolExecutor(workers, context, _start, (tool,)) as pool:
        waiting = deque[Future[Result]]()
        try:
            for task in tasks:
                waiting.append(pool.submit(_run, work, task))
                if len(waiting) > 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a process died, perhaps for want of memory; run again with fewer workers") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(tool: Any) -> None:
    start_worker()
    _tools[:] = [tool]


def _run(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_tools[0], task)


def _exit_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
