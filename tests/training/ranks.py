"""Ranks that are forked from one process, as torchrun would start them: what it has imported, they have."""

import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable


def fork(ranks: int, work: Callable[[int], None]) -> list[int]:
    """Start so many processes, each of which does `work` with its rank; their ids."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": str(ranks), "LOCAL_WORLD_SIZE": str(ranks), "GROUP_RANK": "0"}
    common |= {"TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            os.environ |= common | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            _leave(work, rank)
        children.append(child)
    return children


def _leave(work: Callable[[int], None], rank: int) -> None:
    code = 1
    try:
        work(rank)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def finish(children: list[int]) -> None:
    """Wait for the ranks; when one fails, the others, which may wait for it, are ended."""
    left = set(children)
    while left:
        child, status = os.wait()
        left.discard(child)
        if status:
            for other in left:
                os.kill(other, signal.SIGKILL)
            sys.exit(f"a rank failed with {os.waitstatus_to_exitcode(status)}")
