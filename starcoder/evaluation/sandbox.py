"""Runs programs that nobody has read: shut in, within limits, with verdicts that they cannot forge.

    with Sandbox(workers=2) as sandbox:
        future = sandbox.submit(Program(code="def f(x): return x + 1", tests="assert f(1) == 2"))
        future.result().passed

Each worker is a process of its own (`jail/supervisor.py`) that runs one program after the other. It needs no Docker and
no root; where a machine lacks a protection, the sandbox says so instead of doing without.

A Python program cannot forge its verdict by ending early, printing, or patching what its tests name. The default mode
does not see through one that answers with objects of its own making, such as one that is equal to everything; that
patches what lies deeper in the modules; that reaches its tests' frames by names put together at run time, or without an
entry point; or that changes memory, by machine code (declared libraries) or by a bug of the interpreter, such as a
buffer used after it was freed. The strict mode sees through all of these: it needs an entry point, and a `reference` to
tell tests that pass more than plain values, whose programs it leaves to the default mode.

A program of another language is one with its tests: one that patches what they call, or reads its source and prints the
mark of its end, passes. C++'s `assert` and Bash's `set -e` are put back before the tests.

Where the kernel lends no mounts, there are no semaphores at level `landlock`: `multiprocessing` and its pools fail.
"""

import contextlib
import json
import queue
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from starcoder.errors import UserError
from starcoder.evaluation import isolation as levels
from starcoder.evaluation.isolation import Isolation
from starcoder.evaluation.languages import LANGUAGES, Toolchain
from starcoder.evaluation.program import Limits, Program, Result, Status

_ABOUT = """
import json, os, sys
venv = os.path.dirname(os.path.dirname(os.path.abspath(sys.executable)))
print(json.dumps([sys.version_info[:2], sys.prefix, sys.base_prefix, sys.exec_prefix, venv]))
"""
_PACKAGES = ("site-packages", "dist-packages")


class Sandbox:
    """A pool of workers.

    Args:
        workers: programs that run at the same time.
        isolation: the level; None for the strongest that this machine offers, at least `landlock`.
        strict: run the tests of Python programs outside the candidate's process, where they name an entry point and
            pass plain values; each result says whether it was so.
        python: interpreter that runs Python programs, such as that of another virtual environment: CPython from 3.9 on.

    Attributes:
        isolation: the level that holds.

    Raises:
        UserError: when the machine does not offer the level, or the interpreter does not work.
    """

    def __init__(
        self,
        workers: int = 2,
        isolation: Isolation | str | None = None,
        strict: bool = False,
        python: str | None = None,
    ) -> None:
        if workers < 1:
            raise UserError(f"a sandbox of {workers} workers runs nothing: give it one at least")
        self.isolation = levels.choose(isolation)
        self._strict = strict
        from starcoder.evaluation.jail.worker import Worker  # other systems have got their error by now

        interpreter = _interpreter(python or sys.executable)
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._workers: list[Worker] = []
        with contextlib.ExitStack() as stack:
            folder = self._scratch(stack)
            for number in range(workers):
                worker = Worker(str(self.isolation), *interpreter, f"{folder}/{number}", _toolchains())
                stack.callback(worker.close)
                self._workers.append(worker)
            for worker in self._workers:
                worker.wait_ready()
                self._idle.put(worker)
            self._pool = ThreadPoolExecutor(workers, thread_name_prefix="sandbox")
            self._stack = stack.pop_all()

    def _scratch(self, stack: contextlib.ExitStack) -> str:
        """A folder for the workers' folders; in a file tree of their own they need none of ours."""
        if self.isolation is Isolation.NAMESPACES:
            return "/tmp/starcoder-sandbox"
        folder = tempfile.mkdtemp(prefix="starcoder-sandbox-")
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        Path(folder).chmod(0o711)
        return folder

    def submit(self, program: Program) -> Future[Result]:
        """Run a program as soon as a worker is free.

        Raises:
            UserError: when no toolchain for its language is known or installed.
        """
        request = _request(program, self._strict)
        return self._pool.submit(self._run, request)

    def close(self, cancel: bool = False) -> None:
        """Wait for the programs that were submitted, or cancel them; end the workers."""
        if cancel:
            self._pool.shutdown(wait=False, cancel_futures=True)
            for worker in self._workers:
                worker.close()
        self._pool.shutdown()
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(cancel=kind is not None)

    def _run(self, request: Mapping[str, Any]) -> Result:
        worker = self._idle.get()
        try:
            answer = worker.ask(request)
        finally:
            self._idle.put(worker)
        return Result(**{**answer, "status": Status(answer["status"]), "isolation": str(self.isolation)})


