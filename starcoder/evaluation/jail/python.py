"""Runs a Python program in a child of a fork server, or of two, and reads the verdict that only its end can tell."""

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from starcoder.evaluation.jail import processes
from starcoder.evaluation.jail.cell import Cell, Streams
from starcoder.evaluation.jail.forkserver import ForkServer, JailError, Process
from starcoder.evaluation.jail.watch import Verdict, Watch

_TOKEN_BYTES = 32
_READY = b"+"
_SETUP_SECONDS = 60.0
_HINTS = ("failed", "exited_early", "out_of_memory", "output_limit")
_MOST_REPORT = 65536


class _Part(NamedTuple):
    """One process of the program: `whole`, or in strict mode `tests` and `candidate`.

    Args:
        part: which of the three it is.
        server: who forks it.
        report: our end of the connection on which it reports.
        child_end: its end.
        channel: its end of the connection between tests and candidate.
    """

    part: str
    server: ForkServer
    report: socket.socket
    child_end: socket.socket
    channel: socket.socket | None = None

    @property
    def role(self) -> str:
        """The role of its fork server."""
        return self.server.role

    def close_child_ends(self) -> None:
        """Close what only the child needs."""
        self.child_end.close()
        if self.channel:
            self.channel.close()

    def close(self) -> None:
        """Close everything."""
        self.close_child_ends()
        self.report.close()


class _End(NamedTuple):
    """How a part ended: its wait status, and what it reported."""

    status: int
    said: bytes


