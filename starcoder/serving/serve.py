"""`starcoder serve`: a model behind OpenAI's interface, by vLLM where it is installed, by this kit otherwise."""

import asyncio
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import signature
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from starcoder.errors import UserError, needing
from starcoder.serving import vllm

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI
    from starlette.types import ASGIApp

    from starcoder.decoding import Decoding
    from starcoder.model import StarCoder
    from starcoder.serving.app import Settings
    from starcoder.serving.engine import Engine
    from starcoder.serving.prompts import Limits
    from starcoder.tokenizer import Tokenizer

_LONGEST_GRACE = 86_400.0
_SPARE_CONNECTIONS = 256
_OURS = (
    "queue",
    "max_prompt_tokens",
    "max_tokens",
    "max_body_bytes",
    "grace",
    "decoding",
)
"""Options that vLLM has nothing for; its server logs every request by itself."""


def serve(
    model: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    engine: Literal["auto", "kit", "vllm"] = "auto",
    name: str | None = None,
    dtype: Literal["float32", "bfloat16", "float16", "int8"] | None = None,
    rows: int = 32,
    queue: int = 256,
    max_prompt_tokens: int | None = None,
    max_tokens: int | None = None,
    max_body_bytes: int = 4_000_000,
    api_key_env: str | None = None,
    allow_origins: list[str] | None = None,
    grace: float = 30.0,
    decoding: Literal["auto", "eager", "graph", "compiled"] = "auto",
    access_log: bool = False,
) -> None:
    """Answer OpenAI's clients: /v1/completions, with `suffix` for infilling, /v1/models and /health.

    Args:
        model: folder of a model and its tokenizer, or a Hub repository.
        host: address to listen at; 0.0.0.0 is every one that this machine has.
        port: port to listen at; 0 takes a free one, which is printed.
        engine: vllm, kit, or auto: vllm where it is installed. vLLM refuses `suffix`: there, infilling prompts spell
            the sentinels, and options that it does not have are refused.
        name: what clients call the model; the last part of `model` when not given.
        dtype: what the weights are converted to; as stored when not given. int8 is this kit's, and for CPU.
        rows: completions that are written together, and the most that one request may ask for.
        queue: completions that may wait beyond these; more are turned away with 429. Not for vLLM, like all below but
            api_key_env, allow_origins and access_log.
        max_prompt_tokens: longest prompt; what leaves room for one token when not given.
        max_tokens: longest completion that a request may ask for; the model's context when not given.
        max_body_bytes: longest request.
        api_key_env: environment variable that holds the key which requests must bear; anybody may ask when not given.
        allow_origins: web pages whose scripts may ask, `*` for all; none when not given.
        grace: seconds that requests under way have left after the first Ctrl-C or SIGTERM; the second ends them.
        decoding: how a token is computed: eager, operation by operation; graph, as a CUDA graph; compiled by
            torch.compile, too, which takes half a minute for each number of rows; auto is graph on a GPU.
        access_log: print a line for every request.
    """
    options = dict(locals())
    defaults = {name: parameter.default for name, parameter in signature(serve).parameters.items()}
    wrong = {
        f"port is {port}, outside [0, 65535]": not 0 <= port <= 65535,
        f"rows is {rows}, below 1": rows < 1,
        f"queue is {queue}, below 0": queue < 0,
        f"max_prompt_tokens is {max_prompt_tokens}, below 1": max_prompt_tokens is not None and max_prompt_tokens < 1,
        f"max_tokens is {max_tokens}, below 1": max_tokens is not None and max_tokens < 1,
        f"max_body_bytes is {max_body_bytes}, below 1": max_body_bytes < 1,
        f"grace is {grace}, outside [0, {_LONGEST_GRACE:.0f}]": not 0 <= grace <= _LONGEST_GRACE,
    }
    if any(wrong.values()):
        raise UserError("serve: " + "; ".join(problem for problem, holds in wrong.items() if holds))
    key = _api_key(api_key_env)
    called = name or Path(model).resolve().name
    if engine == "vllm" or (engine == "auto" and vllm.is_installed()):
        if dtype == "int8":
            raise UserError("serve: int8 is this kit's own: choose another --dtype, or take --engine kit")
        vllm.check_options({name: options[name] for name in _OURS}, defaults)
        vllm.run(model, options | {"name": called}, key, allow_origins or ())
        return
    need_extra()
    with listen(host, port) as listener:
        network, tokenizer = load(model, dtype)
        from starcoder.serving.app import Settings

        limits = new_limits(network, tokenizer, rows, max_prompt_tokens, max_tokens)
        worker = new_engine(network, tokenizer, rows, queue, decoding)
        access = Access(max_body_bytes, key, tuple(allow_origins or ()), access_log)
        server = new_server(worker, tokenizer, Settings(called, limits), access, grace)
        with working(worker, grace):
            listener.listen()
            _announce(listener, called, open_to_all=key is None)
            server.run(sockets=[listener])


