"""Compiles and runs a program of another language: each step in a process of its own, shut in and watched."""

import errno
import os
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from starcoder.evaluation.jail import processes
from starcoder.evaluation.jail.cell import Cell, Rlimit, Streams
from starcoder.evaluation.jail.confine import Confinement, die_with_parent
from starcoder.evaluation.jail.disks import MOST_FILES
from starcoder.evaluation.jail.forkserver import JailError, Process
from starcoder.evaluation.jail.watch import Verdict, Watch

_ROLE = "command"
_READABLE = ("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/version", "/proc/sys/vm", "/sys/devices/system/cpu")
_NO_MEMORY = (
    "std::bad_alloc",
    "OutOfMemory",
    "out of memory",
    "Out of memory",
    "Cannot allocate",
    "cannot allocate",
    "failed to allocate memory",
    "memory allocation of",
)


class _Ended(NamedTuple):
    """How a step ended."""

    verdict: Verdict | None
    status: int
    out: str
    err: str
    cpu: float


def run(cell: Cell, request: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the result.

    Args:
        cell: where it runs.
        request: `files` (texts by name), `steps` (each `argv`, `limits` and `memory`; all but the last compile),
            `environment`, `readable` and `marker`, the line that a right program prints at the end of its tests.
    """
    programs = [step["argv"][0] for step in request["steps"] if step["argv"][0].startswith("/")]
    jail = cell.confinement(_ROLE, (*request["readable"], *_READABLE), programs)
    path = os.pathsep.join(str(Path(program).parent) for program in programs)
    environment = cell.environment(_ROLE, request["environment"], path)
    space = max(step["limits"]["disk_mb"] for step in request["steps"])
    folder, cpu = cell.fresh_folder(_ROLE, jail.user, space), 0.0
    try:
        *compilations, last = request["steps"]
        if not _written(folder, request["files"]):
            return _fields(_full(last["limits"]), _Ended(None, 0, "", "", 0.0), 0.0)
        for step in compilations:
            ended = _step(cell, step, jail, environment, folder)
            cpu += ended.cpu
            if failure := _of_compiler(cell, ended, step):
                return _fields(failure, ended, cpu)
        ended = _step(cell, last, jail, environment, folder)
    finally:
        cell.clear(_ROLE)
    verdict, out = _of_program(cell, ended, last, request["marker"])
    return _fields(verdict, ended._replace(out=out), cpu + ended.cpu)


def _fields(verdict: Verdict, ended: _Ended, cpu: float) -> dict[str, Any]:
    text = {"stdout": ended.out, "stderr": ended.err}
    return {**verdict._asdict(), **text, "strict": False, "cpu_seconds": cpu}


def _written(folder: str, files: Mapping[str, str]) -> bool:
    """Write the program's text; whether there is room for it."""
    try:
        for name, text in files.items():
            Path(folder, name).write_text(text, encoding="utf-8", errors="surrogatepass")
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
    return True


def _full(limits: Mapping[str, Any]) -> Verdict:
    return Verdict("output_limit", f"more than {limits['disk_mb']} MB or {MOST_FILES} files on disk")


def _step(
    cell: Cell, step: Mapping[str, Any], jail: Confinement, environment: Mapping[str, str], folder: str
) -> _Ended:
    """Execute one command to its end.

    Raises:
        JailError: when it cannot be started.
    """
    streams, gate = Streams(), _Gate()
    try:
        rlimits = cell.rlimits(step["limits"], step["memory"], jail.user)
        leader = _fork(step["argv"], jail, environment, folder, rlimits, streams, gate)
        streams.close_writing()
        readers = [end.fileno() for end in streams.reading]
        folders = [] if cell.disks.offered else [folder]
        watch = Watch([leader], readers, step["limits"], folders, lambda: cell.spared() | {leader.pid})
        reason = gate.open()
        exceeded = None if reason else watch.run()
        exceeded = watch.finish() or exceeded
        os.close(leader.pidfd)
        _, status, used = os.wait4(leader.pid, 0)
    finally:
        streams.close()
        gate.close()
    if reason:
        raise JailError(f"cannot run {step['argv'][0]}: {reason}")
    out, err = (bytes(text).decode(errors="replace") for text in watch.output.values())
    return _Ended(exceeded, status, out, err, watch.total_cpu(used.ru_utime + used.ru_stime))


class _Gate:
    """Where a child waits until it is watched, and tells why it could not execute its command."""

    def __init__(self) -> None:
        self._ours, self._childs = socket.socketpair()

    def wait(self) -> None:
        """The child's side."""
        self._ours.close()
        self._childs.recv(1)

    def fail(self, reason: str) -> None:
        """The child's side: it could not execute the command. When it can, that closes the connection."""
        self._childs.send(reason.encode())

    def open(self) -> str:
        """Let the child go; what it says when it fails."""
        self._childs.close()
        self._ours.send(b"!")
        return self._ours.recv(65536).decode(errors="replace")

    def close(self) -> None:
        """Close both sides."""
        self._ours.close()
        self._childs.close()


def _fork(
    argv: Sequence[str],
    jail: Confinement,
    environment: Mapping[str, str],
    folder: str,
    rlimits: Sequence[Rlimit],
    streams: Streams,
    gate: _Gate,
) -> Process:
    """A child that shuts itself in, and executes `argv` once the gate is open."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        processes.prefer_for_memory_kill(pid)
        return Process(pid, os.pidfd_open(pid))
    try:
        os.setsid()
        null = os.open("/dev/null", os.O_RDONLY)
        for target, descriptor in enumerate((null, *(end.fileno() for end in streams.writing))):
            os.dup2(descriptor, target)
        os.chdir(folder)
        os.umask(0o077)
        for name, soft, hard in rlimits:
            resource.setrlimit(getattr(resource, name), (soft, hard))
        jail.enter()
        die_with_parent(parent)
        gate.wait()
        os.execve(argv[0], list(argv), dict(environment))
    except BaseException as error:
        gate.fail(str(error))
    finally:
        os._exit(1)


def _of_compiler(cell: Cell, ended: _Ended, step: Mapping[str, Any]) -> Verdict | None:
    """Why a compilation failed; None when it did not."""
    if ended.verdict:
        return ended.verdict._replace(detail=f"the compiler: {ended.verdict.detail}")
    if ended.status == 0:
        return None
    if os.WIFSIGNALED(ended.status):
        return cell.by_signal(os.WTERMSIG(ended.status), ended.cpu, step["limits"])
    lines = (ended.err.strip() or ended.out.strip()).splitlines()
    error = next((line for line in lines if "error" in line.lower()), lines[0] if lines else "no reason given")
    return Verdict("failed", f"does not compile: {' '.join(error.split())}"[:300])


def _of_program(cell: Cell, ended: _Ended, step: Mapping[str, Any], marker: str) -> tuple[Verdict, str]:
    """The verdict on the program, and its output without the marker."""
    reached = marker in ended.out.splitlines()
    out = "".join(line for line in ended.out.splitlines(keepends=True) if line.strip() != marker)
    if ended.verdict or (reached and ended.status == 0):
        return ended.verdict or Verdict("passed"), out.removesuffix("\n") if reached else out
    return _failure(cell, ended, step["limits"]), out


def _failure(cell: Cell, ended: _Ended, limits: Mapping[str, Any]) -> Verdict:
    """Why a program that ended by itself has not passed, as far as it says."""
    if "No space left on device" in ended.err:
        return _full(limits)
    if any(phrase in ended.err for phrase in _NO_MEMORY):
        return Verdict("out_of_memory", "it says that it has no memory left")
    if os.WIFSIGNALED(ended.status):
        number, said = os.WTERMSIG(ended.status), ended.err.strip().splitlines()
        if number == signal.SIGABRT:  # how a failed `assert` of C++ ends
            return Verdict("failed", said[-1][:250] if said else "aborted")
        return cell.by_signal(number, ended.cpu, limits)
    code, said = os.WEXITSTATUS(ended.status), ended.err.strip().splitlines()
    if code == 0:
        return Verdict("exited_early", "exit code 0 before the end of the tests")
    return Verdict("failed", f"exit code {code}{': ' + said[-1][:250] if said else ''}")
