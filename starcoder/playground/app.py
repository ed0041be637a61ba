"""What the playground's server answers beside completions: the page, traces, and pages to keep."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware

from starcoder.errors import UserError
from starcoder.playground.page import STATIC, Found, kept_page, live_page, static
from starcoder.serving.protocol import ApiError, is_text, read_object

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Traces(Protocol):
    """What finds out where a text comes from."""

    def trace(self, text: str) -> Found:
        """The trace of a text; a `UserError` for one that it cannot trace."""

    def check(self) -> None:
        """A `UserError` when what it traced may hold what has been taken out of its corpus since."""


@dataclass(frozen=True)
class Facts:
    """What the page knows of its server.

    Args:
        model: the model's name.
        context: tokens that the model reads.
        max_tokens: tokens of a completion at most.
        traces: whether texts can be traced.
    """

    model: str
    context: int
    max_tokens: int
    traces: bool


def add_playground(app: FastAPI, facts: Facts, hosts: Sequence[str], tracer: Traces | None = None) -> None:
    """Add the page to the completions' application.

    Args:
        app: the application.
        facts: what the page is told.
        hosts: names of this server that a browser may use, see `host_names`.
        tracer: what traces texts; without it the page only completes.
    """
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    page = live_page(asdict(facts))
    app.get("/", include_in_schema=False)(partial(_answer, page, "text/html"))
    for name, kind in STATIC.items():
        app.get(f"/{name}", include_in_schema=False)(partial(_answer, static(name), kind))
    if tracer:
        desk = _Desk(tracer)
        app.post("/trace", response_model=None)(desk.trace)
        app.post("/export", response_model=None)(desk.export)


async def _answer(text: str, kind: str) -> Response:
    return Response(text, media_type=kind, headers=_HEADERS)


class _Desk:
    """Traces texts one after the other, beside the event loop."""

    def __init__(self, tracer: Traces) -> None:
        self._tracer, self._free = tracer, asyncio.Lock()

    async def trace(self, http: Request) -> JSONResponse:
        """Where a text comes from."""
        text = (await _read(http, '{"text": "…"}')).get("text")
        if not is_text(text) or not str(text).strip():
            raise ApiError(400, "there is no text to trace", "text")
        await self._check()
        async with self._free:
            return JSONResponse(await asyncio.to_thread(self._tracer.trace, str(text)))

    async def export(self, http: Request) -> Response:
        """A trace as a page to keep; not one that a browser still shows though its index is stale."""
        found = await _read(http, '{"text": "…", "matches": […], …}')
        await self._check()
        page = await asyncio.to_thread(kept_page, found)
        return HTMLResponse(page, headers=_HEADERS | {"Content-Disposition": 'attachment; filename="trace.html"'})

    async def _check(self) -> None:
        """Answer that the service cannot, which is not the client's fault, when the index is stale."""
        try:
            await asyncio.to_thread(self._tracer.check)
        except UserError as error:
            raise ApiError(503, str(error)) from None


async def _read(http: Request, example: str) -> dict[str, Any]:
    return read_object(http.headers.get("content-type", ""), await http.body(), example)
