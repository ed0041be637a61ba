"""The membership test over HTTP, as editors ask for it: the requests and answers of Data Portraits' service (paper §8).

    POST /overlap     {"document": "…"}                → spans [[start, end], …], segments and raw_segments ["…", …]
    GET, POST /q      {"document": "…", "seq_id": 1}   → whether each window is found, and the chains of found ones

llm-vscode sends the 250 characters before and behind the cursor to /overlap (its setting `llm.attributionEndpoint`) and
underlines the spans. It joins a span with the one before when they overlap, so they come in their order and overlap
nowhere. It counts as JavaScript does, in units of UTF-16, and so do the spans; who counts characters, as the service
does, sends `"position_encoding": "utf-32"`. Both are the same in texts without characters beyond U+FFFF. A chain ends
at the first miss, while those of the service go on behind it; white space is squeezed as everywhere in this room.
Nothing that is asked is kept.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from itertools import accumulate
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from starcoder.attribution.membership import Membership, expected
from starcoder.attribution.squeezed import squeeze
from starcoder.attribution.windows import WINDOW, runs
from starcoder.errors import one_line

MAX_BYTES = 200_000
"""Longest request, unless another is set; editors send 500 characters."""

_PATIENCE = 60  # seconds in which a request must arrive
_ENCODINGS = ("utf-16", "utf-32")
_LOCAL_PAGES = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?"


class _RequestError(Exception):
    """What is wrong with a request, and HTTP's status for it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def add_overlap(app: FastAPI, membership: Membership, max_bytes: int = MAX_BYTES) -> None:
    """Give an application the routes /overlap and /q.

    Args:
        app: It may have others.
        membership: What is asked.
        max_bytes: Longest request; the answer of /q is up to 60 times as long.
    """

    def route(answer: Callable[[Membership, dict[str, Any]], Any]) -> Callable[[Request], Awaitable[Response]]:
        async def answered(http: Request) -> Response:
            try:
                request = _read(http.headers.get("content-type", ""), await _body(http, max_bytes))
                return _json(await asyncio.to_thread(answer, membership, request))
            except _RequestError as error:
                return _json({"error": str(error)}, error.status)

        return answered

    app.post("/overlap", response_model=None)(route(_overlap))
    app.api_route("/q", methods=["GET", "POST"], response_model=None)(route(_q))


def overlap_app(membership: Membership, local_pages: bool = False, max_bytes: int = MAX_BYTES) -> FastAPI:
    """An application with nothing but these routes.

    Args:
        membership: What is asked.
        local_pages: Whether scripts of web pages that this machine serves may ask; those of others never may.
        max_bytes: Longest request.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_overlap(app, membership, max_bytes)
    if local_pages:
        app.add_middleware(
            CORSMiddleware, allow_origin_regex=_LOCAL_PAGES, allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return app


def _overlap(membership: Membership, request: dict[str, Any]) -> dict[str, Any]:
    text = request["document"]
    encoding = request.get("position_encoding", "utf-16")
    if encoding not in _ENCODINGS:
        raise _RequestError("position_encoding is utf-16 or utf-32")
    chains = sorted(membership.chains(text), key=lambda chain: chain.start)
    raw = [text[chain.start : chain.end] for chain in chains]
    wide = [0, *_wide(text)] if encoding == "utf-16" else [0] * (len(text) + 1)
    return {
        "spans": [[chain.start + wide[chain.start], chain.end + wide[chain.end]] for chain in chains],
        "segments": [re.sub(r"\s+", " ", segment) for segment in raw],
        "raw_segments": raw,
    }


def _q(membership: Membership, request: dict[str, Any]) -> dict[str, Any]:
    view = squeeze(request["document"])
    found = membership.found(view)
    chains = [
        [start + WINDOW * n for n in range(windows)]
        for start, windows in zip(*(each.tolist() for each in runs(found)), strict=True)
    ]
    longest, whole = max(map(len, chains), default=0), expected(len(view.text))
    return {
        "idx": 0,
        "doc": view.text,
        "segments": None,
        "is_member": found.tolist(),
        "chains": [[view.text[start : start + WINDOW] for start in chain] for chain in chains],
        "chain_idxs": chains,
        "longest_chain": longest,
        "expected_longest": whole,
        "badness": longest / whole if whole else 0.0,
        "width": WINDOW,
        "seq_id": request.get("seq_id"),
    }


def _wide(text: str) -> list[int]:
    """How many of the characters up to each one are two units of UTF-16."""
    return list(accumulate(character > "\uffff" for character in text))


async def _body(http: Request, max_bytes: int) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_PATIENCE):
            async for part in http.stream():
                body += part
                if len(body) > max_bytes:
                    message = f"a request has at most {max_bytes} bytes: send the text around the cursor alone"
                    raise _RequestError(message, 413)
    except (TimeoutError, ClientDisconnect):
        raise _RequestError(f"the request did not arrive within {_PATIENCE} seconds", 408) from None
    return bytes(body)


def _read(content_type: str, body: bytes) -> dict[str, Any]:
    """The object that a body holds: JSON by its header, too, as scripts of any web page may send what is not."""
    if content_type.partition(";")[0].strip().lower() != "application/json":
        raise _RequestError("a request is JSON and says so: send the header Content-Type: application/json", 415)
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _RequestError(f"the body is no JSON: {one_line(error)}") from None
    if not isinstance(request, dict) or not isinstance(request.get("document"), str):
        raise _RequestError('a request has a text under "document": {"document": "…"}')
    if not isinstance(request.get("seq_id"), str | int | None):
        raise _RequestError("seq_id is a whole number or a text")
    return request


def _json(content: Any, status: int = 200) -> Response:
    """An answer in ASCII: a text cut by an editor may begin with half a character, which UTF-8 cannot carry."""
    return Response(json.dumps(content, allow_nan=False), status, media_type="application/json")
