"""How strongly programs are shut in: the levels, and which of them this machine offers."""

import shutil
import subprocess
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path

from starcoder.errors import UserError

_ROOT = Path(__file__).parents[2]
_PROBE_SECONDS = 60


class Isolation(StrEnum):
    """A level, from the weakest to the strongest; each holds what those before it hold."""

    NONE = "none"
    """Verdicts, time and output are watched, no more: programs can do what the user can."""
    LIMITS = "limits"
    """The kernel's limits, a clear environment and, for root, a user of their own: for programs that mean no harm.

    Below `landlock` a program can write into the memory of its own first process by another that it starts, where the
    kernel lets it (ptrace_scope 0), and so forge its verdict.
    """
    SECCOMP = "seccomp"
    """No network, no tracing, no kernel features that programs do not need; files are open."""
    LANDLOCK = "landlock"
    """No files but the interpreter's, the system's programs and their own folder; no signals to others."""
    NAMESPACES = "namespaces"
    """Their own processes, network, file tree and shared memory, by bubblewrap."""

    def __lt__(self, other: str) -> bool:
        return self._rank < Isolation.of(other)._rank

    def __le__(self, other: str) -> bool:
        return self._rank <= Isolation.of(other)._rank

    def __gt__(self, other: str) -> bool:
        return self._rank > Isolation.of(other)._rank

    def __ge__(self, other: str) -> bool:
        return self._rank >= Isolation.of(other)._rank

    @property
    def _rank(self) -> int:
        return list(Isolation).index(self)

    @staticmethod
    def of(name: "Isolation | str") -> "Isolation":
        """The level of that name.

        Raises:
            UserError: when there is none; it lists those that there are.
        """
        try:
            return Isolation(name)
        except ValueError:
            raise UserError(f"isolation {name} is unknown: choose from {', '.join(Isolation)}") from None


def probe() -> list[Isolation]:
    """The levels that work on this machine, weakest first."""
    return [level for level in Isolation if missing(level) is None]


def missing(level: Isolation | str) -> str | None:
    """Why this machine does not offer `level`, in one line; None when it does. Each is tried in a process, once."""
    return _missing(Isolation.of(level))


@cache
def _missing(level: Isolation) -> str | None:
    if sys.platform != "linux":
        return f"the sandbox needs Linux, this is {sys.platform}: use a container or a virtual machine"
    if level is Isolation.SECCOMP and (reason := _failure([sys.executable, *_shut_in(landlock=False)])):
        return f"no system call filter (seccomp): {reason}"
    if level is Isolation.LANDLOCK and (reason := _failure([sys.executable, *_shut_in(landlock=True)])):
        return f"no Landlock (Linux 5.13 or later, with landlock among the kernel's lsm=): {reason}"
    return _no_namespaces() if level is Isolation.NAMESPACES else None


def choose(wanted: Isolation | str | None) -> Isolation:
    """The level to run at.

    Args:
        wanted: a level; None for the strongest that this machine offers, which is `landlock` at least.

    Raises:
        UserError: when the machine does not offer it: what is missing, and what to do.
    """
    if wanted is None:
        safe = [level for level in (Isolation.NAMESPACES, Isolation.LANDLOCK) if missing(level) is None]
        if safe:
            return safe[0]
        weaker = " or ".join(level for level in probe() if level is not Isolation.NONE)
        advice = f": to run programs less safely, ask for isolation {weaker} by name" if weaker else ""
        raise UserError(f"{missing(Isolation.LANDLOCK)}{advice}")
    if reason := missing(wanted):
        raise UserError(f"isolation {wanted} is not offered here: {reason}")
    return Isolation.of(wanted)


def landlock_abi() -> int:
    """The version of Landlock that this machine's kernel offers; 0 when there is none."""
    if sys.platform != "linux":
        return 0
    from starcoder.evaluation.jail import confine

    return confine.landlock_abi()


def bubblewrap() -> str | None:
    """The command that makes name spaces, where it is installed."""
    return shutil.which("bwrap")


def _no_namespaces() -> str | None:
    """Why there are no name spaces; None when they work, and everything else within them."""
    if bubblewrap() is None:
        return "bubblewrap is not installed (Debian: bubblewrap)"
    from starcoder.evaluation.jail.worker import namespaces

    return _failure([*namespaces((), "/tmp/starcoder-sandbox"), sys.executable, *_shut_in(landlock=True)])


def _shut_in(landlock: bool) -> list[str]:
    """Arguments for an interpreter that shuts itself in."""
    confinement = f"Confinement(landlock={landlock}, seccomp=True)"
    code = f"from starcoder.evaluation.jail.confine import Confinement; {confinement}.enter()"
    return ["-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(_ROOT)!r}); {code}"]


def _failure(command: list[str]) -> str | None:
    """The last line that `command` says when it fails; None when it succeeds."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = done.stderr.strip().splitlines()
    return (said[-1] if said else f"exit code {done.returncode}") if done.returncode else None
