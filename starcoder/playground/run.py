"""`starcoder playground`: the page, its model and its index, on this machine."""

import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from starcoder.errors import UserError, needing
from starcoder.serving.serve import (
    Access,
    host_names,
    listen,
    load,
    need_extra,
    new_engine,
    new_limits,
    new_server,
    working,
)

if TYPE_CHECKING:
    import socket

    from fastapi import FastAPI

    from starcoder.playground.app import Traces
    from starcoder.serving.app import Settings

_QUEUE = 64
_BODY_BYTES = 16_000_000
_GRACE = 2.0


def playground(
    model: str,
    index: Path | None = None,
    opt_out: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
    name: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None,
    rows: int = 4,
) -> None:
    """Serve a page in which a model completes and infills, and which shows where a text comes from.

    Args:
        model: folder of a model and its tokenizer, or a Hub repository.
        index: folder of an index of its corpus, to trace texts; without one the page only writes.
        opt_out: a list of owners and repositories; sources that are on it are marked.
        host: address to listen at; only programs on this machine reach the default.
        port: port to listen at; 0 takes a free one, which is printed.
        name: what the page calls the model; the last part of `model` when not given.
        dtype: what the weights are converted to; as stored when not given. int8 is for CPU.
        rows: completions that are written together.
    """
    wrong = {
        f"port is {port}, outside [0, 65535]": not 0 <= port <= 65535,
        f"rows is {rows}, below 1": rows < 1,
        "opt_out marks what is traced: give an index, too": opt_out is not None and index is None,
    }
    if any(wrong.values()):
        raise UserError("playground: " + "; ".join(problem for problem, holds in wrong.items() if holds))
    need_extra()
    from starcoder.serving.app import Settings

    with listen(host, port) as listener:
        tracer = _open(index, opt_out) if index else None
        network, tokenizer = load(model, dtype)
        limits = new_limits(network, tokenizer, rows)
        settings = Settings(name or Path(model).resolve().name, limits)
        engine = new_engine(network, tokenizer, rows, _QUEUE)
        address = listener.getsockname()[0]
        pages = extension(settings, address, tracer)
        server = new_server(engine, tokenizer, settings, Access(_BODY_BYTES), _GRACE, pages)
        with working(engine, _GRACE):
            listener.listen()
            _announce(listener)
            server.run(sockets=[listener])


def _open(index: Path, opt_out: Path | None) -> "Traces":
    with needing("attribution,corpus"):
        from starcoder.playground.tracing import IndexTraces

    return IndexTraces(index, opt_out)


def extension(settings: "Settings", address: str, tracer: "Traces | None") -> "Callable[[FastAPI], None]":
    """What adds the page to the routes of a server that listens at an address."""
    from starcoder.playground.app import Facts, add_playground

    limits = settings.limits
    longest = min(limits.max_tokens, limits.context_length - 1)
    facts = Facts(settings.name, limits.context_length, longest, tracer is not None)
    return lambda routes: add_playground(routes, facts, host_names(address), tracer)


def _announce(listener: "socket.socket") -> None:
    host, port = listener.getsockname()[:2]
    print(f"playground at http://{f'[{host}]' if ':' in host else host}:{port}/; Ctrl-C ends it", flush=True)
    if not ip_address(host).is_loopback:
        print("whoever reaches this machine may use it", file=sys.stderr)
