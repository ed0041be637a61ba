"""A small model with random weights behind a real server on this machine."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Semaphore, Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvicorn
from openai import OpenAI

from starcoder import tokenizer as tokenizers
from starcoder.batch import Batch
from starcoder.model import StarCoder, StarCoderConfig
from starcoder.release.folder import save
from starcoder.serving.app import Settings
from starcoder.serving.engine import Engine
from starcoder.serving.prompts import Limits
from starcoder.serving.serve import Access, listen, new_server
from starcoder.tokenizer import Tokenizer

CODE = "def add(a, b):\n    return a + b\n\n\nclass Adder:\n    def __call__(self, a, b): return add(a, b)\n"
CONFIG = StarCoderConfig(
    vocab_size=310, context_length=96, n_layer=2, n_head=4, n_embd=32, n_inner=56, dropout=0.0, init_std=0.25
)
LIMITS = Limits(context_length=96, prompt_tokens=90, max_tokens=80, choices=16, token_bytes=16)


@pytest.fixture(scope="session")
def model() -> StarCoder:
    return StarCoder(CONFIG, seed=3).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Ten rows of the model's table are unknown to it."""
    return tokenizers.train([CODE] * 9, vocab_size=300)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, model: StarCoder, tokenizer: Tokenizer) -> Path:
    path = tmp_path_factory.mktemp("serving") / "tiny"
    save(model, path, tokenizer)
    return path


class Gated(Batch):
    """Takes as many steps as it is let; `Gated.broken` makes the next one fail."""

    steps = Semaphore(0)
    broken = False

    def step(self) -> Any:
        Gated.steps.acquire()
        if Gated.broken:
            Gated.broken = False
            raise ArithmeticError("the model is broken")
        return super().step()


@pytest.fixture
def gate() -> Iterator[type[Gated]]:
    Gated.steps, Gated.broken = Semaphore(0), False
    yield Gated
    Gated.steps.release(10_000)


@dataclass
class Served:
    """A server that runs."""

    url: str
    client: OpenAI
    engine: Engine
    server: uvicorn.Server


Serving = Callable[..., Any]


@pytest.fixture(scope="session")
def serving(model: StarCoder, tokenizer: Tokenizer) -> Serving:
    """What starts a server: `with serving(rows=…, queue=…, …) as served`."""

    @contextmanager
    def serving(
        rows: int = 8, queue: int = 64, batch: type[Batch] = Batch, grace: float = 5, **access: Any
    ) -> Iterator[Served]:
        engine = Engine(lambda: batch(model, rows, tokenizer.vocab_size), rows, queue)
        access = {"max_body_bytes": 100_000} | access
        server = new_server(engine, tokenizer, Settings("tiny", LIMITS), Access(**access), grace)
        with listen("127.0.0.1", 0) as listener:
            listener.listen()
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            thread = Thread(target=server.run, kwargs={"sockets": [listener]})
            engine.start()
            thread.start()
            try:
                with OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0, timeout=60) as client:
                    yield Served(url, client, engine, server)
            finally:
                Gated.steps.release(10_000)
                server.should_exit = True
                thread.join()
                engine.stop()
                engine.join()

    return serving


@pytest.fixture(scope="module")
def served(serving: Serving) -> Iterator[Served]:
    with serving() as running:
        yield running


def ask(served: Served, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, Any]:
    """Status, headers and JSON of a request that no client of OpenAI's would make."""
    connection = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        raw = response.read()
        return response.status, response.headers, json.loads(raw) if raw else None
    finally:
        connection.close()


def until(condition: Any) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
