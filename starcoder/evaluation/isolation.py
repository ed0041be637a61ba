"""How strongly programs are shut in: the levels, and which of them this machine offers."""

import os
import shutil
import subprocess
import sys
from enum import StrEnum
from functools import cache
from pathlib import Path

from starcoder.errors import UserError
from starcoder.evaluation.jail.confine import landlock_abi

__all__ = ["Isolation", "bubblewrap", "choose", "landlock_abi", "missing", "probe"]

_ROOT = Path(__file__).parents[2]
_PROBE_SECONDS = 60
_SHUT_IN = (
    "from starcoder.evaluation.jail.confine import *; Confinement(landlock={}, seccomp={}, readable=SYSTEM).enter()"
)


class Isolation(StrEnum):
    """A level, from the weakest to the strongest; each holds what those before it hold."""

    NONE = "none"
    """Verdicts, time and output are watched, no more: programs can do what the user can."""
    LIMITS = "limits"
    """The kernel's limits, a clear environment and, for root, a user of their own: for programs that mean no harm."""
    SECCOMP = "seccomp"
    """No network, no tracing, no kernel features that programs do not need; files are open."""
    LANDLOCK = "landlock"
    """No files but the interpreter's, the system's programs and their own folder; no signals to others."""
    NAMESPACES = "namespaces"
    """Their own processes, network, file tree and shared memory, by bubblewrap."""

    def __lt__(self, other: str) -> bool:
        """Whether it is weaker."""
        order = list(Isolation)
        return order.index(self) < order.index(Isolation.of(other))

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
    return [level for level in Isolation if level not in _reasons()]


def missing(level: Isolation | str) -> str | None:
    """Why this machine does not offer `level`, in one line; None when it does."""
    return _reasons().get(Isolation.of(level))


def choose(wanted: Isolation | str | None) -> Isolation:
    """The level to run at.

    Args:
        wanted: a level; None for the strongest that this machine offers, which is `landlock` at least.

    Raises:
        UserError: when the machine does not offer it: what is missing, and what to do.
    """
    if wanted is not None:
        level = Isolation.of(wanted)
        if reason := missing(level):
            raise UserError(f"isolation {level} is not offered here: {reason}")
        return level
    offered = probe()
    if not offered:
        raise UserError(str(missing(Isolation.NONE)))
    if offered[-1] < Isolation.LANDLOCK:
        reason = missing(Isolation.LANDLOCK)
        raise UserError(f"{reason}. To run programs less safely, ask for isolation {offered[-1]} by name")
    return offered[-1]


@cache
def _reasons() -> dict[Isolation, str]:
    """Levels that this machine does not offer, each with the reason; tried in processes of their own, once."""
    if sys.platform != "linux":
        return dict.fromkeys(Isolation, f"the sandbox needs Linux, this is {sys.platform}: use a container or a VM")
    found = {}
    if reason := _fails(_SHUT_IN.format(False, True)):
        found[Isolation.SECCOMP] = f"no system call filter (seccomp): {reason}"
    if reason := _fails(_SHUT_IN.format(True, True)):
        found[Isolation.LANDLOCK] = f"no Landlock (Linux 5.13 or later, enabled by lsm=landlock): {reason}"
    if reason := found.get(Isolation.LANDLOCK) or _no_namespaces():
        found[Isolation.NAMESPACES] = reason
    return found


def bubblewrap() -> str | None:
    """The command that makes name spaces, where it is installed."""
    return shutil.which("bwrap")


def _no_namespaces() -> str | None:
    """Why there are no name spaces; None when they work."""
    command = bubblewrap()
    if command is None:
        return "bubblewrap is not installed (Debian: bubblewrap)"
    options = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    return _failure([command, *options, sys.executable, "-I", "-S", "-c", _isolated(_SHUT_IN.format(True, True))])


def _isolated(code: str) -> str:
    return f"import sys; sys.path.insert(0, {str(_ROOT)!r}); {code}"


def _fails(code: str) -> str | None:
    return _failure([sys.executable, "-I", "-S", "-c", _isolated(code)])


def _failure(command: list[str]) -> str | None:
    """The last line that `command` says when it fails; None when it succeeds."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return None
    said = done.stderr.strip().splitlines()
    return said[-1] if said else f"exit code {done.returncode}, {os.strerror(done.returncode)}"
