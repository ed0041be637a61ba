"""File systems in memory for working directories: where this process may mount, the kernel itself limits their size.

Elsewhere the watch adds up what it sees, now and then.
"""

import ctypes
import os
from contextlib import suppress
from pathlib import Path

MOST_FILES = 10_000
SHARED = "/dev/shm"
"""Where the semaphores of POSIX lie."""

_NEW_MOUNTS, _NEW_USERS = 0x00020000, 0x10000000
_NOSUID, _NODEV, _REMOUNT, _RECURSIVE, _PRIVATE = 2, 4, 32, 0x4000, 1 << 18
_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


class Disks:
    """Mounts that only this process and its descendants see, and that end with them.

    Args:
        alone: no other user's id is needed, so that this process may become root of a name space of users.
    """

    def __init__(self, alone: bool) -> None:
        self._sizes: dict[str, int] = {}
        self.offered = self.shared = False
        with suppress(OSError):
            _unshare(alone)
            _call(_libc.mount(None, b"/", None, _RECURSIVE | _PRIVATE, None))
            self.offered = True

    def mount(self, folder: str) -> None:
        """Make `folder` a file system of its own, if this process may."""
        if self.offered:
            try:
                _call(_libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", _NOSUID | _NODEV, b"mode=711"))
            except OSError:
                self.offered = False

    def share(self) -> None:
        """Make a small `SHARED` that nobody else sees, if this process may: then `shared` is set."""
        options = b"size=16m,nr_inodes=1000,mode=1777"
        if self.offered:
            self.shared = _libc.mount(b"tmpfs", SHARED.encode(), b"tmpfs", _NOSUID | _NODEV, options) == 0

    def resize(self, folder: str, megabytes: int) -> None:
        """Let `folder` hold that much."""
        if self.offered and self._sizes.get(folder) != megabytes:
            options = f"size={megabytes}m,nr_inodes={MOST_FILES}".encode()
            _call(_libc.mount(b"tmpfs", os.fsencode(folder), None, _REMOUNT | _NOSUID | _NODEV, options))
            self._sizes[folder] = megabytes

    def unmount(self, folder: str) -> None:
        """Give up the file system; what is still open keeps it alive."""
        _libc.umount2(os.fsencode(folder), _DETACH)


def _unshare(alone: bool) -> None:
    """Mounts of our own; without the rights of root, as root of a name space in which nobody else exists."""
    user, group = os.geteuid(), os.getegid()
    try:
        _call(_libc.unshare(_NEW_MOUNTS))
    except OSError:
        if not alone:
            raise
        _call(_libc.unshare(_NEW_USERS | _NEW_MOUNTS))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def _call(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
