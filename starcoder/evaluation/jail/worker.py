"""The main process's side of a worker: starting its supervisor, asking it, replacing it when it dies."""

import contextlib
import json
import os
import pwd
import random
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from starcoder.errors import UserError
from starcoder.evaluation.jail import folders, processes
from starcoder.evaluation.jail.cell import ROLES
from starcoder.evaluation.jail.confine import DEVICES, SYSTEM, holds

_ROOT = Path(__file__).parents[3]
_MAIN = (
    f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from starcoder.evaluation.jail.supervisor import serve; serve()"
)
_MOST_ERRORS = 1 << 20
_START_SECONDS, _PATIENCE_SECONDS = 120.0, 1800.0
_FIRST_USER, _LAST_USER = 20_000, 60_000
_NEEDED_CAPABILITIES = (0, 1, 5, 6, 7)  # CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID


class Worker:
    """A supervisor's process and the connection to it.

    Args:
        isolation: the level's name.
        python: interpreter of Python programs.
        readable: its folders.
        packages: those of them that hold packages.
        folder: scratch folder, made by the worker.
        shown: what other programs read, for a worker with a file tree of its own.
    """

    def __init__(
        self,
        isolation: str,
        python: str,
        readable: tuple[str, ...],
        packages: tuple[str, ...],
        folder: str,
        shown: tuple[str, ...] = (),
    ) -> None:
        self._folder = folder
        self._users, self._lock = _claim_users(isolation)
        self._config: dict[str, Any] = {
            "isolation": isolation,
            "python": python,
            "readable": readable,
            "packages": packages,
            "folder": folder,
            "users": self._users,
        }
        self._command = [sys.executable, "-I", "-S", "-c", _MAIN]
        if isolation == "namespaces":
            self._command = [*namespaces((*readable, *shown), str(Path(folder).parent)), *self._command]
        self._errors = open(os.memfd_create("errors"), "w+b", buffering=0)  # noqa: PTH123, SIM115 - closed with the worker
        self._changing, self._closed = threading.Lock(), False
        self._start()

    def wait_ready(self) -> None:
        """Wait until it can run programs.

        Raises:
            UserError: when it cannot, with the reason.
        """
        try:
            answer = self._receive(_START_SECONDS)
        except OSError as error:
            raise UserError(f"the sandbox's worker does not start: {self._last_words() or error}") from error
        if "error" in answer:
            raise UserError(f"the sandbox does not start: {answer['error']}")

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The worker's answer; a new worker is asked once more when it dies over it."""
        failures = dict[str, None]()  # in their order, each once
        for _ in range(2):
            try:
                self._send(request)
                answer = self._receive(_PATIENCE_SECONDS)
                if "error" not in answer:
                    return answer
                failures[answer["error"]] = None
            except (OSError, ValueError) as error:
                failures[self._last_words() or str(error)] = None
            try:
                if not self._replace():
                    failures["it was closed"] = None
                    break
            except UserError as error:
                failures[str(error)] = None
        return {"status": "sandbox_error", "detail": f"the sandbox's worker has ended: {'; '.join(failures)}"}

    def close(self) -> None:
        """End it and all that it has started, and remove its folder; whoever waits for an answer gets an error."""
        with self._changing:
            if not self._closed:
                self._closed = True
                self._end()
                self._errors.close()
                if self._lock:
                    self._lock.close()

    def _replace(self) -> bool:
        """Start a new process in the place of one that died, unless this worker is closed."""
        with self._changing:
            if not self._closed:
                self._end()
                self._start()
                self.wait_ready()
            return not self._closed

    def _start(self) -> None:
        self._errors.seek(0)
        self._errors.truncate()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # Ctrl-C is for the main process alone
            cwd="/",
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        with contextlib.suppress(OSError):  # waiting for its first words will tell
            self._send(self._config)

    def _end(self) -> None:
        with contextlib.suppress(OSError):
            self._requests.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for user in self._users:
            for pid in processes.processes_of(user):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        if not self._users:  # what a supervisor left that could not end its programs
            processes.kill_with_variable(f"HOME={self._folder}/")
        if Path(self._folder).exists():
            folders.empty(self._folder)
            Path(self._folder).rmdir()

    def _last_words(self) -> str:
        """The last line that its process has printed as an error."""
        with contextlib.suppress(ValueError, OSError):  # it may have been closed meanwhile
            said = os.pread(self._errors.fileno(), _MOST_ERRORS, 0).decode(errors="replace").strip()
            return said.rpartition("\n")[2]
        return ""

    def _send(self, message: Mapping[str, Any]) -> None:
        data = json.dumps(message).encode()
        data = struct.pack("=I", len(data)) + data
        while data:
            data = data[self._requests.write(data) :]

    def _receive(self, seconds: float) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        size = struct.unpack("=I", self._exactly(4, deadline))[0]
        return dict(json.loads(self._exactly(size, deadline)))

    def _exactly(self, size: int, deadline: float) -> bytes:
        data, stream = bytearray(), self._answers
        while len(data) < size:
            poll = select.poll()
            poll.register(stream, select.POLLIN)
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise OSError("it does not answer")
            piece = stream.read(size - len(data))
            if not piece:
                raise OSError("it has ended")
            data += piece
        return bytes(data)


