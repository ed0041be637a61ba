"""The service on loopback, asked as editors ask."""

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from starcoder.attribution import overlap
from starcoder.attribution.membership import Membership
from starcoder.attribution.overlap import add_overlap, overlap_app
from starcoder.attribution.squeezed import squeeze

STORED = "".join(
    f"    def method_{n}(self, value: int) -> int:\n        return value * {n} + self.offset\n\n" for n in range(40)
)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def membership() -> Membership:
    membership = Membership.create(1000, 1e-9)
    membership.add(STORED)
    return membership


@contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The port at which an application answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="module")
def port(membership: Membership) -> Iterator[int]:
    with served(overlap_app(membership)) as port:
        yield port


def ask(
    port: int, path: str, body: Any, method: str = "POST", headers: dict[str, str] = JSON
) -> tuple[int, Any, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None, {k.lower(): v for k, v in answer.getheaders()}
    finally:
        connection.close()


def underlined(port: int, text: str, cursor: int) -> set[int]:
    """What llm-vscode underlines: UTF-16 units of a file within 250 around the cursor, by the extension's own steps."""
    units = text.encode("utf-16-le", "surrogatepass")
    start, end = max(0, cursor - 250), min(len(units) // 2, cursor + 250)
    around = units[2 * start : 2 * end].decode("utf-16-le", "surrogatepass")
    status, answer, _ = ask(port, "/overlap", {"document": around})
    assert status == 200
    joined: list[list[int]] = []
    for first, last in answer["spans"]:
        if joined and first <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], last)
        else:
            joined.append([first, last])
    return {start + place for first, last in joined for place in range(first, last)}


def test_an_editor_underlines_the_copy_and_nothing_else(port: int) -> None:
    copy = STORED[900:1290].replace("    ", "\t").strip()
    own = "# 😀 something of one's own, which stands nowhere else 😀😀\n" * 4
    text = own + copy + "\n" + own
    begin = len(own.encode("utf-16-le")) // 2
    end = begin + len(copy)
    marked = underlined(port, text, begin + 200)
    assert marked
    assert min(marked) in range(begin, begin + 80)
    assert max(marked) in range(end - 80, end + 1)
    assert marked == set(range(min(marked), max(marked) + 1))
    assert underlined(port, text, 20) == set()


def test_an_editor_may_cut_a_character_in_two(port: int) -> None:
    text = "😀" * 100 + STORED[:300] + "😀" * 200
    for cursor in (250, 251, 252, 253):
        marked = underlined(port, text, cursor)
        assert marked
        assert min(marked) in range(200, 210)


