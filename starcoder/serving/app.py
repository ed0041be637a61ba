"""The endpoint's routes: OpenAI's completions over an `Engine`."""

import asyncio
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starcoder.errors import UserError
from starcoder.serving.completion import Completion, Limits
from starcoder.serving.engine import ClosingError, Engine, FullError, ModelError
from starcoder.serving.protocol import (
    ApiError,
    CompletionRequest,
    choice_body,
    error_body,
    head_body,
    model_body,
    sse,
    usage_body,
)
from starcoder.tokenizer import Tokenizer

_CLIENT_GONE = 499


@dataclass(frozen=True)
class Settings:
    """What the endpoint is.

    Args:
        name: the model's.
        limits: what a request may ask for.
        max_body_bytes: longest request.
        api_key: what a request must bear, if anything.
        allow_origins: web pages whose scripts may ask, `*` for all; none by default.
    """

    name: str
    limits: Limits
    max_body_bytes: int
    api_key: str | None = None
    allow_origins: Sequence[str] = ()


class Api:
    """The routes' functions."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, settings: Settings) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.created = int(time.time())

    async def health(self) -> JSONResponse:
        """Whether completions are taken, and how many are under way."""
        running, waiting = self.engine.load
        status = "ok" if self.engine.healthy else "closing"
        body = {"status": status, "running": running, "waiting": waiting}
        return JSONResponse(body, 200 if self.engine.healthy else 503)

    async def models(self) -> dict[str, Any]:
        """The one model."""
        return {"object": "list", "data": [self._model()]}

    async def model(self, name: str) -> dict[str, Any]:
        """The model, by its name."""
        self._check_name(name)
        return self._model()

    async def chat(self) -> None:
        """Refuse conversations."""
        message = f"{self.settings.name} is no chat model: it continues and infills code, at /v1/completions"
        raise ApiError(404, message, "model", "unsupported_endpoint")

    async def completions(self, body: CompletionRequest, http: Request) -> Response:
        """Complete, or with a suffix infill."""
        self._check_name(body.model)
        completion = await asyncio.to_thread(Completion, body, self.tokenizer, self.settings.limits)
        completion.start(self.engine)
        head = head_body(self.settings.name)
        if body.stream:
            usage = bool(body.stream_options and body.stream_options.include_usage)
            return _Stream(self._events(completion, head, usage), completion.cancel)
        try:
            answer = await _while_connected(self._whole(completion, head), http)
        finally:
            completion.cancel()
        return Response(status_code=_CLIENT_GONE) if answer is None else JSONResponse(answer)

    async def _whole(self, completion: Completion, head: dict[str, Any]) -> dict[str, Any]:
        choices = [choice_body(index, "", None) for index in range(len(completion.wishes))]
        async for piece in completion.pieces():
            choice = choices[piece.choice]
            choice["text"] += piece.text
            choice["finish_reason"] = piece.finish
        return head | {"choices": choices, "usage": _usage(completion)}

    async def _events(self, completion: Completion, head: dict[str, Any], usage: bool) -> AsyncIterator[bytes]:
        def chunk(choices: list[Any], counts: Any = None) -> bytes:
            return sse(head | {"choices": choices} | ({"usage": counts} if usage else {}))

        try:
            async for piece in completion.pieces():
                if piece.text or piece.finish:
                    yield chunk([choice_body(piece.choice, piece.text, piece.finish)])
        except Exception as error:  # too late for another status
            answer = _api_error(error)
            yield sse({"error": error_body(answer.status_code, answer.detail, answer.param, answer.code)})
            return
        if usage:
            yield chunk([], _usage(completion))
        yield sse("[DONE]")

    def _model(self) -> dict[str, Any]:
        return model_body(self.settings.name, self.created, self.settings.limits.context_length)

    def _check_name(self, name: str) -> None:
        if name != self.settings.name:
            message = f"there is no model {name!a} here, only {self.settings.name!r}"
            raise ApiError(404, message, "model", "model_not_found")


def create_app(engine: Engine, tokenizer: Tokenizer, settings: Settings) -> FastAPI:
    """The application; `engine` is started and stopped by whoever runs it."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    api = Api(engine, tokenizer, settings)
    app.get("/health", response_model=None)(api.health)
    app.get("/v1/models")(api.models)
    app.get("/v1/models/{name:path}")(api.model)
    app.post("/v1/completions", response_model=None)(api.completions)
    app.post("/v1/chat/completions", response_model=None)(api.chat)
    for kind in (HTTPException, RequestValidationError, FullError, ClosingError, ModelError, UserError, Exception):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(_Gate, settings)
    if settings.allow_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=settings.allow_origins, allow_methods=["*"], allow_headers=["*"]
        )
    return app


class _Stream(StreamingResponse):
    """Server-sent events; `close` is called at their end, or when the client goes."""

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()


class _Gate:
    """Turns away, before anything is read of them, requests without the key, and those that are too long."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app, self.limit = app, settings.max_body_bytes
        self.key = settings.api_key.encode() if settings.api_key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if self.key and scope["path"] != "/health" and not self._has_key(headers.get(b"authorization", b"")):
            error = ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
            await error.response()(scope, receive, send)
        elif int(headers.get(b"content-length", b"0")) > self.limit:
            await self._too_long().response()(scope, receive, send)
        else:
            await self.app(scope, self._counted(receive), send)

    def _has_key(self, authorization: bytes) -> bool:
        return hmac.compare_digest(authorization, b"Bearer " + (self.key or b""))

    def _counted(self, receive: Receive) -> Receive:
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise self._too_long()
            return message

        return counted

    def _too_long(self) -> ApiError:
        return ApiError(413, f"a request has at most {self.limit} bytes", code="request_too_large")


async def _while_connected(work: Any, http: Request) -> Any:
    """The result of `work`, which is cancelled when the client goes: then None."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(http))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for future in (task, gone):
            future.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await task


async def _gone(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _usage(completion: Completion) -> dict[str, int]:
    return usage_body(completion.prompt_tokens, completion.completion_tokens)


def _answer(http: Request, error: Exception) -> JSONResponse:
    return _api_error(error).response()


_ERRORS: dict[type[Exception], ApiError] = {
    FullError: ApiError(429, "too many requests wait already: try again", code="queue_full", retry_after=1),
    ClosingError: ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5),
}


def _api_error(error: Exception) -> ApiError:
    """What the client is told of an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail)
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        param = ".".join(map(str, first["loc"][1:])) or None
        return ApiError(400, f"{param or 'the request'}: {first['msg']}", param)
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    return _ERRORS.get(type(error)) or ApiError(500, "the server has failed: its log says why")
