"""The strict mode: the candidate's function in one process, the tests that call it in another, plain values in between.

Whatever the candidate answers arrives as None, a number, text or a container of those, made anew by the process of the
tests: an object that is equal to everything, a patched module or a changed frame stay on their own side. The text runs
in the fork servers' interpreter (`harness.py`), on both sides of a connection.
"""

from __future__ import annotations

import array
import builtins
import contextlib
import datetime
import itertools
import json
import os
import struct
import sys
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

_MOST_BYTES = 64 << 20
_MOST_ITEMS = 100_000
_CONTAINERS: tuple[type, ...] = (list, dict, set, tuple, bytearray, deque, array.array)

# Exact types that travel as text, each with how it is written and read.
_TEXTS: dict[str, tuple[type, Callable[[Any], str], Callable[[str], Any]]] = {
    "bytes": (bytes, bytes.hex, bytes.fromhex),
    "bytearray": (bytearray, bytearray.hex, bytearray.fromhex),
    "Decimal": (Decimal, str, Decimal),
    "Fraction": (Fraction, str, Fraction),
    "datetime": (datetime.datetime, datetime.datetime.isoformat, datetime.datetime.fromisoformat),
    "date": (datetime.date, datetime.date.isoformat, datetime.date.fromisoformat),
    "time": (datetime.time, datetime.time.isoformat, datetime.time.fromisoformat),
}
_ITEMS: dict[str, tuple[type, Callable[[Any], Any]]] = {
    "tuple": (tuple, tuple.__iter__),
    "set": (set, set.__iter__),
    "frozenset": (frozenset, frozenset.__iter__),
}
_ITERATOR: type = type(iter([]))  # what `decode` makes of the candidate's iterators
_TEXT_BY_TYPE = {kind: (tag, write) for tag, (kind, write, _) in _TEXTS.items()}


class Gone(BaseException):
    """The candidate's process has ended: no test may catch it."""

    sandbox_status = "gone"


class CannotPass(BaseException):
    """The tests pass an argument that is no plain value, and the candidate has had no part in it yet."""

    sandbox_status = "cannot_pass"


class CannotPassOn(BaseException):
    """The same after an answer: it may be the candidate's doing."""

    sandbox_status = "failed"


class Broken(BaseException):
    """The candidate's process sends what is no message."""

    sandbox_status = "failed"


class Opaque:
    """Stands for an object that is no plain value; equal to nothing, itself included."""

    def __init__(self, name: str, truth: bool) -> None:
        self._name, self._truth = name, truth

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def __eq__(self, other: object) -> bool:
        return False

    def __bool__(self) -> bool:
        return self._truth

    __hash__ = object.__hash__


def encode(value: Any) -> Any:  # noqa: PLR0911 - one line a kind
    """What JSON can say of `value`: itself, or an object with one key, the kind of value."""
    kind = type(value)
    if value is None or kind in (bool, str, float):
        return value
    if kind is int:
        return value if value.bit_length() < 64 else {"int": format(value, "x")}
    if kind is list:
        return [encode(item) for item in value]
    if kind is dict:
        return {"dict": [[encode(key), encode(item)] for key, item in value.items()]}
    if kind in _TEXT_BY_TYPE:
        tag, write = _TEXT_BY_TYPE[kind]
        return {tag: write(value)}
    for tag, (exact, items) in _ITEMS.items():
        if issubclass(kind, exact):
            return {tag: [encode(item) for item in items(value)]}
    return _encode_rare(value, kind)


