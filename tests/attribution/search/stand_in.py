"""A stand-in for a cluster on loopback: as much of the REST protocol as the search speaks, kept in memory."""

import base64
import json
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import sleep
from typing import Any
from urllib.parse import urlsplit

from starcoder.attribution.search.terms import trigrams

COMPATIBLE = "application/vnd.elasticsearch+{}; compatible-with=9"


class StandIn(ThreadingHTTPServer):
    """The server, with what it was sent and how it misbehaves.

    Attributes:
        product: What it says to be.
        login: User and password that it asks for.
        key: API key that it asks for.
        forbidden: Methods that it lets nobody use.
        busy: Answers to documents sent that are "too busy", before it takes them.
        broken: Answers to requests that are "unavailable", before it serves any.
        stuck: Documents that a query could not delete.
        delay: Seconds before it answers.
        indices: Settings, mappings and documents by the name of the index.
        requests: Method, path, headers and body of each request.
    """

    daemon_threads = True

    def __init__(self, product: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.product = product
        self.login: tuple[str, str] | None = None
        self.key = ""
        self.forbidden: set[str] = set()
        self.busy = self.broken = 0
        self.stuck: list[str] = []
        self.delay = 0.0
        self.indices: dict[str, dict[str, Any]] = {}
        self.requests: list[tuple[str, str, dict[str, str], str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that was killed."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def refusal(self, method: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Status and type of the error that a request is answered with before it is read."""
        if self.broken:
            self.broken -= 1
            return 503, "unavailable_exception"
        known = [f"ApiKey {self.key}"] if self.key else []
        if self.login:
            known.append(f"Basic {base64.b64encode(':'.join(self.login).encode()).decode()}")
        if known and headers.get("authorization") not in known:
            return 401, "security_exception"
        return (403, "security_exception") if method in self.forbidden else None


@contextmanager
def stand_in(product: str, tls: ssl.SSLContext | None = None) -> Iterator[StandIn]:
    server = StandIn(product)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    with _running(server):
        yield server


@contextmanager
def another_server(status: int, media: str) -> Iterator[str]:
    """The address of a server that has nothing to do with search."""

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            body = b"{}" if media == "application/json" else b"<!doctype html><title>It works!</title>"
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with _running(server):
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        text = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, text))
        sleep(self.server.delay)
        refused = self.server.refusal(self.command, headers)
        status, answer = _error(*refused) if refused else self._answer(text)
        body = b"" if self.command == "HEAD" else json.dumps(answer).encode()
        self.send_response(status)
        elastic = self.server.product == "elasticsearch"
        self.send_header("Content-Type", COMPATIBLE.format("json") if elastic else "application/json")
        if elastic:
            self.send_header("X-Elastic-Product", "Elasticsearch")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _serve  # noqa: N815

    def _answer(self, text: str) -> tuple[int, Any]:
        parts = [part for part in urlsplit(self.path).path.split("/") if part]
        if parts == ["_bulk"]:
            return 200, self._bulk(text)
        name, action = parts[0], parts[1] if len(parts) > 1 else ""
        body = json.loads(text) if text else {}
        if self.command == "PUT" and not action:
            self.server.indices[name] = {**body, "documents": {}, "deleted": 0}
            return 200, {"acknowledged": True, "index": name}
        if name not in self.server.indices:
            return _error(404, "index_not_found_exception")
        index = self.server.indices[name]
        if self.command == "PUT":
            index["mappings"] |= body
        if self.command == "DELETE":
            del self.server.indices[name]
        answers: dict[str, Callable[[], Any]] = {
            "": dict,
            "_mapping": lambda: {name: {"mappings": index["mappings"]}},
            "_refresh": dict,
            "_count": lambda: {"count": len(index["documents"])},
            "_mget": lambda: {"docs": [_got(index["documents"], id_) for id_ in body["ids"]]},
            "_delete_by_query": lambda: {
                "deleted": _delete(index, body["query"]),
                "failures": self.server.stuck,
            },
            "_stats": lambda: {"_all": {"primaries": {"docs": {"deleted": index["deleted"]}}}},
            "_search": lambda: (_aggregate if "aggs" in body else _search)(index["documents"], body),
        }
        return 200, answers[action]()

    def _bulk(self, text: str) -> dict[str, Any]:
        items = []
        lines = [json.loads(line) for line in text.splitlines()]
        for head, source in zip(lines[::2], lines[1::2], strict=True):
            action = head["index"]
            item = {"_id": action["_id"], "status": 201}
            if self.server.busy:
                self.server.busy -= 1
                item |= {"status": 429, "error": {"type": "rejected", "reason": "too busy"}}
            elif set(source) != set(self.server.indices[action["_index"]]["mappings"]["properties"]):
                item |= {"status": 400, "error": {"type": "strict", "reason": "a field that the mapping lacks"}}
            else:
                self.server.indices[action["_index"]]["documents"][action["_id"]] = source
            items.append({"index": item})
        return {"errors": any("error" in item["index"] for item in items), "items": items}

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _error(status: int, kind: str) -> tuple[int, Any]:
    return status, {
        "error": {"type": kind, "reason": kind, "root_cause": [{"type": kind, "reason": kind}]},
        "status": status,
    }


def _got(documents: dict[str, Any], id_: str) -> dict[str, Any]:
    return {"_id": id_, "found": id_ in documents, "_source": documents.get(id_)}


def _delete(index: dict[str, Any], query: dict[str, Any]) -> int:
    gone = [id_ for id_, source in index["documents"].items() if _matches(source, query)]
    for id_ in gone:
        del index["documents"][id_]
    index["deleted"] += len(gone)  # whose bytes a real one keeps until it merges
    return len(gone)


def _matches(source: dict[str, Any], query: dict[str, Any]) -> bool:
    """Whether a document is what a `term` or `terms` query asks for."""
    ((kind, wanted),) = query.items()
    ((name, value),) = wanted.items()
    own = source[name] if isinstance(source[name], list) else [source[name]]
    return bool(set(own) & set(value if kind == "terms" else [value]))


def _search(documents: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """Documents by the number of 3-grams that they share with what is asked for."""
    like = body["query"]["bool"]["must"][0]["more_like_this"]["like"]
    filters = body["query"]["bool"]["filter"]
    scored = [
        {"_id": id_, "_score": float(len(trigrams(source["content"]) & trigrams(like))), "_source": source}
        for id_, source in documents.items()
        if all(_matches(source, each) for each in filters)
    ]
    best = sorted((hit for hit in scored if hit["_score"]), key=lambda hit: -float(hit["_score"]))[: body["size"]]
    shown = [{**hit, "_source": {name: hit["_source"][name] for name in body["_source"]}} for hit in best]
    return {"hits": {"hits": shown}}


def _aggregate(documents: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
    """A page of two repositories behind the one that was asked for last."""
    after = body["aggs"]["names"]["composite"].get("after", {"name": ""})["name"]
    names = sorted({source["repository"] for source in documents.values() if source["repository"] > after})[:2]
    buckets = [{"key": {"name": name}} for name in names]
    return {"aggregations": {"names": {"buckets": buckets, **({"after_key": buckets[-1]["key"]} if buckets else {})}}}
