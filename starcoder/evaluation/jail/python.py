"""Runs a Python program in a child of a fork server, or of two, and reads the verdict that only its end can tell."""

import json
import os
import re
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
_MOST_SUITED = 1000
_FRAMES = re.compile(r"\b(?:f_globals|f_builtins|f_locals|f_back|__globals__)\b")


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


class _Ran(NamedTuple):
    """How a program ran.

    Args:
        result: fields of the result.
        refused: the audit hook has refused something.
        unpassable: its tests pass what the strict mode cannot.
    """

    result: dict[str, Any]
    refused: bool
    unpassable: bool


def run(cell: Cell, request: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the result.

    Machine code beyond the standard library, such as numpy's, can look into the memory of its own process, so it is not
    loaded beside the verdict. A program that tried, or that needs anything else that the audit hook refuses, is run
    again where its tests are out of its reach; and so is one that passed and names what leads to its tests' frames.

    Args:
        cell: where it runs.
        request: fields of the program, and `strict`.
    """
    beside, apart = ({**request, "strict": strict} for strict in (False, True))
    if request["strict"]:
        ran = _run(cell, apart)
        return ran.result if _decides(cell, apart, ran) else _run(cell, beside).result
    result, refused, _ = _run(cell, beside)
    passed = result["status"] == "passed"
    doubtful = _FRAMES.search(request["code"]) if passed else refused and result["status"] == "failed"
    if doubtful and request["entry_point"] and _decides(cell, apart, second := _run(cell, apart)):
        return second.result
    return result


def _decides(cell: Cell, request: Mapping[str, Any], ran: _Ran) -> bool:
    """Whether the strict mode's verdict holds: a failure does only where plain values do for the reference."""
    if ran.unpassable or ran.result["status"] != "failed" or not request["reference"]:
        return not ran.unpassable
    key = (request["tests"], request["entry_point"], request["reference"])
    if key not in cell.suited:
        if len(cell.suited) >= _MOST_SUITED:
            cell.suited.clear()
        solved = {**request, "code": request["reference"]}
        right = _run(cell, solved).result["status"] == "passed"
        cell.suited[key] = right or _run(cell, {**solved, "strict": False}).result["status"] != "passed"
    return cell.suited[key]


def server(cell: Cell, name: str) -> ForkServer:
    """The fork server of that role, started if it is not running."""
    if name not in cell.servers:
        jail = cell.python_confinement(name)
        started = ForkServer(name, cell.python, f"{cell.folder}/{name}", jail, cell.environment(name, {}))
        cell.servers[name] = started
        started.wait_ready()
    return cell.servers[name]


def _run(cell: Cell, request: Mapping[str, Any]) -> _Ran:
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
    result = {"status": verdict.status, "detail": verdict.detail, "stdout": out, "stderr": err}
    hints = [_hint(end) for end in ends]
    return _Ran(
        {**result, "strict": request["strict"], "cpu_seconds": cpu},
        any(hint.get("refused") for hint in hints),
        request["strict"] and hints[0].get("status") == "cannot_pass" and not exceeded,
    )


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
        return _failure(cell, ends[1], cpu, limits)
    return _failure(cell, first, cpu, limits)


def _failure(cell: Cell, end: _End, cpu: float, limits: Mapping[str, Any]) -> Verdict:
    """The verdict on a process that did not reach the end of the tests; whatever it says, it is the program's."""
    if hint := _hint(end):
        return Verdict(hint["status"] if hint["status"] in _HINTS else "failed", str(hint.get("detail", ""))[:400])
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