def _claim_users(isolation: str) -> tuple[list[int], socket.socket | None]:
    """A free user id for each role, and what keeps them ours; none where this process may not give them away."""
    if isolation == "none" or not _may_change_users():
        return [], None
    known = {entry.pw_uid for entry in pwd.getpwall()} | _users_of_processes()
    size, first = len(ROLES), random.randrange(_FIRST_USER, _LAST_USER, len(ROLES))
    for start in (*range(first, _LAST_USER, size), *range(_FIRST_USER, first, size)):
        users = list(range(start, start + size))
        if known.isdisjoint(users) and all(map(_is_mapped, users)):
            lock = socket.socket(socket.AF_UNIX)
            try:
                lock.bind(f"\0starcoder-sandbox-{start}")  # the kernel frees the name when this process ends
            except OSError:
                lock.close()
                continue
            return users, lock
    return [], None


def _may_change_users() -> bool:
    return os.geteuid() == 0 and holds(*_NEEDED_CAPABILITIES)


def _users_of_processes() -> set[int]:
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                found.add(folder.stat().st_uid)
    return found


def _is_mapped(user: int) -> bool:
    """Whether the user id exists in this process's name space of users."""
    spans = [list(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    return any(inside <= user < inside + length for inside, _, length in spans)


def namespaces(readable: tuple[str, ...], scratch: str) -> list[str]:
    """The command line of bubblewrap: a file tree with nothing in it but what programs and the supervisor read."""
    paths = (*SYSTEM, "/sys/devices/system/cpu", *readable, sys.prefix, sys.base_prefix, str(_ROOT / "starcoder"))
    places, links = _resolved(path for path in dict.fromkeys(paths) if Path(path).exists())
    folders = [str(parent) for path in (*places, *links) for parent in reversed(path.parents) if parent != Path("/")]
    command = [str(shutil.which("bwrap")), "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts"]
    command += ["--unshare-cgroup-try", "--proc", "/proc", "--perms", "1777", "--tmpfs", "/tmp"]
    for folder in ("/dev", "/dev/shm", *dict.fromkeys(folders), scratch):
        command += ["--perms", "0755", "--dir", folder]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    for link, target in links.items():
        command += ["--symlink", target, str(link)]
    for place in places:
        command += ["--ro-bind", str(place), str(place)]
    return command


def _resolved(paths: Iterable[str]) -> tuple[list[Path], dict[Path, str]]:
    """What `paths` lead to, and the symbolic links on the way with their targets."""
    places, links = dict[Path, None](), dict[Path, str]()
    for text in paths:
        path = Path(text)
        while link := next((part for part in (*reversed(path.parents), path) if part.is_symlink()), None):
            links[link] = str(link.readlink())
            path = Path(os.path.normpath(link.parent / links[link] / path.relative_to(link)))
        places[path] = None
    return list(places), links