@dataclass(frozen=True)
class Access:
    """Who may ask, and how.

    Args:
        max_body_bytes: longest request.
        api_key: what a request must bear, if anything.
        allow_origins: web pages whose scripts may ask, `*` for all; none by default.
        log: whether a line is printed for every request.
        patience: seconds in which a body must arrive.
    """

    max_body_bytes: int
    api_key: str | None = None
    allow_origins: Sequence[str] = ()
    log: bool = False
    patience: float = 60.0


def new_limits(
    network: "StarCoder",
    tokenizer: "Tokenizer",
    rows: int,
    max_prompt_tokens: int | None = None,
    max_tokens: int | None = None,
) -> "Limits":
    """What a request may ask for: where nothing else is said, what the model's context has room for."""
    from starcoder.serving.prompts import Limits, longest_token

    context = network.config.context_length
    longest = min(max_prompt_tokens or context, context - 1)
    return Limits(context, longest, max_tokens or context, rows, longest_token(tokenizer))


def new_engine(
    network: "StarCoder", tokenizer: "Tokenizer", rows: int, queue: int, decoding: "Decoding" = "auto"
) -> "Engine":
    """An engine in which `network` writes what `tokenizer` can spell."""
    from starcoder.batch import Batch
    from starcoder.serving.engine import Engine

    return Engine(lambda: Batch(network, rows, tokenizer.vocab_size, decoding), rows, queue)


@contextmanager
def working(engine: "Engine", grace: float) -> Iterator[None]:
    """Let the engine work; at the end it has `grace` seconds to stop."""
    engine.start()
    try:
        yield
    finally:
        engine.stop()
        engine.join(grace)


def new_server(
    engine: "Engine",
    tokenizer: "Tokenizer",
    settings: "Settings",
    access: Access,
    grace: float,
    extend: "Callable[[FastAPI], None] | None" = None,
) -> "uvicorn.Server":
    """A server that ends, when it is asked to, with the requests under way.

    It waits for them `grace` seconds at most, and no longer when it is asked again; `extend` may add routes.
    """
    import uvicorn
    from starlette.middleware.cors import CORSMiddleware

    from starcoder.serving.app import create_app
    from starcoder.serving.connection import Connection
    from starcoder.serving.gate import Gate

    routes = create_app(engine, tokenizer, settings)
    if extend:
        extend(routes)
    gate = Gate(routes, access.max_body_bytes, access.api_key, access.patience)
    app: ASGIApp = gate
    if access.allow_origins:  # outermost, so that pages may read errors, too
        app = CORSMiddleware(gate, access.allow_origins, allow_methods=["*"], allow_headers=["*"])

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit and engine.state != "stopped":
                engine.stop()
            else:
                super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            engine.close()
            gate.close()
            asyncio.get_running_loop().call_later(grace, engine.stop)
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http=Connection,
        loop="asyncio",
        lifespan="off",
        log_level="warning",
        access_log=access.log,
        server_header=False,
        limit_concurrency=engine.rows + engine.queue + _SPARE_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(grace) + 5,
    )
    if access.log:
        logging.getLogger("uvicorn.access").setLevel(logging.INFO)
    return Server(config)


def listen(host: str, port: int) -> socket.socket:
    """A socket bound before the model is loaded: what is wrong with the address is known at once.

    Raises:
        UserError: when there is no such address here, or somebody else listens there.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise UserError(f"cannot listen at {host}, port {port}: {error.strerror}; choose --host and --port") from None
    return listener


def host_names(address: str) -> tuple[str, ...]:
    """Names of a server at an address that a browser may use, `*` for any.

    Where it is for this machine alone, a stranger's page whose name suddenly means this machine gets no further.
    """
    return ("localhost", "127.0.0.1", "[::1]", address) if ip_address(address).is_loopback else ("*",)


def _api_key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii():
        raise UserError(f"the environment variable {variable} holds no API key: set it, or leave out --api_key_env")
    return key


def need_extra() -> None:
    """Refuse, as a `UserError`, to serve without what serving needs."""
    with needing("serve"):
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401


def _announce(listener: socket.socket, name: str, open_to_all: bool) -> None:
    host, port = listener.getsockname()[:2]
    print(f"{name} at http://{f'[{host}]' if ':' in host else host}:{port}/v1; Ctrl-C ends it", flush=True)
    if open_to_all and not ip_address(host).is_loopback:
        print("whoever reaches this machine may use it: --api_key_env asks them for a key", file=sys.stderr)


def load(model: str, dtype: str | None) -> tuple["StarCoder", "Tokenizer"]:
    """The model and tokenizer of a folder or Hub repository, on the GPU if there is one.

    Raises:
        UserError: when there is none, or the two do not belong together.
    """
    import torch

    from starcoder import tokenizer as tokenizers
    from starcoder.generation import check_vocabulary
    from starcoder.model import StarCoder
    from starcoder.release.folder import local_folder

    folder = local_folder(model)
    tokenizer = tokenizers.load(folder)
    network = StarCoder.from_pretrained(folder, dtype=getattr(torch, dtype) if dtype else None)
    check_vocabulary(network, tokenizer)
    return network.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer
