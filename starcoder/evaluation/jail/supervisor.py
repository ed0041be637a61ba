"""Runs one program at a time, shut in and watched, and says what became of it: a worker of the sandbox.

A process of its own, single-threaded and of standard library only, so that it may fork whatever threads the main
process has. It reads requests from standard input and answers on standard output, both JSON with a length in front.
When standard input is closed, it ends everything that it has started and itself.
"""

import json
import os
import select
import signal
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from starcoder.evaluation.jail import commands, processes, python
from starcoder.evaluation.jail.cell import Cell
from starcoder.evaluation.jail.confine import become_subreaper
from starcoder.evaluation.jail.forkserver import JailError
from starcoder.evaluation.jail.watch import ParentGoneError

_PARENT_SECONDS = 2.0


def serve() -> None:
    """Answer requests until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = os.getppid()
    become_subreaper()
    with suppress(ParentGoneError, OSError):
        try:
            _serve(parent)
        except ParentGoneError:
            raise
        except Exception as error:  # the main process tells it, and starts another
            _send({"error": _told(error)})


def _serve(parent: int) -> None:
    cell = Cell(_receive(parent))
    try:
        python.server(cell, "whole")
        _send({"ready": True})
        while True:
            _send(_run(cell, _receive(parent)))
    finally:
        cell.close(parent)


def _run(cell: Cell, request: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a program, as fields of `starcoder.evaluation.program.Result`."""
    started = time.monotonic()
    run = python.run if request["kind"] == "python" else commands.run
    result: dict[str, Any] = {}
    for _ in range(2):
        try:
            result = run(cell, request)
            break
        except ParentGoneError:
            raise
        except Exception as error:  # whatever it is, the next program finds a worker
            cell.restart()
            result = {"status": "sandbox_error", "detail": f"twice: {_told(error)}"}
    result["wall_seconds"] = time.monotonic() - started
    return result


def _told(error: Exception) -> str:
    """What an error says, and its kind where that is no matter of course."""
    return str(error) if isinstance(error, (JailError, OSError)) else repr(error)


def _receive(parent: int) -> dict[str, Any]:
    """The next request.

    Raises:
        ParentGoneError: when there will be none.
    """
    poll = select.poll()
    poll.register(0, select.POLLIN)
    while not poll.poll(_PARENT_SECONDS * 1000):
        processes.reap_ended(())
        if os.getppid() != parent:  # others may hold copies of the pipe's other end
            raise ParentGoneError
    return dict(json.loads(_exactly(struct.unpack("=I", _exactly(4))[0])))


def _exactly(size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = os.read(0, size - len(data))
        if not piece:
            raise ParentGoneError
        data += piece
    return bytes(data)


def _send(message: Mapping[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = struct.pack("=I", len(data)) + data
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    serve()
