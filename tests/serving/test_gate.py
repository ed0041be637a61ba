"""Requests that come too slowly, in too great a number, or when the server is asked to end."""

import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import urlsplit

import openai
import pytest

from starcoder.serving import serve
from starcoder.serving.connection import Connection
from tests.serving.conftest import Gated, Served, Serving, ask, until

HALF = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"


@contextmanager
def connected(served: Served) -> Iterator[socket.socket]:
    host, port = urlsplit(served.url).netloc.split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        yield connection


def read(connection: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_body_that_does_not_come_is_not_waited_for(serving: Serving) -> None:
    with serving(patience=0.05) as served, connected(served) as connection:
        connection.sendall(HALF)
        answer = read(connection)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"did not arrive within" in answer


@pytest.mark.parametrize("begun", [b"", b"POST /v1/comp"])
def test_a_request_that_does_not_begin_is_not_waited_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(Connection, "patience", 0.05)
    with serving() as served, connected(served) as connection:
        connection.sendall(begun)
        assert read(connection) == b""


def test_only_the_head_of_a_request_is_timed(serving: Serving, gate: type[Gated]) -> None:
    with serving(batch=gate) as served, connected(served) as connection:
        until(lambda: len(served.server.server_state.connections) == 1)
        (known,) = served.server.server_state.connections
        assert isinstance(known, Connection)
        assert known._deadline
        body = b'{"model": "tiny", "prompt": "def", "max_tokens": 1}'
        connection.sendall(HALF[:-1].replace(b"99", b"%d" % len(body)) + body)
        until(lambda: served.engine.load == (1, 0))
        assert not known._deadline
        gate.steps.release(1000)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        until(lambda: known._deadline)


@pytest.mark.parametrize("sent", [HALF, HALF[:20], b""])
def test_what_is_not_here_when_the_server_ends_is_not_waited_for(serving: Serving, sent: bytes) -> None:
    with serving(grace=60) as served, connected(served) as connection:
        connection.sendall(sent)
        state = served.server.server_state
        until(lambda: state.tasks if sent == HALF else state.connections)
        served.server.should_exit = True
        answer = read(connection)
        if sent == HALF:
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"shutting down" in answer
        else:
            assert answer == b""


def test_asked_a_second_time_the_server_ends_what_is_under_way(
    serving: Serving, gate: type[Gated], caplog: pytest.LogCaptureFixture
) -> None:
    with serving(batch=gate, grace=60) as served, ThreadPoolExecutor(1) as pool:
        create = served.client.completions.create
        whole = pool.submit(create, model="tiny", prompt="def", max_tokens=80)
        stream = create(model="tiny", prompt="def", max_tokens=80, stream=True, echo=True)
        assert next(stream).choices[0].text == "def"
        until(lambda: served.engine.load == (2, 0))
        served.server.handle_exit(signal.SIGINT, None)
        until(lambda: served.engine.state == "closing")
        served.server.handle_exit(signal.SIGINT, None)  # while the model is within a step
        with pytest.raises(openai.InternalServerError, match="shutting down") as error:
            whole.result()
        assert error.value.status_code == 503
        with pytest.raises(openai.APIError, match="shutting down"):
            list(stream)
    assert caplog.text == ""


def test_there_is_an_end_to_connections(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "_SPARE_CONNECTIONS", 2)
    with serving(rows=1, queue=0) as served:
        with connected(served), connected(served):
            until(lambda: len(served.server.server_state.connections) == 2)
            with connected(served) as third:
                third.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                assert read(third).startswith(b"HTTP/1.1 503")
        until(lambda: not served.server.server_state.connections)
        assert ask(served, "GET", "/health")[0] == 200
