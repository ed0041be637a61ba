"""The verdict on a Python program, which is a secret that only the end of its tests can tell.

In the program's process the supervisor's 32 random bytes are read, then the candidate is run, then the tests, then the
bytes are sent back: one expression, whose operands all lie on the evaluation stack or are constants of the code object.
No variable, attribute or module that the candidate can reach takes part in it, and the only way to the last call leads
through the end of the tests. What could look at the stack (tracing, the collector's lists, byte code made by hand,
machine code, ctypes) is refused by an audit hook.

The tests run in a copy of the candidate's namespace, with fresh builtins, and find the modules that they name as they
were: their contents, their classes' attributes, the generator behind `random`. What lies deeper, such as a table that a
function looks up or a module that only another one uses, stays as the candidate left it. What the tests call runs the
candidate's code still, gives them objects of its making, and may reach their namespace by walking frames: only the
strict mode sees through that.

The text runs in the fork servers' interpreter (`harness.py`): CPython 3.9 or later, standard library alone.
"""

from __future__ import annotations

import builtins
import contextlib
import os
import re
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

REPORT, TOKEN_BYTES, READY = 3, 32, b"+"

_EXPRESSION = f"""'@write'({REPORT}, (
    '@read'({REPORT}, {TOKEN_BYTES}),
    '@exec'('@code', '@space'),
    (%s),
    '@exec'('@tests', {{
        **'@dict'('@zip'('@map'('@exact', '@space'), '@values'())),
        '__builtins__': '@dict'('@builtins'),
    }}),
)[0])"""
# The strings with an @ are constants for which `judge` puts objects. The copy of the namespace has exact strings as
# keys, as a subclass of str could act when it is compared. No iterator runs code of the candidate: its StopIteration
# would pass for the end.

_GROUP = 16
_HEAP_TYPE = 1 << 9
_BUILTINS = tuple(builtins.__dict__.items())
_STANDARD = os.__file__.rpartition("/")[0]
_STANDARD_NAMES = frozenset(getattr(sys, "stdlib_module_names", ()))
_STATEFUL = frozenset(("threading", "sys", "signal", "logging", "warnings", "__main__"))
_set_kind: Callable[..., None] = object.__dict__["__class__"].__set__
_attributes: Callable[[type], Any] = type.__dict__["__dict__"].__get__
_WORD = re.compile(r"[^\W\d]\w*")
HIDDEN = frozenset(
    [
        "_testcapi",
        "_testinternalcapi",
        "_testlimitedcapi",
        "_testbuffer",
        "_testclinic",
        "_xxtestfuzz",
        "_ctypes",
        "_ctypes_test",
        "_tkinter",
        "_xxsubinterpreters",
        "_xxinterpchannels",
        "_interpreters",
        "_interpchannels",
        "_interpqueues",
    ]
)
"""Modules by which a program could reach its own memory, load machine code, or leave the audit hook behind."""

_REFUSED = frozenset(
    [
        "sys.settrace",
        "sys.setprofile",
        "sys.monitoring.register_callback",
        "sys._current_frames",
        "sys._current_exceptions",
        "gc.get_objects",
        "gc.get_referrers",
        "gc.get_referents",
        "code.__new__",
        "marshal.load",
        "marshal.loads",
        "sqlite3.enable_load_extension",
        "sqlite3.load_extension",
        "cpython.PyInterpreterState_New",
    ]
)

_NAMING = frozenset(["open", "os.symlink", "os.putenv"])
_REFUSED_NAMES: frozenset[str | bytes] = frozenset(
    [
        *("mem", b"mem"),  # /proc/self/mem, where no Landlock is before it
        *(b"GCONV_PATH", b"LOCPATH", b"OPENSSL_CONF", b"OPENSSL_MODULES", b"OPENSSL_ENGINES"),
    ]
)
"""Last parts of paths, and variables, that these events must not name first: this process's memory, and what lets the C
libraries load machine code."""

Call = tuple[Callable[..., Any], tuple[Any, ...]]
Calls = tuple[Call, ...]
refusals: list[str] = []
"""What the audit hook has refused in this process."""


class Plan(NamedTuple):
    """What a program's process evaluates.

    Args:
        template: the expression, with places for the calls; None for the candidate of the strict mode.
        tests: the tests' code.
        calls: what is called between candidate and tests, functions and arguments.
        space: the namespace.
        guarded: whether the audit hook protects the verdict.
        error: why nothing can be evaluated.
    """

    template: types.CodeType | None = None
    tests: types.CodeType | None = None
    calls: Calls = ()
    space: dict[str, Any] = {}  # noqa: RUF012 - nobody writes to this one
    guarded: bool = False
    error: str = ""


def template(number: int) -> types.CodeType:
    """The expression that decides, with `number` calls between candidate and tests."""
    calls = [f"'@f{index}'(*'@a{index}')" for index in range(number)]
    # In groups: the compiler makes a list of a long tuple, and in a list the bytes would be no secret.
    groups = "".join(f"({', '.join(calls[start : start + _GROUP])},)," for start in range(0, number, _GROUP))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # strings are called: they will be functions
        return compile(_EXPRESSION % groups, "<judge>", "eval")


