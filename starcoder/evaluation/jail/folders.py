"""Working directories: how much is in them, and clearing them, whatever a program has left there on purpose."""

import contextlib
import errno
import os
import stat


def disk_use(folder: str, most: int) -> tuple[int, int]:
    """KB and entries below `folder`; the count ends at `most` entries, and where no path leads any deeper."""
    blocks, entries, pending = 0, 0, [folder]
    while pending and entries < most:
        path = pending.pop()
        try:
            with os.scandir(path) as found:
                for entry in found:
                    entries += 1
                    status = entry.stat(follow_symlinks=False)
                    blocks += status.st_blocks
                    if stat.S_ISDIR(status.st_mode):
                        pending.append(entry.path)
        except PermissionError:
            with contextlib.suppress(OSError):
                if os.stat(path).st_mode & 0o500 != 0o500:  # noqa: PTH116
                    os.chmod(path, 0o700)  # noqa: PTH101 - hidden from us by its owner, who is the same user
                    pending.append(path)
        except OSError as error:
            entries += most if error.errno == errno.ENAMETOOLONG else 0
    return blocks // 2, entries


def empty(folder: str) -> None:
    """Remove everything in `folder`, however deep, whatever its mode; without recursion."""
    top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while names := os.listdir(top):  # noqa: PTH208 - of an open folder
            for name in names:
                if not _unlink(name, top):
                    _flatten(name, top)
    finally:
        os.close(top)


def _unlink(name: str, folder: int) -> bool:
    """Remove a file, or an empty folder; whether that went well."""
    for remove in (os.unlink, os.rmdir):
        with contextlib.suppress(OSError):
            remove(name, dir_fd=folder)
            return True
    return False


def _flatten(name: str, top: int) -> None:
    """Remove the folder `name` in `top`: its files go, its folders move up to `top` under new names."""
    os.chmod(name, 0o700, dir_fd=top)
    inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
    try:
        for entry in os.listdir(inner):  # noqa: PTH208
            if not _unlink(entry, inner):
                os.chmod(entry, 0o700, dir_fd=inner)  # a folder is renamed by its owner only if it is writable
                os.rename(entry, f"moved-{os.urandom(16).hex()}", src_dir_fd=inner, dst_dir_fd=top)
    finally:
        os.close(inner)
    os.rmdir(name, dir_fd=top)
