"""The supervisor's side of a fork server (`harness.py`): starting it shut in, and asking it for processes."""

import array
import json
import os
import signal
import socket
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from starcoder.evaluation.jail import processes
from starcoder.evaluation.jail.confine import Confinement

_HERE = Path(__file__).parent
_SOURCES = ("judge", "strict", "harness")
_BOOT = """
import json, os, sys, types
with open(4) as file:
    sources = json.load(file)
for name, source in sources.items():
    module = sys.modules["starcoder.evaluation.jail." + name] = types.ModuleType(name)
    jail = sys.modules.setdefault("starcoder.evaluation.jail", types.ModuleType("jail"))
    setattr(jail, name, module)
    exec(compile(source, f"<{name}>", "exec"), module.__dict__)
module.main()
"""
_START_SECONDS, _FORK_SECONDS = 60.0, 600.0  # the second may include the import of large libraries


class JailError(Exception):
    """The sandbox itself failed, not the program."""


class Process(NamedTuple):
    """A leader: the first process of a program.

    Args:
        pid: its id, which stays its own until it is reaped.
        pidfd: a descriptor that is readable once it has ended.
    """

    pid: int
    pidfd: int

    def kill(self) -> None:
        """End it, whatever it does."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


class ForkServer:
    """One fork server.

    Args:
        role: what it is for.
        python: the interpreter.
        folder: the folder that its programs may write in; `work` in it is theirs, and is made anew for each.
        confinement: how it is shut in.
        environment: all environment variables that its programs see.
    """

    def __init__(
        self, role: str, python: str, folder: str, confinement: Confinement, environment: Mapping[str, str]
    ) -> None:
        self.role, self.folder, self.confinement = role, folder, confinement
        self._control, theirs = socket.socketpair()
        self._log, log = socket.socketpair()
        for end in (self._log, log):
            end.setblocking(False)
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._become(theirs, log, python, environment)
            except BaseException as error:
                os.write(2, str(error).encode())
            finally:
                os._exit(1)
        theirs.close()
        log.close()

    def _become(self, control: socket.socket, log: socket.socket, python: str, environment: Mapping[str, str]) -> None:
        """Turn into the fork server.

        It has sockets where others have files: a program may open its parent's files through /proc, but no sockets.
        """
        os.setsid()
        code = os.memfd_create("code")
        os.write(code, json.dumps({name: (_HERE / f"{name}.py").read_text() for name in _SOURCES}).encode())
        os.lseek(code, 0, os.SEEK_SET)
        descriptors = [os.dup(end) for end in (log.fileno(), log.fileno(), log.fileno(), control.fileno(), code)]
        for target, descriptor in enumerate(descriptors):
            os.dup2(descriptor, target)
        self.confinement.enter()
        os.closerange(len(descriptors), 1024)
        options = ["-S"] if self.role == "whole" else []  # without packages
        os.execve(python, [python, "-s", *options, "-c", _BOOT], dict(environment))

    def wait_ready(self) -> None:
        """Wait until it is warm.

        Raises:
            JailError: when it does not start, with the reason.
        """
        self._receive(_START_SECONDS)
        self.base_kb = processes.address_space_kb(self.pid)
        self.resident_kb = processes.usage([self.pid]).memory_kb

    def fork(self, request: Mapping[str, Any], descriptors: Sequence[int]) -> Process:
        """Start a program.

        Args:
            request: what `harness.py` reads.
            descriptors: the child's standard output, standard error and report, and in strict mode the channel.
        """
        data = json.dumps(request).encode()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self._control.settimeout(_FORK_SECONDS)
        try:
            self._control.sendmsg([struct.pack("=I", len(data))], rights)
            self._control.sendall(data)
        except OSError as error:
            raise JailError(f"the fork server is gone: {error}") from error
        pid = int(self._receive(_FORK_SECONDS)["pid"])
        return Process(pid, os.pidfd_open(pid))

    def reap(self, process: Process) -> tuple[int, float]:
        """Wait status and CPU seconds of a program that has ended."""
        os.close(process.pidfd)
        try:
            self._control.sendall(struct.pack("=I", 2) + b"{}")
        except OSError as error:
            raise JailError(f"the fork server is gone: {error}") from error
        answer = self._receive(_START_SECONDS)
        return int(answer["status"]), float(answer["cpu"])

    def close(self) -> None:
        """End it and what it has started."""
        self._control.close()
        self._log.close()
        os.kill(self.pid, signal.SIGKILL)
        processes.reap(self.pid)

    def _receive(self, seconds: float) -> dict[str, Any]:
        self._control.settimeout(seconds)
        try:
            size = struct.unpack("=I", self._exactly(4))[0]
            return dict(json.loads(self._exactly(size)))
        except (OSError, ValueError) as error:
            raise JailError(f"the fork server is gone: {self._last_words() or error}") from error

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self._control.recv(size - len(data))
            if not piece:
                raise OSError("it has ended")
            data += piece
        return data

    def _last_words(self) -> str:
        """The last line that it has printed."""
        with suppress(OSError):
            said = self._log.recv(1 << 20).decode(errors="replace").strip()
            return said.splitlines()[-1] if said else ""
        return ""
