"""Watches one program while it runs: its output, CPU time, memory, disk and processes.

The judge of time is the CPU, not the clock: a program on a busy machine is slower by the clock, not by its work. A
program that only sleeps is counted by the clock, but only while it is seen asleep. A program that wants to run and may
not fails by the machine's fault, and the verdict says so.
"""

import os
import select
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from starcoder.evaluation.jail import folders, processes
from starcoder.evaluation.jail.clock import Clock
from starcoder.evaluation.jail.disks import MOST_FILES
from starcoder.evaluation.jail.forkserver import Process

_FIRST_TICK, _TICK = 0.1, 0.1
_STEP = 65536
_WALL_FACTOR, _WALL_SECONDS = 20, 60
_RESTING_CPU = 0.03  # CPU seconds between two looks below which a program that is seen asleep was asleep: 3 clock ticks


class ParentGoneError(Exception):
    """The process that wanted the verdict has ended."""


class Verdict(NamedTuple):
    """A status of `starcoder.evaluation.program.Status` and the line that explains it."""

    status: str
    detail: str = ""


class Watch:
    """Watches a program until its end or until it exceeds a limit.

    Args:
        leaders: its first processes; the program ends when the first of them does.
        streams: descriptors of standard output and standard error, read without blocking.
        limits: fields of `starcoder.evaluation.program.Limits`.
        folders: its working directories, where the kernel does not limit their size.
        spared: processes of this supervisor that are not the program's.
        shared_kb: resident memory that each leader shares with its fork server.
    """

    def __init__(
        self,
        leaders: Sequence[Process],
        streams: Sequence[int],
        limits: Mapping[str, Any],
        folders: Sequence[str],
        spared: Callable[[], set[int]],
        shared_kb: int = 0,
    ) -> None:
        self._leaders, self._limits, self._folders, self._spared = leaders, limits, folders, spared
        self._most_kb = limits["memory_mb"] * 1024 + shared_kb
        self.output = {stream: bytearray() for stream in streams}
        self.started = time.monotonic()
        self.cpu = self._orphans_cpu = 0.0
        self._idle = self._wanting = 0.0
        self._rested = False
        self._open = set(streams)
        self._clocks = [Clock(leader.pid) for leader in leaders]
        self._poll = select.poll()
        for descriptor in (0, *streams, *(leader.pidfd for leader in leaders)):
            self._poll.register(descriptor, select.POLLIN)

    def run(self) -> Verdict | None:
        """Wait for the end; the limit that was exceeded, or None.

        Raises:
            ParentGoneError: when standard input was closed meanwhile.
        """
        last = self.started
        following = last + min(_FIRST_TICK, self._limits["timeout"] / 2)
        while True:
            wait = max(0.0, following - time.monotonic())
            for descriptor, _ in self._poll.poll(wait * 1000 + 1):
                if descriptor == 0:
                    raise ParentGoneError
                if descriptor == self._leaders[0].pidfd:
                    return None
                if descriptor not in self.output:
                    self._poll.unregister(descriptor)  # the candidate's process, in strict mode
                elif verdict := self._read(descriptor):
                    return verdict
            now = time.monotonic()
            if now >= following:
                if verdict := self._look(now - last):
                    return verdict
                last, following = now, time.monotonic() + _TICK

    def finish(self) -> Verdict | None:
        """End everything that is left of the program and read what it has printed; output over the limit, or None."""
        for leader in self._leaders:
            leader.kill()
        for leader in self._leaders:  # only when they have ended are their children orphans
            poll = select.poll()
            poll.register(leader.pidfd, select.POLLIN)
            poll.poll()
        self._orphans_cpu += processes.kill_orphans(self._spared())
        self.cpu = max(self.cpu, sum(clock.seconds() for clock in self._clocks))
        for clock in self._clocks:
            clock.close()
        for stream in self.output:
            while stream in self._open:
                if verdict := self._read(stream):
                    return verdict
        return self._disk()

    def total_cpu(self, waited: float) -> float:
        """CPU seconds of everything, when the leaders and those that they waited for have used `waited`."""
        return max(self.cpu, waited + self._orphans_cpu)

    def _read(self, stream: int) -> Verdict | None:
        """Read once; at the end of the stream forget it."""
        most = self._limits["output_kb"] * 1024
        try:
            piece = os.read(stream, _STEP)
        except BlockingIOError:
            piece = b""
        if not piece:
            self._poll.unregister(stream)
            self._open.discard(stream)
        taken = sum(map(len, self.output.values()))
        self.output[stream] += piece[: most - taken]
        if taken + len(piece) > most:
            self._open.clear()
            return Verdict("output_limit", f"more than {self._limits['output_kb']} KB of output")
        return None

    def _look(self, passed: float) -> Verdict | None:
        """Compare what the program uses with its limits; `passed` seconds have gone by since the last look."""
        spared = self._spared()
        self._orphans_cpu += processes.reap_ended(spared)
        roots = [leader.pid for leader in self._leaders]
        family = processes.family({*roots, *processes.children(os.getpid())} - spared)
        used = processes.usage(family)
        memory_kb, disk_kb = processes.held_kb(family, self._folders)
        found = self._time(used, passed) or self._memory(family, used, memory_kb)
        return found or self._number(used) or self._disk(disk_kb)

    def _time(self, used: processes.Usage, passed: float) -> Verdict | None:
        cpu = max(used.cpu + self._orphans_cpu, sum(clock.seconds() for clock in self._clocks))
        resting = used.asleep and cpu - self.cpu < _RESTING_CPU
        if resting and self._rested:
            self._idle += min(passed, 2 * _TICK)  # a look that comes late has not seen what was in between
        self._rested = resting
        self._wanting += 0.0 if used.asleep else passed
        self.cpu = max(cpu, self.cpu)
        timeout, wall = self._limits["timeout"], time.monotonic() - self.started
        if self.cpu + self._idle >= timeout:
            idle = f" and {self._idle:.1f} s without doing anything" if self._idle else ""
            return Verdict("timed_out", f"{self.cpu:.1f} s of CPU time{idle}, limit {timeout:g} s")
        if wall > _WALL_FACTOR * timeout + _WALL_SECONDS:
            starved = self._wanting > wall / 2
            said = f"the machine gave it {self.cpu:.1f} s of CPU time in {wall:.0f} s"
            return Verdict("sandbox_error" if starved else "timed_out", said)
        return None

    def _memory(self, family: Sequence[int], used: processes.Usage, held_kb: int) -> Verdict | None:
        if used.memory_kb + held_kb <= self._most_kb:
            return None
        exact = processes.proportional_kb(family)  # costs more: only when pages counted twice may be the reason
        if exact is not None and exact + held_kb <= self._most_kb:
            return None
        return Verdict("out_of_memory", f"more than {self._limits['memory_mb']} MB in all its processes")

    def _number(self, used: processes.Usage) -> Verdict | None:
        """The kernel counts processes as well, where it can; this is for where it cannot."""
        most = self._limits["processes"] + len(self._leaders)
        return Verdict("failed", f"more than {self._limits['processes']} processes") if used.tasks > most else None

    def _disk(self, unlinked_kb: int = 0) -> Verdict | None:
        for place in self._folders:
            used, entries = folders.disk_use(place, MOST_FILES)
            if used + unlinked_kb > self._limits["disk_mb"] * 1024:
                return Verdict("output_limit", f"more than {self._limits['disk_mb']} MB on disk")
            if entries >= MOST_FILES:
                return Verdict("output_limit", f"more than {MOST_FILES} files on disk")
        return None
