"""The fork server in which Python programs run: one warm interpreter, one fork a program.

The supervisor starts it shut in already (`confine.py`), in the interpreter that the programs use: any CPython from 3.9
on, so it uses the standard library alone. It never loads ctypes, lest a program could read and write the memory of its
own process. It hears requests on descriptor 3.
"""

from __future__ import annotations

import _imp
import _socket
import array
import builtins
import contextlib
import errno
import gc
import importlib
import io
import json
import linecache
import os
import re
import resource
import signal
import struct
import sys
import traceback
import types
from collections.abc import Iterable, Iterator
from typing import Any, NoReturn, cast

from starcoder.evaluation.jail import judge, strict
from starcoder.evaluation.jail.judge import Plan

CONTROL, CHANNEL = 3, 4
PRELOADED = """
    abc bisect cmath collections collections.abc copy dataclasses datetime decimal enum fractions functools
    hashlib heapq inspect itertools json math numbers operator random re statistics string textwrap time
    types typing unicodedata weakref
""".split()  # noqa: SIM905
ON_DEMAND = frozenset(
    """
    argparse array ast asyncio base64 binascii bz2 calendar cmd codecs colorsys concurrent configparser
    contextlib contextvars csv difflib dis doctest email fnmatch getpass glob graphlib gzip hmac html http
    importlib io ipaddress keyword locale logging lzma mimetypes multiprocessing os pathlib pickle
    pickletools platform pprint queue reprlib runpy sched secrets select selectors shelve shlex shutil
    signal socket sqlite3 stat struct subprocess symtable sys tempfile threading timeit token tokenize
    tomllib trace traceback unittest urllib uuid warnings xml zipfile zlib zoneinfo
    """.split()  # noqa: SIM905
)
"""Modules of the standard library that are loaded before a program which names them.

None has effects. Those below them that need ctypes are not loaded (`_unavailable`).
"""

_IMPORT = re.compile(r"^[ \t]*(?:import|from)[ \t]+([\w., \t]+)", re.MULTILINE)
_MOST_TESTS = 1000
_MOST_TRACE = 16384
_flush = io.TextIOWrapper.flush
_out, _err = cast(io.TextIOWrapper, sys.stdout), cast(io.TextIOWrapper, sys.stderr)


def main() -> None:
    """Serve until the supervisor closes the connection."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "starcoder"]:
        del sys.modules[name]  # programs must not find what runs them
    Server(_socket.socket(fileno=CONTROL)).run()


class Server:
    """What the fork server keeps from one program to the next.

    Args:
        control: the connection to the supervisor.
    """

    def __init__(self, control: _socket.socket) -> None:
        self._control = control
        self._loaded: set[str] = set()
        self._templates: dict[int, types.CodeType] = {}
        self._tests: dict[str, types.CodeType] = {}
        frozen: list[str] = getattr(_imp, "_frozen_module_names", list)()
        for name in (*sys.builtin_module_names, *(name for name in frozen if "hello" not in name), *PRELOADED):
            self._load(name)
        for name in ("create_builtin", "exec_builtin", "get_frozen_object", "init_frozen"):
            if hasattr(_imp, name):
                delattr(_imp, name)  # they load modules and byte code without asking the audit hook

    def run(self) -> None:
        """Fork one child a request until the supervisor closes the connection."""
        _out.reconfigure(errors="backslashreplace")
        _send(self._control, {"ready": list(sys.version_info[:3])})
        gc.disable()
        while message := _receive(self._control):
            request, descriptors = message
            plan = self._plan(request)
            gc.freeze()
            pid = os.fork()
            if pid == 0:
                self._control.detach()
                _play(request, descriptors, plan)
            for descriptor in descriptors:
                os.close(descriptor)
            _send(self._control, {"pid": pid})
            if not _receive(self._control):  # the supervisor is gone; otherwise it has seen the child's end
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                return
            _, status, usage = os.wait4(pid, 0)
            _send(self._control, {"status": status, "cpu": usage.ru_utime + usage.ru_stime})

    def _load(self, name: str) -> None:
        """Import a module that is trusted; what is missing, the program's own import will tell."""
        if name not in self._loaded and name not in judge.HIDDEN and not name.endswith(".__main__"):
            self._loaded.add(name)
            with contextlib.suppress(BaseException):
                importlib.import_module(name)

    def _load_named(self, source: str) -> None:
        """Import the modules of the standard library that a program names."""
        with _unavailable(judge.HIDDEN):
            for found in _IMPORT.finditer(source):
                for part in found[1].split(","):
                    name = part.split()[0] if part.strip() else ""
                    if name.partition(".")[0] in ON_DEMAND:
                        self._load(name)

    def _plan(self, request: dict[str, Any]) -> Plan:
        """What the child evaluates; everything trusted is loaded and compiled before it is forked."""
        for library in request["libraries"]:
            self._load(library)
        self._load_named(request["code"])
        self._load_named(request["tests"])
        space: dict[str, Any] = {"__builtins__": builtins.__dict__}
        arguments = (CHANNEL, request["entry_point"], space)
        if request["part"] == "candidate":
            return Plan(None, None, ((strict.serve, arguments),), space)
        guarded = request["part"] == "whole" and not request["libraries"]
        if guarded and "_ctypes" in sys.modules:
            return Plan(error="ctypes is loaded beside the verdict")
        calls = judge.restored(request["tests"]) if guarded else ()
        if request["part"] == "tests":
            calls = ((strict.install, arguments),)
        try:
            return Plan(self._template(len(calls)), self._compiled(request["tests"]), calls, space, guarded)
        except Exception as error:
            return Plan(error=f"the tests do not compile: {error!r}")

    def _template(self, number: int) -> types.CodeType:
        if number not in self._templates:
            self._templates[number] = judge.template(number)
        return self._templates[number]

    def _compiled(self, tests: str) -> types.CodeType:
        """The tests' code; the samples of a problem share it."""
        if tests not in self._tests:
            if len(self._tests) >= _MOST_TESTS:
                self._tests.clear()
            self._tests[tests] = compile(tests, "<tests>", "exec", dont_inherit=True)
        return self._tests[tests]


