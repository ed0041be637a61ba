"""A system call filter in seccomp's BPF, assembled by hand: what no benchmark program needs is refused with EPERM.

Landlock guards files and TCP; this guards what it does not know: sockets, tracing, name spaces, mounts, keys, kernel
modules and the other doors that open now and then. Standard library only: the supervisor loads it.
"""

import platform
import struct
from collections.abc import Iterable, Mapping

# (x86_64, aarch64); None where the architecture does not have the call.
_REFUSED: Mapping[str, tuple[int | None, int | None]] = {
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "kcmp": (312, 272),
    "get_robust_list": (274, 100),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "bpf": (321, 280),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    "inotify_add_watch": (254, 27),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "syslog": (103, 116),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "iopl": (172, None),
    "ioperm": (173, None),
    "modify_ldt": (154, None),
    "uselib": (134, None),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "shmdt": (67, 197),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "mq_notify": (244, 184),
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setgroups": (116, 159),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "capset": (126, 91),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "lookup_dcookie": (212, 18),
    "vhangup": (153, 58),
    "setsockopt": (54, 208),
    "setpriority": (141, 140),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
}

# Landlock does not guard owner, mode, times and attributes of files. A user of its own cannot change those of others;
# where the program runs as the user who started it, these calls do nothing and say that all went well.
_METADATA: Mapping[str, tuple[int | None, int | None]] = {
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
}

# Calls that are refused for some arguments.
_CLONE, _CLONE3, _SOCKETPAIR, _FCNTL, _IOCTL, _TRUNCATE = (56, 220), (435, 435), (53, 199), (72, 25), (16, 29), (76, 45)
_KILL, _TKILL, _TGKILL, _PIDFD_OPEN, _PIDFD_SEND = (62, 129), (200, 130), (234, 131), (434, 434), (424, 424)
_SIGQUEUE, _TGSIGQUEUE = (129, 138), (297, 240)
_PRLIMIT, _AFFINITY, _PRCTL = (302, 261), (203, 122), (157, 167)

# NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; and PARENT, which would make a child its parent's sibling.
_CLONE_FLAGS = 0x00020000 | 0x7E000000 | 0x00008000
_LAST_CALL = 456  # statmount and listmount follow: what is newer does not exist here

_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LD, _JEQ, _JGT, _JGE, _JSET, _RET, _AND = 0x20, 0x15, 0x25, 0x35, 0x45, 0x06, 0x54
_ALLOW, _KILL_PROCESS, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38
_U32 = 0xFFFFFFFF

Instruction = tuple[int, int, int, int]
Pair = tuple[int | None, int | None]


def supported() -> bool:
    """Whether this machine's system call numbers are known."""
    return platform.machine() in _ARCHITECTURES


class Filter:
    """Assembles one filter.

    Args:
        same_user: the program runs as the user who started it, so that owner, mode and times of files are protected.
        signals: whether it may signal processes; where Landlock cannot confine signals, it may signal its own group.
        protect: process id of the fork server, which its children may neither signal nor slow down; 0 for none.
        truncate: whether Landlock guards `truncate`.
    """

    def __init__(self, same_user: bool, signals: bool, protect: int, truncate: bool) -> None:
        self._column, architecture = _ARCHITECTURES[platform.machine()]
        self._code: list[Instruction] = [
            (_LD, 0, 0, 4),
            (_JEQ, 1, 0, architecture),
            (_RET, 0, 0, _KILL_PROCESS),
            (_LD, 0, 0, 0),
            (_JGT, 0, 1, _LAST_CALL),  # the calls of the x32 interface are among these
            (_RET, 0, 0, _ERRNO | _ENOSYS),
        ]
        for pair in _REFUSED.values():
            self._refuse(pair)
        self._refuse(_CLONE3, _ENOSYS)  # its flags lie in memory; libraries then try clone
        self._arguments(_CLONE, [(_LD, 0, 0, 16), (_JSET, 0, 1, _CLONE_FLAGS), (_RET, 0, 0, _ERRNO | _EPERM)])
        self._socketpair()
        self._unless_equal(_FCNTL, 1, (8, 10, 15, 1031))  # signals by another way; F_SETPIPE_SZ
        self._unless_equal(_PRCTL, 0, (4,))  # PR_SET_DUMPABLE would hide its files from the watch
        self._unless_equal(_IOCTL, 1, (0x5412, 0x541C, 0x8901, 0x8902))  # typing into a terminal; owners of signals
        if same_user:
            for pair in _METADATA.values():
                self._refuse(pair, 0)
        if not truncate:
            self._refuse(_TRUNCATE)
        self._signals(signals, protect)
        self._code.append((_RET, 0, 0, _ALLOW))

    def program(self) -> bytes:
        """The filter as an array of `struct sock_filter`."""
        return b"".join(struct.pack("=HBBI", *instruction) for instruction in self._code)

    def _refuse(self, pair: Pair, error: int = _EPERM) -> None:
        number = pair[self._column]
        if number is not None:
            self._code += [(_JEQ, 0, 1, number), (_RET, 0, 0, _ERRNO | error)]

    def _arguments(self, pair: Pair, body: list[Instruction]) -> None:
        """`body` looks at the arguments of a call; what it does not refuse is allowed."""
        number = pair[self._column]
        if number is not None:
            self._code += [(_JEQ, 0, len(body) + 1, number), *body, (_RET, 0, 0, _ALLOW)]

    def _unless_equal(self, pair: Pair, argument: int, values: Iterable[int]) -> None:
        body = [(_LD, 0, 0, 16 + 8 * argument)]
        for value in values:
            body += [(_JEQ, 0, 1, value & _U32), (_RET, 0, 0, _ERRNO | _EPERM)]
        self._arguments(pair, body)

    def _only_zero(self, pair: Pair, *arguments: int) -> None:
        body: list[Instruction] = []
        for argument in arguments:
            body += [(_LD, 0, 0, 16 + 8 * argument), (_JEQ, 1, 0, 0), (_RET, 0, 0, _ERRNO | _EPERM)]
        self._arguments(pair, body)

    def _socketpair(self) -> None:
        """Connected streams and packets among a program's own processes; a datagram socket could write to any path."""
        refuse = (_RET, 0, 0, _ERRNO | _EPERM)
        family = [(_LD, 0, 0, 16), (_JEQ, 1, 0, 1), refuse]
        kind = [(_LD, 0, 0, 24), (_AND, 0, 0, 0xF), (_JEQ, 2, 0, 1), (_JEQ, 1, 0, 5), refuse]
        self._arguments(_SOCKETPAIR, family + kind)

    def _signals(self, signals: bool, protect: int) -> None:
        if not signals:
            self._only_zero(_KILL, 0)
            for pair in (_TKILL, _TGKILL, _SIGQUEUE, _TGSIGQUEUE, _PIDFD_SEND):
                self._refuse(pair)
        elif protect:
            self._unless_equal(_KILL, 0, (protect, -protect, -1))
            for pair in (_TKILL, _TGKILL, _SIGQUEUE, _TGSIGQUEUE, _PIDFD_OPEN):
                self._unless_equal(pair, 0, (protect,))
        if protect:
            self._refuse(_PIDFD_SEND)
            for pair in (_PRLIMIT, _AFFINITY):
                self._only_zero(pair, 0)
