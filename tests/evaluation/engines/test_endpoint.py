"""The endpoint engine against a real server on this machine, which fails in all the ways that servers do."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from starcoder.errors import UserError
from starcoder.evaluation.engines import open_engine
from starcoder.evaluation.engines.base import Completion, Request, Sampling
from starcoder.evaluation.engines.endpoint import STOPS, EndpointEngine

KEY = "sk-Secret-0123"
WARM = Sampling(temperature=0.8, top_p=0.95, max_new_tokens=20, seed=5)
Body = dict[str, Any]
Reply = Callable[["Handler", Body], None]


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's `reply`, and otherwise with texts that say what was asked."""

    protocol_version = "HTTP/1.1"
    server: "Server"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.seen.append((self.path, self.headers.get("Authorization")))
            reply = self.server.replies.pop(0) if self.server.replies else self.server.otherwise
        reply(self, body)

    def answer(self, code: int, content: bytes, cut: int = 0, **headers: str) -> None:
        """Send `content`, of which the last `cut` bytes are promised and never sent."""
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - cut])
        if cut:
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""


class Server(ThreadingHTTPServer):
    """A server, what it has seen, and what it answers."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lock = threading.Lock()
        self.bodies: list[Body] = []
        self.seen: list[tuple[str, str | None]] = []
        self.replies: list[Reply] = []
        self.otherwise: Reply = complete()

    def handle_error(self, *request: Any) -> None:
        """Clients may be gone before they are answered."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(*request)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


def said(body: Body, number: int = 0) -> str:
    """The server's only model: a function of prompt, suffix, seed and the sample's place in the request."""
    return f"{body['prompt']}|{body.get('suffix')}|{body['seed']}|{number}\nclass A: pass"


def complete(most: int = 99, reason: str = "length") -> Reply:
    def reply(handler: Handler, body: Body) -> None:
        texts = [said(body, number) for number in range(min(most, body.get("n", 1)))]
        choices = [{"text": text, "finish_reason": reason, "index": n} for n, text in enumerate(texts)]
        handler.answer(200, json.dumps({"choices": choices}).encode())

    return reply


def fail(code: int, content: str, **headers: str) -> Reply:
    return lambda handler, _: handler.answer(code, content.encode(), **headers)


def cut_off(handler: Handler, _: Body) -> None:
    handler.answer(200, b'{"choices": [{"text": "half', cut=5)


def hang_up(handler: Handler, _: Body) -> None:
    handler.close_connection = True


def hang_until(event: threading.Event) -> Reply:
    def reply(handler: Handler, body: Body) -> None:
        event.wait(timeout=60)
        complete()(handler, body)

    return reply


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()


def open_endpoint(server: Server, met: bool = True, **options: Any) -> EndpointEngine:
    engine = open_engine("coder", "endpoint", base_url=server.url, **options)
    assert isinstance(engine, EndpointEngine)
    engine.client.backoff = 0.001
    engine.met = met
    return engine


def requests_of(n_problems: int, n_samples: int, **options: Any) -> list[Request]:
    return [Request(f"p{i}", f"prompt {i}", None, tuple(range(n_samples)), **options) for i in range(n_problems)]


def by_place(completions: Iterator[Completion]) -> dict[tuple[str, int], Completion]:
    listed = list(completions)
    found = {(completion.problem, completion.sample): completion for completion in listed}
    assert len(found) == len(listed)
    return found