def _encode_rare(value: Any, kind: type) -> Any:  # noqa: PLR0911
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if value is ...:
        return {"ellipsis": 0}
    if issubclass(kind, deque):
        return {"deque": [encode([*deque.__iter__(value)]), value.maxlen]}
    if kind is array.array:
        return {"array": [value.typecode, encode(value.tolist())]}
    if kind is range:
        return {"range": [value.start, value.stop, value.step]}
    if kind is datetime.timedelta:
        return {"timedelta": [value.days, value.seconds, value.microseconds]}
    if isinstance(value, type) and getattr(builtins, kind_name := value.__name__, None) is value:
        return {"type": kind_name}
    for exact, reduce in _REDUCTIONS:
        if issubclass(kind, exact):
            return encode(reduce(value))
    if kind.__module__ == "numpy" and getattr(value, "shape", None) == ():
        return encode(value.item())
    if hasattr(kind, "__next__") or kind in (type({}.keys()), type({}.values()), type({}.items())):
        items = list(itertools.islice(value, _MOST_ITEMS + 1))
        if len(items) <= _MOST_ITEMS:
            return {"iterator": [encode(item) for item in items]}
    truth = True
    with contextlib.suppress(Exception):
        truth = bool(value)
    return {"opaque": [kind.__name__, truth]}


# Subclasses are reduced by the exact type's own method.
_REDUCTIONS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: int.__add__(value, 0)),
    (float, float.__pos__),
    (str, str.__str__),
    (list, lambda value: [*list.__iter__(value)]),
    (dict, lambda value: dict(dict.items(value))),
    (bytes, lambda value: b"".join([value, b""])),
)


def decode(message: Any) -> Any:
    """The plain value that `message` speaks of, made anew."""
    if isinstance(message, list):
        return [decode(item) for item in message]
    if not isinstance(message, dict):
        return message
    ((tag, content),) = message.items()
    if tag in _TEXTS:
        return _TEXTS[tag][2](content)
    if tag in _ITEMS:
        return _ITEMS[tag][0](decode(content))
    return _DECODERS[tag](content)


_DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda content: int(content, 16),
    "dict": lambda content: {decode(key): decode(item) for key, item in content},
    "complex": lambda content: complex(*content),
    "ellipsis": lambda content: ...,
    "deque": lambda content: deque(decode(content[0]), content[1]),
    "array": lambda content: array.array(content[0], decode(content[1])),
    "range": lambda content: range(*content),
    "timedelta": lambda content: datetime.timedelta(*content),
    "iterator": lambda content: iter(decode(content)),
    "opaque": lambda content: Opaque(str(content[0]), bool(content[1])),
    "type": lambda content: _builtin(content, type, object),
}


def _builtin(name: str, kind: type, default: Any) -> Any:
    found = getattr(builtins, name, None)
    return found if isinstance(found, kind) else default


def serve(code: Any, channel: int, entry_point: str, space: dict[str, Any]) -> None:
    """The candidate's side: run its code, then answer calls of its function until the tests end."""
    exec(code, space)
    if entry_point not in space:
        raise NameError(f"name {entry_point!r} is not defined")
    function, out = space[entry_point], sys.stdout
    _send(channel, {"ready": True})
    while call := _receive(channel):
        try:
            sent = decode(call["values"])
            values = [sent[place] for place in call["same"]]
            split = len(values) - len(call["names"])
            before = _mutable(values)
            answer = {"value": encode(function(*values[:split], **dict(zip(call["names"], values[split:]))))}  # noqa: B905
            after = _mutable(values)
            if after != before:
                answer["arguments"] = after
        except BaseException as error:
            answer = _encode_error(error)
        with contextlib.suppress(BaseException):
            out.flush()
        _send(channel, answer)


def _mutable(values: list[Any]) -> list[Any]:
    """Encoded arguments that a call may change."""
    return [encode(value) if type(value) in _CONTAINERS else None for value in values]


def _encode_error(error: BaseException) -> dict[str, Any]:
    """An exception by the name of the nearest builtin one, with its arguments."""
    kind = next(base for base in type(error).__mro__ if getattr(builtins, base.__name__, None) is base)
    arguments: list[Any] = []
    with contextlib.suppress(Exception):
        arguments = encode(list(error.args))
    return {"error": kind.__name__, "arguments": arguments}


