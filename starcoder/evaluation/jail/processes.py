"""What the supervisor knows of processes: families, what they use of the machine, how they end.

Linux only: it reads /proc. Everything here stands against programs that fork, stop and hide on purpose.
"""

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_KB = os.sysconf("SC_PAGE_SIZE") // 1024
_PROC = Path("/proc")
_ROUNDS = 100
_SOCKET_KB, _PIPE_KB = 208, 64  # what the kernel stores in one at most


class Usage(NamedTuple):
    """What a family of processes uses at a moment.

    Args:
        cpu: CPU seconds of the living and of their children that were waited for.
        memory_kb: resident memory.
        tasks: processes and threads.
        asleep: none of them runs or waits for a processor.
    """

    cpu: float
    memory_kb: int
    tasks: int
    asleep: bool


def children(pid: int) -> list[int]:
    """Children of all threads of `pid`."""
    found: list[int] = []
    try:
        for task in (_PROC / str(pid) / "task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except FileNotFoundError:
        return _children_by_search(pid) if (_PROC / str(pid)).exists() else []
    except (ProcessLookupError, PermissionError):
        pass
    return found


def _children_by_search(parent: int) -> list[int]:
    """The same where the kernel keeps no lists of children."""
    found = []
    for folder in _PROC.iterdir():
        with contextlib.suppress(OSError, ValueError):
            fields = _stat(int(folder.name))
            if int(fields[1]) == parent:
                found.append(int(folder.name))
    return found


def family(roots: Iterable[int]) -> list[int]:
    """`roots` and all their descendants."""
    found = list(roots)
    for pid in found:  # grows while it is walked
        found += children(pid)
    return found


def usage(pids: Iterable[int]) -> Usage:
    """What the processes `pids` use together; those that have ended count for nothing."""
    found: dict[int, list[str]] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = _stat(pid)
            if found[pid][0] == "Z" and int(found[pid][17]) > 1:  # its first thread has ended, others have not
                found[pid] = _stat_of_thread(pid) or found[pid]
    parents = {int(fields[1]) for fields in found.values()}
    return Usage(
        sum(int(field) for fields in found.values() for field in fields[11:15]) / _TICKS,
        sum(int(fields[21]) for fields in found.values()) * _PAGE_KB,
        sum(int(fields[17]) for fields in found.values()),
        all(_asleep(pid, fields, pid in parents) for pid, fields in found.items()),
    )


def _asleep(pid: int, fields: Sequence[str], parent: bool) -> bool:
    """Whether no thread runs, wants to run or waits for a disk; a parent in state D may wait for its child (vfork)."""
    states = [fields[0]] if int(fields[17]) == 1 else _states(pid)
    return not any(state == "R" or (state == "D" and not parent) for state in states)


def proportional_kb(pids: Iterable[int]) -> int | None:
    """Memory of `pids` in which shared pages are counted once; None where it cannot be read."""
    total = 0
    for pid in pids:
        try:
            rollup = (_PROC / str(pid) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        except OSError:
            return None
        total += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def address_space_kb(pid: int) -> int:
    """Virtual memory of `pid`."""
    return int((_PROC / str(pid) / "statm").read_text().split()[0]) * _PAGE_KB


def tasks_on_machine() -> int:
    """All processes and threads: no user has more."""
    return int((_PROC / "loadavg").read_text().split()[3].split("/")[1])


def killed_for_memory() -> int:
    """How many processes the kernel has killed because the machine or a group had no memory left."""
    with contextlib.suppress(OSError):
        for line in (_PROC / "vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def prefer_for_memory_kill(pid: int) -> None:
    """When memory runs out, the kernel takes `pid` and its descendants before others."""
    with contextlib.suppress(OSError):
        (_PROC / str(pid) / "oom_score_adj").write_text("1000")


def kill_orphans(spared: Iterable[int]) -> float:
    """Kill all descendants of this process, which is a subreaper, but for the children `spared`; reap them.

    They are stopped first, all of them, as what is stopped cannot fork while the others are killed.

    Returns:
        CPU seconds that they used.
    """
    spared, cpu = set(spared), 0.0
    while orphans := [pid for pid in children(os.getpid()) if pid not in spared]:
        stopped: set[int] = set()
        while fresh := set(family(orphans)) - stopped:
            _signal(fresh, signal.SIGSTOP)
            stopped |= fresh
        _signal(family(orphans), signal.SIGKILL)
        cpu += sum(reap(pid) for pid in orphans)
    return cpu


def reap(pid: int) -> float:
    """Wait for the end of the child `pid` and return its CPU seconds; it is about to end."""
    with contextlib.suppress(ChildProcessError):
        _, _, used = os.wait4(pid, 0)
        return used.ru_utime + used.ru_stime
    return 0.0


def reap_ended(spared: Iterable[int]) -> float:
    """Reap orphans that have ended, but none of `spared`; returns their CPU seconds."""
    cpu = 0.0
    for pid in set(children(os.getpid())) - set(spared):
        with contextlib.suppress(ChildProcessError):
            ended, _, used = os.wait4(pid, os.WNOHANG)
            cpu += used.ru_utime + used.ru_stime if ended else 0.0
    return cpu


def processes_of(user: int) -> Iterator[int]:
    """Processes of the user id `user`."""
    for folder in _PROC.iterdir():
        with contextlib.suppress(OSError, ValueError):
            if folder.stat().st_uid == user:
                yield int(folder.name)


def kill_with_variable(start: str) -> None:
    """Kill this user's processes that were started with a variable that begins so, and what they fork meanwhile."""
    for _ in range(_ROUNDS):
        found = [pid for pid in processes_of(os.geteuid()) if _has_variable(pid, start.encode())]
        if not found:
            break
        _signal(found, signal.SIGSTOP)
        _signal(found, signal.SIGKILL)


def _has_variable(pid: int, start: bytes) -> bool:
    with contextlib.suppress(OSError):
        return (b"\0" + (_PROC / str(pid) / "environ").read_bytes()).find(b"\0" + start) >= 0
    return False


def held_kb(pids: Iterable[int], folders: Iterable[str]) -> tuple[int, int]:
    """Memory and disk that `pids` hold by open files: the buffers of sockets and pipes, files without a name.

    Args:
        pids: the processes.
        folders: where files without a name count.
    """
    buffers: dict[str, int] = {}
    blocks: dict[tuple[int, int], int] = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            for descriptor in (_PROC / str(pid) / "fd").iterdir():
                with contextlib.suppress(FileNotFoundError):  # one that was closed meanwhile
                    target = str(descriptor.readlink())
                    if target.startswith(("socket:", "pipe:")):
                        buffers[target] = _SOCKET_KB if target.startswith("socket:") else _PIPE_KB
                    elif target.endswith(" (deleted)"):
                        status = descriptor.stat()
                        blocks[status.st_dev, status.st_ino] = status.st_blocks // 2
            for inode, kilobytes in _mapped(pid, tuple(folders)) if folders else ():
                blocks.setdefault((0, inode), kilobytes)
    return sum(buffers.values()), sum(blocks.values())


def _mapped(pid: int, folders: tuple[str, ...]) -> Iterator[tuple[int, int]]:
    """Inode and KB of each file without a name that `pid` has mapped."""
    # A name may hold any character but the end of a line: also those at which text is split into lines.
    for line in (_PROC / str(pid) / "maps").read_bytes().decode(errors="replace").split("\n"):
        fields = line.split(" ", 5)
        if len(fields) == 6 and line.endswith(" (deleted)") and fields[5].lstrip(" ").startswith(folders):
            start, end = (int(address, 16) for address in fields[0].split("-"))
            yield int(fields[4]), (end - start) // 1024


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on (the state); the name before may hold anything."""
    return (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


def _stat_of_thread(pid: int) -> list[str] | None:
    """The same fields as a living thread of `pid` tells them."""
    for task in (_PROC / str(pid) / "task").iterdir():
        fields = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()
        if fields[0] != "Z":
            return fields
    return None


def _states(pid: int) -> list[str]:
    """States of all threads."""
    found = []
    with contextlib.suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with contextlib.suppress(OSError):
                found.append((task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0])
    return found


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