def test_what_is_asked(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    engine = open_endpoint(server, api_key_env="MY_KEY")
    stop = ("\nclass", "\ndef", "\n#", "\n@", "\nprint")
    (completion,) = engine.complete([Request("p", "def f(", None, (3,), stop)], WARM)
    (body,) = server.bodies
    seed = body.pop("seed")
    assert 0 <= seed < 2**31
    assert body == {
        "model": "coder",
        "prompt": "def f(",
        "max_tokens": 20,
        "temperature": 0.8,
        "top_p": 0.95,
        "stop": list(stop[:STOPS]),
    }
    assert server.seen == [("/v1/completions", f"Bearer {KEY}")]
    assert completion == Completion("p", 3, f"def f(|None|{seed}|0", "stop")


def test_stop_strings_that_the_interface_has_no_room_for(server: Server) -> None:
    (completion,) = open_endpoint(server).complete(requests_of(1, 1, stop=(*"wxyz", "\nclass")), WARM)
    assert "class" not in server.bodies[0]["stop"][-1]
    assert (completion.text.count("class"), completion.finish) == (0, "stop")


@pytest.mark.parametrize(("reason", "finish"), [("length", "length"), ("stop", "stop"), (None, "stop")])
def test_reasons(server: Server, reason: str, finish: str) -> None:
    server.otherwise = complete(reason=reason)
    assert [completion.finish for completion in open_endpoint(server).complete(requests_of(1, 2), WARM)] == [finish] * 2


def test_a_sample_depends_on_seed_problem_and_number_alone(server: Server) -> None:
    together = by_place(open_endpoint(server, concurrency=3).complete(requests_of(5, 7), WARM))
    assert together.keys() == {(f"p{i}", n) for i in range(5) for n in range(7)}
    assert len(server.bodies) == 35
    assert len({body["seed"] for body in server.bodies}) == 35
    late = by_place(open_endpoint(server).complete([Request("p4", "prompt 4", None, (6, 2))], WARM))
    assert late == {key: together[key] for key in [("p4", 6), ("p4", 2)]}


def test_many_samples_in_a_request(server: Server) -> None:
    found = by_place(open_endpoint(server, samples_per_request=4).complete(requests_of(2, 10), WARM))
    assert Counter(body.get("n") for body in server.bodies) == {4: 4, 2: 2}
    assert len({completion.text for completion in found.values()}) == 20
    server.bodies.clear()
    list(open_endpoint(server, samples_per_request=4).complete(requests_of(1, 3), Sampling(0.0, 1.0, 5)))
    assert [body.get("n") for body in server.bodies] == [None] * 3


def test_samples_that_do_not_come_are_asked_for_again(server: Server) -> None:
    server.otherwise = complete(most=3)
    found = by_place(open_endpoint(server, samples_per_request=8).complete(requests_of(1, 8), WARM))
    assert found.keys() == {("p0", n) for n in range(8)}
    assert [body.get("n") for body in server.bodies] == [8, 5, 2]
    assert len({body["seed"] for body in server.bodies}) == 3


@pytest.mark.parametrize(
    ("infilling", "prompt", "suffix"),
    [
        ("suffix", "a", "b"),
        ("starcoder", "<fim_prefix>a<fim_suffix>b<fim_middle>", None),
        ("santacoder", "<fim-prefix>a<fim-suffix>b<fim-middle>", None),
    ],
)
def test_infilling(server: Server, infilling: str, prompt: str, suffix: str | None) -> None:
    engine = open_endpoint(server, infilling=infilling)
    gap = [Request("gap", "a", "b", (0,))]
    engine.check(gap, 20, likelihood=False)
    list(engine.complete(gap, WARM))
    assert [(body["prompt"], body.get("suffix")) for body in server.bodies] == [(prompt, suffix)]


def test_requests_overlap(server: Server) -> None:
    barrier = threading.Barrier(4)

    def together(handler: Handler, body: Body) -> None:
        barrier.wait(timeout=20)
        complete()(handler, body)

    server.otherwise = together
    assert len(list(open_endpoint(server, concurrency=4).complete(requests_of(2, 4), WARM))) == 8


@pytest.mark.parametrize(
    "failures",
    [
        [fail(429, "{}")],
        [fail(429, "{}", Retry_After="0.01"), fail(429, "{}", Retry_After="nan"), fail(429, "{}", Retry_After="Fri")],
        [fail(500, "oops"), fail(503, '{"error": "loading"}'), fail(502, "")],
        [cut_off],
        [hang_up, hang_up],
        [fail(200, '{"choices": [{"te')],
        [fail(200, '{"choices": []}')],
        [fail(200, '{"choices": [{"text": null}]}')],
    ],
)
def test_failures_that_pass(server: Server, failures: list[Reply]) -> None:
    server.replies = list(failures)
    found = by_place(open_endpoint(server, concurrency=1).complete(requests_of(1, 2), WARM))
    assert {key: completion.text for key, completion in found.items()} == {
        ("p0", n): said(body) for n, body in enumerate(server.bodies[len(failures) :])
    }
    assert len({body["seed"] for body in server.bodies}) == 2  # a repeated request is the same request


@pytest.mark.parametrize(
    ("reply", "tries", "parts"),
    [
        (fail(500, '{"error": {"message": "out of\\nmemory"}}'), 3, ["answers 500 (out of memory), 3 times in a row"]),
        (fail(429, '{"error": "slow down"}'), 3, ["answers 429 (slow down), 3 times"]),
        (fail(200, "<html>"), 3, ["no JSON", "base_url"]),
        (fail(200, '{"object": "list"}'), 3, ["without a completion", '{"object": "list"}']),
        (cut_off, 3, ["does not answer", "3 times"]),
        (hang_up, 3, ["does not answer", "3 times"]),
        (fail(401, f'{{"error": {{"message": "wrong key {KEY}"}}}}'), 1, ["401 (wrong key …)", "api_key_env"]),
        (fail(403, ""), 1, ["403 (Forbidden)", "may use the model"]),
        (fail(404, '{"error": {"message": "no model coder"}}'), 1, ["404 (no model coder)", "model's name"]),
        (fail(400, '{"message": "8193 tokens do not fit"}'), 1, ["400 (8193 tokens do not fit): if the prompt", "p0"]),
        (fail(413, ""), 1, ["choose fewer max_new_tokens or have the server serve a longer window (asked for p0)"]),
        (fail(422, '{"detail": [{"msg": "extra"}]}'), 1, ["422", "extra"]),
        (fail(400, '{"message": "\\u001b[31mred"}'), 1, ["\\x1b[31mred"]),
    ],
)
def test_failures_that_stay(
    server: Server, monkeypatch: pytest.MonkeyPatch, reply: Reply, tries: int, parts: list[str]
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.otherwise = reply
    for met in (True, False):
        engine = open_endpoint(server, met, retries=2, concurrency=1)
        server.bodies.clear()
        with pytest.raises(UserError) as error:
            list(engine.complete(requests_of(1, 1), WARM))
        message = str(error.value)
        assert len(server.bodies) == tries
        assert message.startswith(f"{server.url}/completions ")
        assert message.isprintable()
        assert KEY not in message
        assert all(part in message for part in parts)
    assert KEY not in json.dumps(engine.settings)


@pytest.mark.parametrize("host", ["127.0.0.1", "nobody.invalid"])
def test_that_there_is_no_server_is_believed_at_once(server: Server, host: str) -> None:
    url = server.url.replace("127.0.0.1", host)
    server.shutdown()
    server.server_close()
    engine = open_engine("coder", "endpoint", base_url=url)
    assert isinstance(engine, EndpointEngine)
    engine.client.backoff = 0.001
    with pytest.raises(UserError, match=r"does not answer \(.*\): check base_url and the server \(asked for p0\)$"):
        list(engine.complete(requests_of(1, 1), WARM))


def test_a_server_that_restarts_is_waited_for(server: Server) -> None:
    engine = open_endpoint(server, retries=2)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"refused.* 3 times in a row"):
        list(engine.complete(requests_of(1, 1), WARM))


@pytest.mark.parametrize("failure", [fail(429, "{}", Retry_After="0.01"), fail(503, '{"error": "loading"}'), hang_up])
def test_a_busy_server_is_waited_for_from_the_first_request_on(server: Server, failure: Reply) -> None:
    server.replies = [failure, failure]
    assert len(list(open_endpoint(server, met=False).complete(requests_of(1, 1), WARM))) == 1
    assert [body["max_tokens"] for body in server.bodies] == [1, 1, 1, 20]


def test_the_server_is_met_once_and_only_for_a_reason(server: Server) -> None:
    engine = open_endpoint(server, met=False, infilling="suffix")
    requests = [*requests_of(3, 2), Request("gap", "a" * 50, "b" * 50, (4, 5)), Request("long", "c" * 99, None, (0,))]
    engine.check(requests, 77, likelihood=False)
    assert list(engine.complete([], WARM)) == []
    assert server.bodies == []
    assert len(list(engine.complete(requests, WARM))) == 9
    body = server.bodies[0]
    assert (body["prompt"], body["suffix"], body["max_tokens"], body.get("n")) == ("a" * 50, "b" * 50, 1, None)
    assert len(list(engine.complete(requests, WARM))) == 9
    assert [body["max_tokens"] for body in server.bodies] == [1] + [20] * 18


def until_it_fails(completions: Iterator[Completion]) -> tuple[set[tuple[str, int]], str]:
    """The keys of what is yielded, and the error that ends it."""
    found = set()
    with pytest.raises(UserError) as error:
        found.update((completion.problem, completion.sample) for completion in completions)
    return found, str(error.value)


def by_problem(replies: dict[str, Reply]) -> Reply:
    return lambda handler, body: replies.get(body["prompt"], complete())(handler, body)


def test_a_failure_ends_the_run_and_leaves_no_thread(server: Server) -> None:
    server.replies = [complete(), fail(404, "")]
    server.otherwise = fail(503, "", Retry_After="60")
    before = set(threading.enumerate())
    _, message = until_it_fails(open_endpoint(server, concurrency=2).complete(requests_of(20, 1), WARM))
    assert "404" in message
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=20)
        assert not thread.is_alive()
    assert len(server.bodies) <= 5