def install(channel: int, entry_point: str, space: dict[str, Any]) -> None:
    """The tests' side: put a function into `space` that asks the candidate's process."""
    if _receive(channel) is None:
        raise Gone

    answers = 0

    def function(*arguments: Any, **named: Any) -> Any:
        nonlocal answers
        values = [*arguments, *named.values()]
        same = [next(place for place, other in enumerate(values) if other is value) for value in values]
        try:
            call = {"values": _passed(values), "same": same, "names": list(named)}
        except CannotPass as error:
            raise CannotPassOn(*error.args) if answers else error from None
        _send(channel, call)
        answer = _receive(channel)
        if answer is None:
            raise Gone
        answers += 1
        try:
            if "error" in answer:
                raised = _error(answer)
            else:
                raised, value = None, decode(answer["value"])
                for old, new in zip(values, answer.get("arguments", ())):  # noqa: B905 - CPython 3.9
                    if new is not None:
                        _update(old, decode(new))
        except Exception as error:
            raise Broken(f"the candidate's process sends what is no answer: {error}") from error
        if raised:
            raise raised
        return value

    function.__name__ = function.__qualname__ = entry_point
    space[entry_point] = function


def _passed(value: Any) -> Any:
    """`value` encoded, if it is plain throughout.

    Raises:
        CannotPass: when the tests pass anything else.
        TypeError: when they pass on an object of the candidate's that is not plain.
    """
    encoded = encode(value)
    if '"opaque":' in json.dumps(encoded):
        _refuse(value)
    return encoded


def _refuse(value: Any) -> NoReturn:
    """Say which argument cannot be passed, and whose fault it is."""
    pending = [value]
    for item in pending:
        if isinstance(item, (Opaque, _ITERATOR)):
            raise TypeError(f"{item!r} is no plain value")
        pending += [*item.keys(), *item.values()] if isinstance(item, dict) else ()
        pending += item if isinstance(item, (list, tuple, set, frozenset, deque)) else ()
    kinds = {name for item in pending if (name := type(item).__name__) not in dir(builtins)} or {"function"}
    raise CannotPass(f"the strict mode cannot pass an argument of type {', '.join(sorted(kinds))}")


def _error(answer: dict[str, Any]) -> BaseException:
    kind: type[BaseException] = _builtin(answer["error"], type, Exception)
    kind = kind if issubclass(kind, BaseException) else Exception
    arguments = decode(answer["arguments"])
    if issubclass(kind, (StopIteration, StopAsyncIteration, GeneratorExit)):
        kind = RuntimeError  # it would end a loop of the tests without a word
    try:
        return kind(*arguments)
    except Exception:
        return Exception(*arguments)


def _update(old: Any, new: Any) -> Any:
    """Give the container `old` the contents of `new`, the same objects where they stay what they are."""
    if type(old) is not type(new) or type(old) not in _CONTAINERS:
        return new
    if isinstance(old, dict):
        merged = {key: _update(old.get(key), item) for key, item in new.items()}
        old.clear()
        old.update(merged)
    elif isinstance(old, set):
        old.clear()
        old.update(new)
    elif isinstance(old, tuple):
        if len(old) == len(new):
            return type(old)(map(_update, old, new))
        return new
    elif len(old) == len(new) and isinstance(old, list):
        old[:] = map(_update, old, new)
    elif isinstance(old, deque):
        old.clear()
        old.extend(new)
    else:
        old[:] = new
    return old


def _send(channel: int, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    data = struct.pack("=I", len(data)) + data
    try:
        while data:
            data = data[os.write(channel, data) :]
    except OSError as error:
        raise Gone from error


def _receive(channel: int) -> dict[str, Any] | None:
    """The next message; None when the other process has ended."""
    head = _exactly(channel, 4)
    if head is None:
        return None
    size = struct.unpack("=I", head)[0]
    if size > _MOST_BYTES:
        raise Broken(f"a message of {size} bytes")
    body = _exactly(channel, size)
    if body is None:
        return None
    try:
        return dict(json.loads(body))
    except (ValueError, TypeError, RecursionError) as error:
        raise Broken("the candidate's process sends what is no message") from error


def _exactly(channel: int, size: int) -> bytes | None:
    data = bytearray()
    while len(data) < size:
        try:
            piece = os.read(channel, min(size - len(data), 1 << 20))
        except ConnectionError:
            return None
        if not piece:
            return None
        data += piece
    return bytes(data)