def test_the_answer_is_that_of_data_portraits(port: int, membership: Membership) -> None:
    document = "😀 new " + STORED[:330] + "😀 other " + STORED[2000:2200]
    status, answer, headers = ask(port, "/overlap", {"document": document, "position_encoding": "utf-32"})
    assert status == 200
    assert headers["content-type"] == "application/json"
    assert list(answer) == ["spans", "segments", "raw_segments"]
    assert len(answer["spans"]) == 2
    assert answer["spans"] == sorted([chain.start, chain.end] for chain in membership.chains(document))
    assert answer["raw_segments"] == [document[start:end] for start, end in answer["spans"]]
    stored = squeeze(STORED).text
    for segment in answer["segments"]:
        assert segment in stored
        assert len(segment) % 50 == 0
    wide = ask(port, "/overlap", {"document": document})[1]
    assert wide["segments"] == answer["segments"]
    assert [
        [wide_start - start, wide_end - end]
        for (wide_start, wide_end), (start, end) in zip(wide["spans"], answer["spans"], strict=True)
    ] == [[1, 1], [2, 2]]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_q_tells_of_every_window(port: int, method: str) -> None:
    status, answer, _ = ask(port, "/q", {"document": "a  new\n" + STORED[:400], "seq_id": 7}, method)
    assert status == 200
    view = squeeze("a new " + STORED[:400]).text
    assert answer["doc"] == view
    assert (answer["idx"], answer["seq_id"], answer["width"], answer["segments"]) == (0, 7, 50, None)
    assert len(answer["is_member"]) == len(view) - 49
    assert sum(answer["is_member"]) == sum(map(len, answer["chain_idxs"]))
    first = answer["chain_idxs"][0]
    assert first == list(range(first[0], first[-1] + 1, 50))
    assert "".join(answer["chains"][0]) == view[first[0] : first[-1] + 50]
    assert answer["longest_chain"] == len(first) == (len(view) - 6) // 50
    assert answer["expected_longest"] == (len(view) - 49) / 50
    assert answer["badness"] == pytest.approx(len(first) / answer["expected_longest"])
    nothing = ask(port, "/q", {"document": "short"}, method)[1]
    assert (nothing["longest_chain"], nothing["expected_longest"], nothing["badness"]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415, "send the header Content-Type: application/json"),
        (b"\xff", JSON, 400, "the body is no JSON"),
        (b"[" * 100_000, JSON, 400, "the body is no JSON"),
        ([], JSON, 400, 'a request has a text under "document"'),
        ({"text": "x"}, JSON, 400, 'a request has a text under "document"'),
        ({"document": ["x"]}, JSON, 400, 'a request has a text under "document"'),
        (b'{"document": "x", "seq_id": NaN}', JSON, 400, "seq_id is a whole number or a text"),
        ({"document": "x", "position_encoding": "utf-8"}, JSON, 400, "position_encoding is utf-16 or utf-32"),
        ({"document": "x" * 200_000}, JSON, 413, "a request has at most 200000 bytes"),
    ],
)
def test_a_bad_request_is_told_so_in_one_line(
    port: int, body: Any, headers: dict[str, str], status: int, message: str
) -> None:
    got, answer, _ = ask(port, "/overlap", body, headers=headers)
    assert got == status
    assert list(answer) == ["error"]
    assert message in answer["error"]
    assert "\n" not in answer["error"]


def test_texts_without_a_window_have_no_spans(port: int) -> None:
    for document in ("", " \n" * 99, "x" * 49):
        assert ask(port, "/overlap", {"document": document})[1] == {"spans": [], "segments": [], "raw_segments": []}


def test_only_local_pages_may_ask_and_only_if_they_are_let(membership: Membership, port: int) -> None:
    local = JSON | {"Origin": "http://localhost:8080"}
    assert "access-control-allow-origin" not in ask(port, "/overlap", {"document": ""}, headers=local)[2]
    with served(overlap_app(membership, local_pages=True)) as open_port:
        for origin in ("http://localhost:8080", "http://127.0.0.1", "https://[::1]:9"):
            headers = ask(open_port, "/overlap", {"document": ""}, headers=JSON | {"Origin": origin})[2]
            assert headers["access-control-allow-origin"] == origin
        for origin in ("https://example.org", "http://localhost.example.org", "null", "http://127.0.0.1.nip.io"):
            headers = ask(open_port, "/overlap", {"document": ""}, headers=JSON | {"Origin": origin})[2]
            assert "access-control-allow-origin" not in headers


def test_an_application_with_other_routes_can_have_these(membership: Membership) -> None:
    app = FastAPI()
    app.get("/other")(lambda: {"other": 1})
    add_overlap(app, membership, max_bytes=100)
    with served(app) as port:
        assert ask(port, "/other", b"", "GET")[1] == {"other": 1}
        assert ask(port, "/overlap", {"document": "x" * 60})[0] == 200
        assert ask(port, "/overlap", {"document": "x" * 99})[0] == 413


def test_a_request_that_does_not_arrive_is_not_waited_for(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_PATIENCE", 0.05)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            b"POST /overlap HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
        )
        assert connection.recv(65536).startswith(b"HTTP/1.1 408")
