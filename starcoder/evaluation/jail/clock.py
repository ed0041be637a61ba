"""CPU time of a process and of all its descendants, the dead ones included, by the kernel's own counter.

/proc knows the time of the living and of those that somebody waited for; a program whose children are waited for by
nobody escapes it. Where the kernel lends no counter, /proc has to do.
"""

import ctypes
import os
import platform
import struct

_libc = ctypes.CDLL(None, use_errno=True)
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}.get(platform.machine())
_SOFTWARE, _TASK_CLOCK = 1, 1
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_CLOSE_ON_EXEC = 8


class Clock:
    """Counts from now on.

    Args:
        pid: the process, which has no descendants yet.
    """

    def __init__(self, pid: int) -> None:
        flags = (
            _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
        )  # what the unprivileged may ask; it counts all the same
        attributes = struct.pack("=IIQQQQQIIQ", _SOFTWARE, 64, _TASK_CLOCK, 0, 0, 0, flags, 0, 0, 0)
        self._descriptor = -1
        if _PERF_EVENT_OPEN is not None:
            self._descriptor = _libc.syscall(_PERF_EVENT_OPEN, attributes, pid, -1, -1, _CLOSE_ON_EXEC)

    def seconds(self) -> float:
        """CPU seconds until now; 0 where there is no counter."""
        if self._descriptor < 0:
            return 0.0
        return float(struct.unpack("=Q", os.read(self._descriptor, 8))[0]) / 1e9

    def close(self) -> None:
        """Stop counting."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