def run(cell: Cell, request: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the result.

    Machine code beyond the standard library, such as numpy's, can look into the memory of its own process, so it is not
    loaded beside the verdict. A program that tried, or that needs anything else that the audit hook refuses, is run
    again where its tests are out of its reach.

    Args:
        cell: where it runs.
        request: fields of the program, and `strict`.
    """
    result = _run(cell, request)
    if result.pop("refused") and result["status"] == "failed" and request["entry_point"]:
        second = _run(cell, {**request, "strict": True})
        del second["refused"]
        result = second if second["status"] != "sandbox_error" else result
    return result


def server(cell: Cell, name: str) -> ForkServer:
    """The fork server of that role, started if it is not running."""
    if name not in cell.servers:
        jail = cell.python_confinement(name)
        started = ForkServer(name, cell.python, f"{cell.folder}/{name}", jail, cell.environment(name, {}))
        cell.servers[name] = started
        started.wait_ready()
    return cell.servers[name]


def _run(cell: Cell, request: Mapping[str, Any]) -> dict[str, Any]:
    parts, streams = _parts(cell, request), Streams()
    token = secrets.token_bytes(_TOKEN_BYTES)
    try:
        leaders = [_start(cell, part, streams, request) for part in parts]
        streams.close_writing()
        watch = Watch(
            leaders,
            [end.fileno() for end in streams.reading],
            request["limits"],
            [] if cell.disks.offered else [f"{part.server.folder}/work" for part in parts],
            cell.spared,
            sum(part.server.resident_kb for part in parts),
        )
        for part in parts:  # now they begin, and not before the watch has
            _begin(part, token if part is parts[0] else secrets.token_bytes(_TOKEN_BYTES))
        exceeded = watch.run()
        exceeded = watch.finish() or exceeded
        ended = [part.server.reap(leader) for part, leader in zip(parts, leaders, strict=True)]
        cpu = watch.total_cpu(sum(seconds for _, seconds in ended))
        ends = [_End(status, _report(part)) for part, (status, _) in zip(parts, ended, strict=True)]
        verdict = exceeded or _judge(cell, ends, token, cpu, request["limits"])
        out, err = (bytes(text).decode(errors="replace") for text in watch.output.values())
    finally:
        streams.close()
        for part in parts:
            part.close()
            cell.clear(part.role)
    return {
        **{"status": verdict.status, "detail": verdict.detail, "stdout": out, "stderr": err},
        **{"strict": request["strict"], "cpu_seconds": cpu, "refused": any(_hint(end).get("refused") for end in ends)},
    }


def _parts(cell: Cell, request: Mapping[str, Any]) -> list[_Part]:
    """The processes of a program, the one that decides first."""
    if not request["strict"]:
        role = "libraries" if request["libraries"] else "whole"
        return [_Part("whole", server(cell, role), *socket.socketpair())]
    asking, answering = socket.socketpair()
    tests = _Part("tests", server(cell, "tests"), *socket.socketpair(), asking)
    return [tests, _Part("candidate", server(cell, "candidate"), *socket.socketpair(), answering)]


def _start(cell: Cell, part: _Part, streams: Streams, request: Mapping[str, Any]) -> Process:
    user = part.server.confinement.user
    tests = part.part == "tests"
    child = {
        "part": part.part,
        "code": request["reference"] if tests else request["code"],
        "tests": "" if part.part == "candidate" else request["tests"],  # what it does not have, it cannot read
        "entry_point": request["entry_point"],
        "libraries": [] if tests else request["libraries"],
        "folder": cell.fresh_folder(part.role, user, request["limits"]["disk_mb"]),
        "limits": cell.rlimits(request["limits"], "address_space", user, part.server.base_kb),
    }
    descriptors = [*(end.fileno() for end in streams.writing), part.child_end.fileno()]
    descriptors += [part.channel.fileno()] if part.channel else []
    leader = part.server.fork(child, descriptors)
    part.close_child_ends()
    processes.prefer_for_memory_kill(leader.pid)
    return leader


def _begin(part: _Part, token: bytes) -> None:
    """Wait until a part has settled, and let it run foreign code.

    Raises:
        JailError: when it could not settle; as nothing foreign has run, this is certain.
    """
    part.report.settimeout(_SETUP_SECONDS)
    said = part.report.recv(1)  # no more: what follows may be what foreign code came to
    if said != _READY:
        said += part.report.recv(_MOST_REPORT)
        raise JailError(f"setting up: {said.decode(errors='replace')[:400]}")
    with suppress(BrokenPipeError):  # code that does not compile has ended already
        part.report.send(token)


def _report(part: _Part) -> bytes:
    """What a part has sent before its end."""
    part.report.setblocking(False)
    said = b""
    with suppress(OSError):
        while len(said) < _MOST_REPORT and (piece := part.report.recv(_MOST_REPORT)):
            said += piece
    return said


def _judge(cell: Cell, ends: Sequence[_End], token: bytes, cpu: float, limits: Mapping[str, Any]) -> Verdict:
    """The verdict on a program that came to its end within the limits.

    The first part decides; where it has seen the candidate's process end, the second tells why.
    """
    first = ends[0]
    if secrets.compare_digest(first.said, token) and first.status == 0:
        return Verdict("passed")
    strict = len(ends) > 1
    if strict and _hint(first).get("status") == "gone":
        return _failure(cell, ends[1], cpu, limits, trusted=False)
    return _failure(cell, first, cpu, limits, trusted=strict)


def _failure(cell: Cell, end: _End, cpu: float, limits: Mapping[str, Any], trusted: bool) -> Verdict:
    """The verdict on a process that did not reach the end of the tests.

    Args:
        cell: where it ran.
        end: how it ended.
        cpu: its CPU seconds.
        limits: its limits.
        trusted: whether it runs no foreign code; otherwise it cannot blame the sandbox.
    """
    if hint := _hint(end):
        known = hint["status"] in _HINTS or (trusted and hint["status"] == "sandbox_error")
        return Verdict(hint["status"] if known else "failed", str(hint.get("detail", ""))[:400])
    if os.WIFSIGNALED(end.status):
        return cell.by_signal(os.WTERMSIG(end.status), cpu, limits)
    return Verdict("exited_early", f"exit code {os.WEXITSTATUS(end.status)} before the end of the tests")


def _hint(end: _End) -> dict[str, Any]:
    """What a failing part says of itself first; nobody can win by it."""
    try:
        hint, _ = json.JSONDecoder().raw_decode(end.said.decode())
    except (ValueError, RecursionError):
        return {}
    return hint if isinstance(hint, dict) and isinstance(hint.get("status"), str) else {}
