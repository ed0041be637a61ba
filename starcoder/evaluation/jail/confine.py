"""What a process gives up before it runs foreign code: user, capabilities, files, network, signals, system calls.

Linux only, by ctypes, without root. `Confinement.enter` is called in a forked child that executes something else next:
a process that has loaded ctypes could read and write its own memory, so the programs' own process never has.
"""

import ctypes
import os
import platform
import stat
import struct
from collections.abc import Iterable
from typing import NamedTuple

from starcoder.evaluation.jail import seccomp

_libc = ctypes.CDLL(None, use_errno=True)

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on all architectures
_PATH_BENEATH = 1
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_KEEPCAPS = 1, 22, 24, 8
_PR_SET_NO_NEW_PRIVS, _PR_SET_CHILD_SUBREAPER, _PR_CAP_AMBIENT = 38, 36, 47
_SECCOMP_MODE_FILTER = 2
CAP_DAC_READ_SEARCH = 2
_O_PATH = 0o10000000

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_MAKE_CHAR, _MAKE_BLOCK = 1 << 6, 1 << 11
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_ABI_1 = (1 << 13) - 1
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV

DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/ld.so.preload", "/etc/alternatives"),
    *("/etc/localtime", "/etc/timezone", "/etc/locale.alias", "/etc/ssl/openssl.cnf", "/etc/mime.types"),
    *("/etc/fonts", "/etc/matplotlibrc", "/etc/nsswitch.conf", "/etc/perl", "/etc/php", "/etc/mono", "/etc/R"),
)
"""What any program may read: the installed system without its configuration and its users."""


def landlock_abi() -> int:
    """The version of Landlock that the kernel offers; 0 when there is none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1)))


def holds(*numbers: int) -> bool:
    """Whether this process has all these capabilities."""
    with open("/proc/self/status") as file:  # noqa: PTH123
        effective = next(int(line.split()[1], 16) for line in file if line.startswith("CapEff:"))
    return all(effective >> number & 1 for number in numbers)


def become_subreaper() -> None:
    """Orphans among the descendants of this process become its children."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def reachable(path: str) -> bool:
    """Whether any user can walk to `path`: all folders above it, and it itself if it is one, let others pass."""
    real = os.path.realpath(path)
    while real != "/":
        mode = os.stat(real).st_mode  # noqa: PTH116 - pathlib would cost a third of the worker's start
        if not mode & (stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH):
            return False
        real = os.path.dirname(real)  # noqa: PTH120
    return True


def without(paths: Iterable[str], holes: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`paths` with the folders among them that hold any of `holes` replaced by their other entries, step by step.

    Returns:
        What may be read, and the folders that were replaced: of those the names may be listed.
    """
    readable, listed, pending = list[str](), list[str](), list(paths)
    real = {os.path.realpath(hole) for hole in holes}
    for path in pending:  # grows while it is walked
        place = os.path.realpath(path)
        if any(hole.startswith(f"{place.rstrip('/')}/") for hole in real):
            listed.append(path)
            pending += [entry.path for entry in os.scandir(path)]
        elif place not in real:
            readable.append(path)
    return tuple(readable), tuple(listed)


class Confinement(NamedTuple):
    """How far a process is shut in.

    Args:
        landlock: whether files, TCP and signals are restricted; `readable` and `writable` matter only then.
        seccomp: whether system calls are filtered.
        readable: files and folders that it may read and execute.
        writable: folders in which it may do anything.
        user: user and group that it becomes; None: it stays who it is, without capabilities.
        search: keep the one capability that reads what the user may not, within what Landlock allows.
        protect: its children must not signal it (a fork server).
        own_proc: whether it may read its own folder in /proc.
        listed: folders whose names, and those of the folders in them, it may list.
    """

    landlock: bool
    seccomp: bool
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    user: int | None = None
    search: bool = False
    protect: bool = False
    own_proc: bool = False
    listed: tuple[str, ...] = ()

    def enter(self) -> None:
        """Shut this process in, for good.

        Raises:
            OSError: when the kernel refuses a step.
        """
        self._drop_privileges()
        _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
        abi = landlock_abi() if self.landlock else 0
        if self.landlock:
            readable = (*self.readable, "/proc/self") if self.own_proc else self.readable
            _restrict_files(abi, readable, self.writable, self.listed)
        if self.seccomp:
            if not seccomp.supported():
                raise OSError(f"the system calls of {platform.machine()} are unknown here")
            same_user = self.user is None
            signals = abi >= 6 or not same_user
            protect = os.getpid() if self.protect else 0
            _filter_calls(seccomp.Filter(same_user, signals, protect, abi >= 3).program())

    def _drop_privileges(self) -> None:
        keep = 1 << CAP_DAC_READ_SEARCH if self.search else 0
        if self.user is not None:
            _check(_libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0), "prctl(PR_SET_KEEPCAPS)")
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
        for capability in range(64):
            if not keep >> capability & 1 and _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) < 0:
                break  # past the last one, or not ours to drop: then there are none
        if self.user is not None:
            os.setresuid(self.user, self.user, self.user)
        _set_capabilities(keep)
        if self.search:
            _check(_libc.prctl(_PR_CAP_AMBIENT, 2, CAP_DAC_READ_SEARCH, 0, 0), "prctl(PR_CAP_AMBIENT)")


def die_with_parent(parent: int) -> None:
    """The kernel kills this process when the thread that forked it ends; survives `exec`, not a change of user."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _set_capabilities(mask: int) -> None:
    """Permitted, effective and inheritable capabilities become `mask` (of those below 32), all others are lost."""
    header = struct.pack("=Ii", 0x20080522, 0)
    data = struct.pack("=6I", mask, mask, mask, 0, 0, 0)
    _check(_libc.capset(header, data), "capset")


def _restrict_files(abi: int, readable: Iterable[str], writable: Iterable[str], listed: Iterable[str]) -> None:
    if abi < 1:
        raise OSError("this kernel has no Landlock")
    files = _ABI_1 | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0) | (_IOCTL_DEV if abi >= 5 else 0)
    network, scopes = 3 if abi >= 4 else 0, 3 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", files, network, scopes)[: 24 if abi >= 6 else 16 if abi >= 4 else 8]
    size = ctypes.c_size_t(len(attributes))
    ruleset = _check(_libc.syscall(_CREATE_RULESET, attributes, size, 0), "landlock_create_ruleset")
    for path in readable:
        _allow(ruleset, path, _EXECUTE | _READ_FILE | _READ_DIR)
    for path in listed:
        _allow(ruleset, path, _READ_DIR)
    for path in DEVICES:
        _allow(ruleset, path, (_READ_FILE | _WRITE_FILE | _TRUNCATE) & files)
    for path in writable:
        _allow(ruleset, path, files & ~(_MAKE_CHAR | _MAKE_BLOCK | _IOCTL_DEV))
    _check(_libc.syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        file = os.open(path, _O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no permission
    if not stat.S_ISDIR(os.fstat(file).st_mode):
        rights &= _FILE_RIGHTS
    rule = struct.pack("=Qi", rights, file)
    _check(_libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule({path})")
    os.close(file)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _filter_calls(code: bytes) -> None:
    program = _Program(len(code) // 8, code)
    _check(_libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0), "prctl(PR_SET_SECCOMP)")
