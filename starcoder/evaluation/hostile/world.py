"""The machine that a hostile program attacks: what is planted there, and what must be found untouched afterwards."""

import ctypes
import os
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from starcoder.evaluation.program import Result

VARIABLE = "STARCODER_CANARY"
"""An environment variable of the harness that no program may read."""

_VICTIM = """
import signal, sys
signal.signal(signal.SIGURG, lambda *_: print("signal", flush=True))
print("ready", flush=True)
sys.stdin.read()
"""


class World:
    """What one hostile program finds: planted secrets, open doors, a process that belongs to somebody else.

    Nothing here is protected by permissions: files are open to all users, so that only the sandbox is between them
    and the program. A context manager: it removes what it planted, and what the program left behind.

    Attributes:
        mark: names the processes and files of the program, wherever they are.
        root: the folder outside the sandbox.
    """

    def __init__(self) -> None:
        self.mark = f"sc{secrets.token_hex(6)}"
        self.root = Path(tempfile.mkdtemp(prefix="starcoder-world-"))
        self._secrets = {"file": secrets.token_hex(16), "environ": secrets.token_hex(16), "argv": secrets.token_hex(16)}
        self._sockets: dict[str, socket.socket] = {}
        self._plant()
        self._before = self._files()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes():
            with suppress(OSError):
                os.kill(process, 9)
        if "victim" in self.__dict__:
            self.victim.kill()
            self.victim.communicate()
        for open_socket in self._sockets.values():
            open_socket.close()
        for path in self._leftovers():
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if (segment := self._shared_memory()) is not None:
            ctypes.CDLL(None).shmctl(segment, 0, None)
        shutil.rmtree(self.root, ignore_errors=True)

    def _plant(self) -> None:
        self.root.chmod(0o777)
        for name in ("diary", ".netrc", ".ssh/id_ed25519", ".cache/huggingface/token"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.parent.chmod(0o777)
            path.write_text(self._secrets["file"])
            path.chmod(0o666)
        for name, kind in (("PORT", socket.SOCK_STREAM), ("UDP_PORT", socket.SOCK_DGRAM)):
            self._listen(name, socket.socket(socket.AF_INET, kind), ("127.0.0.1", 0))
        for name, address in (("UNIX", f"{self.root}/door"), ("ABSTRACT", f"\0{self.mark}")):
            self._listen(name, socket.socket(socket.AF_UNIX), address)
        (self.root / "door").chmod(0o777)

    def _listen(self, name: str, door: socket.socket, address: tuple[str, int] | str) -> None:
        door.setblocking(False)
        door.bind(address)
        if door.type == socket.SOCK_STREAM:
            door.listen()
        self._sockets[name] = door

    @cached_property
    def victim(self) -> subprocess.Popen[str]:
        """A process of the same user with a secret in its environment and one on its command line."""
        process = subprocess.Popen(
            [sys.executable, "-ISc", _VICTIM, self._secrets["argv"]],
            env={VARIABLE: self._secrets["environ"]},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        os.set_blocking(process.stdout.fileno(), False)
        return process

    def facts(self, code: str) -> str:
        """Assignments of the facts that `code` names."""
        known: dict[str, Callable[[], object]] = {
            "MARK": lambda: self.mark,
            "OUTSIDE": lambda: str(self.root),
            "PORT": lambda: self._sockets["PORT"].getsockname()[1],
            "UDP_PORT": lambda: self._sockets["UDP_PORT"].getsockname()[1],
            "UNIX": self._sockets["UNIX"].getsockname,
            "ABSTRACT": lambda: f"\0{self.mark}",
            "VICTIM": lambda: self.victim.pid,
            "HARNESS": os.getpid,
            "KIT": lambda: str(Path(__file__)),
            "HOME": lambda: str(Path.home()),
            "KEY": lambda: self._key,
        }
        return "".join(f"{name} = {fact()!r}\n" for name, fact in known.items() if name in code or name == "MARK")

    @property
    def _key(self) -> int:
        return int(self.mark[2:9], 16)

    def damage(self, result: Result) -> list[str]:
        """What the program has read, changed or left, in words."""
        output = result.stdout + result.stderr
        canaries = [*self._secrets.values(), os.environ.get(VARIABLE) or self._secrets["file"]]
        found = [line.split(self.mark, 1)[1].strip() for line in output.splitlines() if f"{self.mark} reached" in line]
        found += ["it read a secret"] if any(secret in output for secret in canaries) else []
        found += [f"files outside changed: {', '.join(changed)}"] if (changed := self._changed()) else []
        found += [f"it got through to {name}" for name, door in self._sockets.items() if _called(door)]
        found += self._harm() if "victim" in self.__dict__ else []
        found += [f"it left {path}" for path in self._leftovers(output)]
        found += ["it left shared memory"] if self._shared_memory() is not None else []
        found += ["its processes live on"] if self._outlived() else []
        return found

    def _files(self) -> dict[str, tuple[object, ...]]:
        return {str(path.relative_to(self.root)): _state(path) for path in [self.root, *self.root.rglob("*")]}

    def _changed(self) -> list[str]:
        after = self._files()
        return sorted(name for name in self._before.keys() | after if self._before.get(name) != after.get(name))

    def _harm(self) -> list[str]:
        process = self.victim.pid
        if self.victim.poll() is not None:
            return ["it killed another process"]
        status = Path(f"/proc/{process}/status").read_text()
        harm = {
            "stopped": "\nState:\tT" in status or "\nState:\tt" in status,
            "traced": "\nTracerPid:\t0\n" not in status,
            "signalled": bool(self.victim.stdout and self.victim.stdout.readline()),
            "slowed down": os.getpriority(os.PRIO_PROCESS, process) != os.getpriority(os.PRIO_PROCESS, 0),
            "confined": os.sched_getaffinity(process) != os.sched_getaffinity(0),
            "limited": Path(f"/proc/{process}/limits").read_text() != Path("/proc/self/limits").read_text(),
        }
        return [f"it {word} another process" for word, done in harm.items() if done]

    def _processes(self) -> Iterator[int]:
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                names = (folder / "comm").read_bytes() + (folder / "cmdline").read_bytes()
                ended = (folder / "stat").read_text().rpartition(")")[2].split()[0] in "ZX"
                if self.mark.encode() in names and not ended:
                    yield int(folder.name)

    def _outlived(self, seconds: float = 0.5) -> bool:
        end = time.monotonic() + seconds  # what is being killed may take a moment to go
        while any(self._processes()):
            if time.monotonic() > end:
                return True
            time.sleep(0.02)
        return False

    def _leftovers(self, output: str = "") -> list[Path]:
        folders = [Path(name) for name in ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue")]
        said = [line.split(" in ", 1)[1] for line in output.splitlines() if line.startswith(f"{self.mark} in ")]
        return [path for folder in [*folders, *map(Path, said)] for path in folder.glob(f"{self.mark}*")]

    def _shared_memory(self) -> int | None:
        with suppress(OSError):
            for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]:
                key, segment = line.split()[:2]
                if int(key) == self._key:
                    return int(segment)
        return None


@contextmanager
def canary() -> Iterator[None]:
    """A secret in this process's environment; what it starts meanwhile, such as a sandbox, inherits it."""
    os.environ[VARIABLE] = secrets.token_hex(16)
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def _called(door: socket.socket) -> bool:
    try:
        if door.type == socket.SOCK_DGRAM:
            door.recv(1)
        else:
            door.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _state(path: Path) -> tuple[object, ...]:
    state = path.lstat()
    content = path.read_bytes() if stat.S_ISREG(state.st_mode) and os.access(path, os.R_OK) else b""
    attributes = os.listxattr(path, follow_symlinks=False)
    return state.st_mode, state.st_uid, state.st_nlink, state.st_size, state.st_mtime_ns, content, tuple(attributes)