@contextlib.contextmanager
def _unavailable(names: Iterable[str]) -> Iterator[None]:
    """Meanwhile `names` cannot be imported, by no module either that is loaded; what is loaded already stays."""
    modules: dict[str, Any] = vars(sys)["modules"]
    absent = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(absent))
    try:
        yield
    finally:
        for name in absent:
            del modules[name]


def _send(control: _socket.socket, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    control.sendall(struct.pack("=I", len(data)) + data)


def _receive(control: _socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the descriptors that came with it; None at the end."""
    descriptors = array.array("i")
    head, ancillary, _, _ = control.recvmsg(4, 256)
    if len(head) < 4:
        return None
    for _, _, data in ancillary:
        descriptors.frombytes(data)
    size = struct.unpack("=I", head)[0]
    body = bytearray()
    while len(body) < size:
        piece = control.recv(min(size - len(body), 1 << 20))
        if not piece:
            return None
        body += piece
    return json.loads(body), list(descriptors)


def _play(request: dict[str, Any], descriptors: list[int], plan: Plan) -> NoReturn:
    """The child: settle, run its part, report, end."""
    end = os._exit
    try:
        _settle(request, descriptors, plan)
        os.write(judge.REPORT, judge.READY)
    except BaseException as error:
        os.write(judge.REPORT, repr(error).encode())
        end(1)
    try:
        code = compile(request["code"], "<candidate>", "exec", dont_inherit=True)
        if plan.template:
            expression = judge.judge(plan, code)
            if plan.guarded:
                sys.addaudithook(judge.guard())
            eval(expression, {"__builtins__": {}})
        else:
            os.read(judge.REPORT, judge.TOKEN_BYTES)
            plan.calls[0][0](code, *plan.calls[0][1])
        with contextlib.suppress(BaseException):
            _flush(_out)
        end(0)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            _report(_hint(error))
            _explain(error, request)
        end(1)


def _settle(request: dict[str, Any], descriptors: list[int], plan: Plan) -> None:
    """Give this process what is its own, and nothing else."""
    os.setsid()
    descriptors = [os.open("/dev/null", os.O_WRONLY), *descriptors]  # reading standard input is an error
    for target, descriptor in enumerate(descriptors):
        os.dup2(descriptor, target)
    os.closerange(len(descriptors), 256)
    os.umask(0o077)
    os.chdir(request["folder"])
    for name, soft, hard in request["limits"]:
        resource.setrlimit(getattr(resource, name), (soft, hard))
    sys.argv = [""]
    sys.modules["__main__"] = types.ModuleType("__main__")
    if plan.guarded:
        sys.path[:] = judge.standard_path()
        vars(sys.implementation)["cache_tag"] = None  # modules are compiled: byte code can be forged
    gc.enable()
    if plan.error:
        raise ValueError(plan.error)


def _report(message: dict[str, Any]) -> None:
    os.write(judge.REPORT, json.dumps(message).encode())


def _hint(error: BaseException) -> dict[str, Any]:
    """What a failure looks like from inside; a program that lies here only fails otherwise."""
    status, detail = getattr(type(error), "sandbox_status", "failed"), type(error).__name__
    if isinstance(error, SystemExit):
        status = "exited_early"
    elif isinstance(error, MemoryError):
        status = "out_of_memory"
    elif isinstance(error, OSError) and error.errno in (errno.EFBIG, errno.ENOSPC):
        status = "output_limit"
    with contextlib.suppress(BaseException):
        text = str(error)[:4000]
        detail += f": {text}" if text else ""
    return {"status": status, "detail": " ".join(detail.split())[:300], "refused": bool(judge.refusals)}


def _explain(error: BaseException, request: dict[str, Any]) -> None:
    """The traceback, on standard error, without the frames of the sandbox."""
    for name, source in (("<candidate>", request["code"]), ("<tests>", request["tests"])):
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename in ("<harness>", "<judge>", "<strict>"):
        trace = trace.tb_next
    _flush(_out)
    lines = traceback.format_exception(type(error), error, trace, limit=20)
    _err.write("".join(lines)[-_MOST_TRACE:])
    _flush(_err)