def test_a_failure_loses_nothing_that_is_under_way(server: Server) -> None:
    failed, barrier = threading.Event(), threading.Barrier(4)

    def refuse(handler: Handler, body: Body) -> None:
        barrier.wait(timeout=20)
        fail(400, '{"message": "9000 tokens"}')(handler, body)
        failed.set()

    def finish(handler: Handler, body: Body) -> None:
        barrier.wait(timeout=20)
        hang_until(failed)(handler, body)

    server.otherwise = by_problem({f"prompt {n}": refuse if n == 2 else finish for n in range(4)})
    engine = open_endpoint(server, concurrency=4)
    engine.grace = 60.0
    found, message = until_it_fails(engine.complete(requests_of(30, 1), WARM))
    assert found >= {("p0", 0), ("p1", 0), ("p3", 0)}
    assert message.endswith("(asked for p2)")
    assert len(server.bodies) == len(found) + 1 < 20


def test_a_request_that_hangs_does_not_hold_back_an_error(server: Server) -> None:
    release = threading.Event()
    server.otherwise = by_problem({"prompt 0": hang_until(release), "prompt 2": fail(400, "")})
    engine = open_endpoint(server, concurrency=2)
    engine.grace = 0.2
    found, message = until_it_fails(engine.complete(requests_of(3, 1), WARM))
    assert not release.is_set()
    assert (found, "asked for p2" in message) == ({("p1", 0)}, True)
    release.set()


