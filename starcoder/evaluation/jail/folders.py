"""Working directories: how much is in them, and clearing them, whatever a program has left there on purpose."""

import contextlib
import errno
import os
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def disk_use(folder: str, most: int) -> tuple[int, int]:
    """KB and entries below `folder`; the count ends at `most` entries, and where no path leads any deeper."""
    blocks, entries, pending = 0, 0, [folder]
    while pending and entries < most:
        path = pending.pop()
        try:
            with os.scandir(path) as found:
                for entry in found:
                    entries += 1
                    with contextlib.suppress(FileNotFoundError):  # one that was removed meanwhile
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
    current = os.open(folder, _FOLDER)
    try:
        names, pending = list[str](), [_remove_files(current)]
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                os.chmod(name, 0o700, dir_fd=current)
                current = _move(current, name)
                names.append(name)
                pending.append(_remove_files(current))
            else:
                pending.pop()
                if names:
                    current = _move(current, "..")
                    os.rmdir(names.pop(), dir_fd=current)
    finally:
        os.close(current)


def _move(current: int, name: str) -> int:
    """The folder `name` of the open folder `current`, which is closed."""
    found = os.open(name, _FOLDER, dir_fd=current)
    os.close(current)
    return found


def _remove_files(folder: int) -> list[str]:
    """Remove files and empty folders; the names of the others."""
    return [name for name in os.listdir(folder) if not _removed(name, folder)]


def _removed(name: str, folder: int) -> bool:
    for remove in (os.unlink, os.rmdir):
        with contextlib.suppress(OSError):
            remove(name, dir_fd=folder)
            return True
    return False