def run(
    program: str | Program,
    language: str = "python",
    timeout: float = 3.0,
    memory: int = 1024,
    strict: bool = False,
    isolation: Isolation | str | None = None,
) -> Result:
    """Run one program in a sandbox of its own.

    Args:
        program: its text, or all about it; then `language`, `timeout` and `memory` are not used.
        language: `python`, or a key of `starcoder.evaluation.languages.LANGUAGES`.
        timeout: CPU seconds.
        memory: MB.
        strict: see `Sandbox`.
        isolation: see `Sandbox`.
    """
    if isinstance(program, str):
        program = Program(program, language=language, limits=Limits(timeout=timeout, memory_mb=memory))
    with Sandbox(1, isolation, strict) as sandbox:
        return sandbox.submit(program).result()


def _request(program: Program, strict: bool) -> dict[str, Any]:
    """What a worker is asked."""
    if program.limits.timeout <= 0:
        raise UserError(f"a timeout of {program.limits.timeout:g} s lets no program run: give it more")
    if program.language == "python":
        fields = asdict(program)
        return {"kind": "python", **fields, "strict": strict and program.entry_point is not None}
    if program.language not in LANGUAGES:
        raise UserError(f"language {program.language} is unknown: choose from {', '.join(['python', *LANGUAGES])}")
    return _command_request(program, LANGUAGES[program.language])


def _command_request(program: Program, toolchain: Toolchain) -> dict[str, Any]:
    left, right = secrets.token_hex(16), secrets.token_hex(16)
    tests = toolchain.with_end_marker(program.tests, left, right)
    steps = [
        {"argv": _absolute(toolchain.run, toolchain), "limits": asdict(program.limits), "memory": toolchain.memory}
    ]
    if toolchain.compile:
        command = _absolute(toolchain.compile, toolchain)
        steps.insert(0, {"argv": command, "limits": asdict(toolchain.compile_limits), "memory": toolchain.memory})
    return {
        "kind": "commands",
        "files": {toolchain.source: f"{program.code}\n{tests}"},
        "steps": steps,
        "environment": toolchain.environment,
        "readable": list(toolchain.readable),
        "marker": left + right,
    }


def _absolute(command: tuple[str, ...], toolchain: Toolchain) -> list[str]:
    """`command` with the path of its program, unless that lies in the working directory."""
    if "/" in command[0]:
        return list(command)
    found = shutil.which(command[0])
    if found is None:
        raise UserError(f"{toolchain.title} needs {command[0]}, which is not installed ({toolchain.package})")
    return [found, *command[1:]]


@cache
def _toolchains() -> tuple[str, ...]:
    """Folders of all toolchains that are installed."""
    return tuple(dict.fromkeys(path for toolchain in LANGUAGES.values() for path in toolchain.readable))


@cache
def _interpreter(python: str) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    """The interpreter's path, the folders that it reads, and those of them that hold packages."""
    path = shutil.which(python)
    command = [path or python, "-I", "-S", "-c", _ABOUT]
    try:
        told = subprocess.run(command, capture_output=True, check=True, text=True).stdout
        version, *prefixes = json.loads(told)
    except (OSError, subprocess.CalledProcessError, ValueError) as error:
        raise UserError(f"{python} runs no Python: name an interpreter, such as .venv/bin/python ({error})") from error
    if tuple(version) < (3, 9):
        raise UserError(f"{python} is Python {'.'.join(map(str, version))}: the sandbox needs 3.9 or later")
    real = Path(str(path)).resolve()
    folders = [str(path), *prefixes, str(real), str(real.parent.parent / "lib")]
    # Of these, one in which a user lives would be too much.
    readable = tuple(folder for folder in dict.fromkeys(folders) if Path(folder) not in (Path("/"), Path.home()))
    names = [f"lib/python{kind}/{name}" for kind in ("3", f"{version[0]}.{version[1]}") for name in _PACKAGES]
    packages = [f"{prefix}/{name}" for prefix in (*prefixes, "/usr", "/usr/local") for name in names]
    return str(path), readable, tuple(dict.fromkeys(packages))