def judge(plan: Plan, code: types.CodeType) -> types.CodeType:
    """The expression for a candidate; as its constants are objects, nothing is looked up while the candidate runs."""
    assert plan.template is not None
    constants: dict[str, Any] = {
        **{"@write": os.write, "@read": os.read, "@exec": exec, "@dict": dict, "@zip": zip, "@map": map},
        **{"@exact": str.__str__, "@values": plan.space.values, "@space": plan.space, "@builtins": _BUILTINS},
        **{"@code": code, "@tests": plan.tests},
    }
    for index, (function, arguments) in enumerate(plan.calls):
        constants[f"@f{index}"], constants[f"@a{index}"] = function, arguments
    known = plan.template.co_consts
    replaced = tuple(constants.get(constant, constant) if isinstance(constant, str) else constant for constant in known)
    return plan.template.replace(co_consts=replaced)


def restored(tests: str) -> Calls:
    """Calls that put back what the tests name and a candidate may change: modules, classes, how both are found."""
    words = set(_WORD.findall(tests)) - _STATEFUL
    chosen = [name for name in sys.modules if name.partition(".")[0] in words]
    calls: list[Call] = [(dict.update, (sys.modules, tuple((name, sys.modules[name]) for name in chosen)))]
    for name in chosen:
        if not isinstance(sys.modules[name], types.ModuleType):
            continue  # a class, such as typing.io
        space = vars(sys.modules[name])
        calls += [*_restored_kind(sys.modules[name]), *_restored_space(space)]
        for value in list(space.values()):
            if isinstance(value, type) and value.__module__ == name and value.__flags__ & _HEAP_TYPE:
                calls += _restored_class(value)
        for owner in {id(owner): owner for owner in _owners(space)}.values():
            calls += [*_restored_kind(owner), *_restored_space(vars(owner))]
    return (*calls, *_restored_imports())


def _restored_space(space: dict[str, Any]) -> Calls:
    return (dict.clear, (space,)), (dict.update, (space, tuple(space.items())))


def _restored_kind(thing: object) -> Iterator[Call]:
    with contextlib.suppress(TypeError):  # what cannot be set cannot be changed
        _set_kind(thing, type(thing))
        yield _set_kind, (thing, type(thing))


def _restored_class(kind: type) -> Iterator[Call]:
    yield from _restored_kind(kind)
    yield _forget, (kind, frozenset(vars(kind)), _attributes, type.__delattr__)
    for name, value in (*vars(kind).items(), ("__bases__", kind.__bases__)):
        with contextlib.suppress(TypeError, AttributeError):
            type.__setattr__(kind, name, value)
            yield type.__setattr__, (kind, name, value)


def _forget(kind: type, known: frozenset[str], attributes: Callable[[type], Any], delete: Callable[..., None]) -> None:
    """Remove the attributes that were added to a class; as in the audit hook, nothing is looked up."""
    for name in (*attributes(kind),):
        if name not in known:
            delete(kind, name)


def _owners(space: dict[str, Any]) -> Iterator[object]:
    """The objects whose methods pass for functions of a module, such as the generator behind `random`."""
    for value in space.values():
        owner = value.__self__ if isinstance(value, types.MethodType) else None
        if type(owner).__module__ == space.get("__name__") and isinstance(getattr(owner, "__dict__", None), dict):
            yield owner


def _restored_imports() -> Calls:
    """Calls that put back how modules are found."""
    lists: dict[str, list[Any]] = {"meta_path": sys.meta_path, "path_hooks": sys.path_hooks, "path": sys.path}
    contents = {**lists, "path": standard_path()}
    cleared: list[Call] = [(list.clear, (found,)) for found in lists.values()]
    filled: list[Call] = [(list.extend, (found, tuple(contents[name]))) for name, found in lists.items()]
    return (*cleared, *filled, (dict.update, (sys.__dict__, tuple(lists.items()))))


def standard_path() -> list[str]:
    """Where the modules of the standard library are, and no others."""
    return [path for path in sys.path if path.startswith(_STANDARD) and "-packages" not in path]


def guard() -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that refuses what could reach the evaluation stack or the memory of this process."""

    # Default arguments, as a candidate can change the builtins and, through a traceback, this module's globals.
    def hook(
        event: str,
        args: tuple[Any, ...],
        refused: frozenset[str] = _REFUSED,
        hidden: frozenset[str] = HIDDEN,
        folder: str = f"{_STANDARD}/lib-dynload/",
        names: frozenset[str] = _STANDARD_NAMES,
        naming: frozenset[str] = _NAMING,
        refused_names: frozenset[str | bytes] = _REFUSED_NAMES,
        note: Callable[[str], None] = refusals.append,
        text: type[str] = str,
        kind: type[type] = type,
        data: type[bytes] = bytes,
        number: type[int] = int,
        denied: type[Exception] = PermissionError,
        missing: type[Exception] = ImportError,
    ) -> None:
        if event == "import":
            if args[1] is None:
                if text.partition(args[0], ".")[0] not in names:
                    note(event)  # it will not be found here, but where the tests are out of reach
                return
            start, _, file = text.rpartition(args[1], "/")
            if text.__add__(start, "/") != folder or text.partition(file, ".")[0] in hidden:
                note(event)
                raise missing("modules in machine code are not loaded beside the verdict: declare the library")
            return
        bad = event in refused or text.startswith(event, "ctypes.")
        if event in naming:
            first = args[0]
            if kind(first) is data:
                bad = data.rpartition(first, b"/")[2] in refused_names
            elif kind(first) is not number:  # that of an open file
                bad = text.rpartition(first, "/")[2] in refused_names
        if bad or (event == "object.__setattr__" and args[1] == "__code__"):
            note(event)
            raise denied("not available in the sandbox: " + event)

    return hook
