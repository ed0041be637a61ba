"""Processes of the kit that start at once: forked from one that has imported what takes seconds, torch above all.

    this process ──> the nursery ──fork──> a keeper ──fork──> the process
          <──────── its id, then its exit code ────┘

What is forked has its own session, folder, environment and output, runs to its end as `python -c` would, and can be
killed. What a library reads from the environment as it is imported is the nursery's: for that, and to see that
nothing is missing at a start, there is `tests.conftest.start`.
"""

import atexit
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn, Self

ROOT = Path(__file__).parents[1]
MODULES = (
    "starcoder.corpus.build",
    "starcoder.corpus.inspect",
    "starcoder.evaluation.evaluate",
    "starcoder.generation",
    "starcoder.release.export",
    "starcoder.smoke.report",
    "starcoder.smoke.run",
    "starcoder.training.fit",
    "starcoder.training.shards",
)
COMMAND_LINE = "from starcoder.cli import main; main()"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
"""One thread, as it shares the machine with pytest, and no progress bars."""


class Process:
    """What tests use of `subprocess.Popen`, for a process that is not this one's child."""

    def __init__(self, channel: socket.socket, stdout: IO[str], stderr: IO[str]) -> None:
        self.stdout, self.stderr = stdout, stderr
        self.returncode: int | None = None
        self._told = channel.makefile()
        self.pid = int(self._told.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()
        self.stderr.close()
        self.wait()

    def poll(self) -> int | None:
        """The exit code, None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code; the negative number of the signal that ended it."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            self.returncode = int(self._told.readline())
            self._told.close()
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Read to the end what it writes on stdout and stderr, and wait for its end."""
        texts = ["", ""]

        def read(place: int, file: IO[str]) -> None:
            texts[place] = file.read()

        readers = [
            threading.Thread(target=read, args=each, daemon=True) for each in enumerate((self.stdout, self.stderr))
        ]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(timeout)
            if reader.is_alive():  # a child of its own has the pipe, and lives on
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        return texts[0], texts[1]

    def send_signal(self, number: int) -> None:
        """Send it the signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


def start(folder: Path, *args: str) -> Process:
    """Start the command line in `folder`."""
    return begin(COMMAND_LINE, *args, folder=folder)


def run(program: str, *args: object, timeout: float = 180) -> str:
    """Run a program to its end, which must be a good one; what it wrote on stdout."""
    result = end(begin(program, *args), timeout)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout


def run_module(name: str, *args: object, timeout: float = 180) -> str:
    """The same for a module, as `python -m` runs it."""
    return run(f"import runpy; runpy.run_module({name!r}, run_name='__main__')", *args, timeout=timeout)


def end(started: "Process | subprocess.Popen[str]", timeout: float) -> subprocess.CompletedProcess[str]:
    """Wait for the end of a process that leads a session of its own, and end what it has started, too."""
    with started as process:
        try:
            out, errors = process.communicate(timeout=timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    return subprocess.CompletedProcess([str(process.pid)], process.returncode or 0, out, errors)


def begin(program: str, *args: object, folder: Path = ROOT) -> Process:
    """Start `python -c program args` in `folder`, with its `home`, if there is one, as HOME."""
    environment = os.environ | ENVIRONMENT
    environment.pop("MPLCONFIGDIR", None)
    if (folder / "home").is_dir():
        environment["HOME"] = str(folder / "home")
    ours, theirs = socket.socketpair()
    out, err = os.pipe(), os.pipe()
    passed = (theirs.fileno(), out[1], err[1])
    socket.send_fds(_nursery(), [b"!"], passed)
    for file in (out[1], err[1]):
        os.close(file)
    theirs.close()
    request = {"program": program, "args": [*map(str, args)], "folder": str(folder), "environment": environment}
    ours.sendall(json.dumps(request).encode() + b"\n")
    with ours:
        return Process(ours, os.fdopen(out[0]), os.fdopen(err[0]))


@cache
def _nursery() -> socket.socket:
    """Start the process from which the others are forked; it ends with this one."""
    ours, theirs = socket.socketpair()
    program = "import sys; from tests.nursery import serve; serve(int(sys.argv[1]))"
    nursery = subprocess.Popen(
        [sys.executable, "-c", program, str(theirs.fileno())],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()
    atexit.register(lambda: (nursery.kill(), nursery.wait()))
    return ours


def serve(channel: int) -> None:
    """Fork what is asked for, until nobody is left to ask."""
    for module in MODULES:
        import_module(module)
    gc.freeze()  # what is there now is shared, and not to be written on
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's jobs in the background ignore Ctrl-C
    keepers = set[int]()
    with socket.socket(fileno=channel) as asked:
        while True:
            message, files, _, _ = socket.recv_fds(asked, 1, 3)
            if not message:
                sys.exit()
            keepers = {keeper for keeper in keepers if os.waitpid(keeper, os.WNOHANG) == (0, 0)}
            if (keeper := os.fork()) == 0:
                asked.close()
                _keep(*files)
            keepers.add(keeper)
            for file in files:
                os.close(file)


def _keep(channel: int, out: int, err: int) -> NoReturn:
    """Fork the process, and tell its id and its end."""
    with socket.socket(fileno=channel) as ours, ours.makefile("rw") as told:
        request = json.loads(told.readline())
        if child := os.fork():
            os.close(out)
            os.close(err)
            print(child, file=told, flush=True)
            last = os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
            assert last is not None
            with contextlib.suppress(ConnectionError):  # nobody waits any more
                print(last.si_status if last.si_code == os.CLD_EXITED else -last.si_status, file=told, flush=True)
                told.readline()  # until its end is known nobody gets its id
            os.waitpid(child, 0)
            os._exit(0)
    os.setsid()
    for number, file in ((1, out), (2, err)):
        os.dup2(file, number)
        os.close(file)
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.argv = ["-c", *request["args"]]
    _live(request["program"])


def _live(program: str) -> NoReturn:
    """Run the program, and end as an interpreter does, but without the second that taking down all modules takes."""
    code, interrupted = 0, False
    try:
        exec(program, {"__name__": "__main__"})
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        if not isinstance(stop.code, int | None):
            print(stop.code, file=sys.stderr)
    except BaseException as error:
        code, interrupted = 1, isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)