SCRIPT = """
import sys
from starcoder.evaluation.engines.base import Request, Sampling
from starcoder.evaluation.engines.endpoint import EndpointEngine

engine = EndpointEngine("coder", sys.argv[1])
engine.met, engine.grace = True, 0.1
requests = [Request(f"p{n}", f"prompt {n}", None, (0,)) for n in range(2)]
list(engine.complete(requests, Sampling(0.0, 1.0, 9)))
"""


def test_the_process_ends_while_a_request_hangs(server: Server) -> None:
    release, hanging = threading.Event(), threading.Event()

    def hang(handler: Handler, body: Body) -> None:
        hanging.set()
        hang_until(release)(handler, body)

    def refuse(handler: Handler, body: Body) -> None:
        hanging.wait(timeout=20)
        fail(400, "")(handler, body)

    server.otherwise = by_problem({"prompt 0": hang, "prompt 1": refuse})
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, server.url], capture_output=True, text=True, timeout=50, check=False
    )
    assert not release.is_set()
    assert "asked for p1" in ended.stderr
    assert ended.returncode == 1
    release.set()


def test_what_an_endpoint_cannot_do(server: Server) -> None:
    engine = open_endpoint(server)
    with pytest.raises(UserError, match="tells no probabilities"):
        engine.check([], 9, likelihood=True)
    with pytest.raises(UserError, match="tells no probabilities"):
        engine.nats([("", "a")])
    with pytest.raises(UserError, match=r"HumanEval/7 wants infilling: .* suffix, or .* starcoder"):
        engine.check([*requests_of(1, 1), Request("HumanEval/7", "a", "b", (0,))], 9, likelihood=False)
    assert server.bodies == []


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"base_url": "localhost:8000"}, "base_url is 'localhost:8000', no http(s)://"),
        ({"base_url": "ftp://a/v1"}, "no http(s)://"),
        ({"base_url": "https://me:word@a/v1"}, "base_url holds a password"),
        ({"infilling": "fim"}, "infilling is 'fim', none of suffix, starcoder, santacoder, qwen, deepseek"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"samples_per_request": 0}, "samples_per_request is 0"),
        ({"retries": -1}, "retries is -1"),
        ({"timeout": 0.0}, "timeout is 0.0, outside (0, 86400]"),
        ({"timeout": float("inf")}, "timeout is inf"),
        ({"timeout": float("nan"), "retries": -1}, "retries is -1, below 0; timeout is nan"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], part: str) -> None:
    with pytest.raises(UserError) as error:
        open_engine("coder", "endpoint", **{"base_url": "http://a/v1", **options})
    assert part in str(error.value)
    assert "word" not in str(error.value).replace("password", "")


def test_a_key_with_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-a\nb")
    with pytest.raises(UserError, match=r"the key in OPENAI_API_KEY holds characters that no key has$"):
        open_engine("coder", "endpoint", base_url="http://a/v1")
