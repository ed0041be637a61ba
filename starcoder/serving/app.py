"""The endpoint's routes: OpenAI's completions over an `Engine`."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from starcoder.errors import UserError
from starcoder.serving.completion import Completion
from starcoder.serving.engine import ClosingError, Engine, FullError, ModelError
from starcoder.serving.gate import closing
from starcoder.serving.logprobs import joined
from starcoder.serving.prompts import Limits
from starcoder.serving.protocol import (
    ApiError,
    choice_body,
    error_body,
    head_body,
    model_body,
    read_request,
    sse,
    usage_body,
)
from starcoder.tokenizer import Tokenizer

_CLIENT_GONE = 499
_log = logging.getLogger("starcoder.serving")


@dataclass(frozen=True)
class Settings:
    """What the endpoint is.

    Args:
        name: the model's.
        limits: what a request may ask for.
    """

    name: str
    limits: Limits


class Api:
    """The routes' functions."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, settings: Settings) -> None:
        self.engine, self.tokenizer, self.settings = engine, tokenizer, settings
        self.created = int(time.time())

    async def health(self) -> JSONResponse:
        """Whether completions are taken, and how many are under way."""
        running, waiting = self.engine.load
        body = {"status": self.engine.state, "running": running, "waiting": waiting}
        return JSONResponse(body, 200 if self.engine.state == "ok" else 503)

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

    async def completions(self, http: Request) -> Response:
        """Complete, or with a suffix infill."""
        completion = await asyncio.to_thread(self._read, http.headers.get("content-type", ""), await http.body())
        completion.start(self.engine)
        head = head_body(self.settings.name)
        if completion.request.stream:
            options = completion.request.stream_options
            usage = bool(options and options.include_usage)
            return _Stream(self._events(completion, head, usage), completion.cancel)
        try:
            answer = await _while_connected(self._whole(completion, head), http)
        finally:
            completion.cancel()
        return Response(status_code=_CLIENT_GONE) if answer is None else JSONResponse(answer)

    def _read(self, content_type: str, body: bytes) -> Completion:
        request = read_request(content_type, body)
        self._check_name(request.model)
        return Completion(request, self.tokenizer, self.settings.limits)

    async def _whole(self, completion: Completion, head: dict[str, Any]) -> dict[str, Any]:
        choices = [choice_body(index, "", None) for index in range(len(completion.wishes))]
        async for piece in completion.pieces():
            choice = choices[piece.choice]
            choice["text"] += piece.text
            choice["finish_reason"] = piece.finish
            choice["logprobs"] = joined(choice["logprobs"], piece.logprobs)
        return head | {"choices": choices, "usage": _usage(completion)}

    async def _events(self, completion: Completion, head: dict[str, Any], usage: bool) -> AsyncIterator[bytes]:
        def chunk(choices: list[Any], counts: Any = None) -> bytes:
            return sse(head | {"choices": choices} | ({"usage": counts} if usage else {}))

        try:
            async for piece in completion.pieces():
                if piece.text or piece.finish or piece.logprobs:
                    yield chunk([choice_body(piece.choice, piece.text, piece.finish, piece.logprobs)])
        except Exception as error:  # too late for another status
            answer = _api_error(error)
            if answer is _UNKNOWN:
                _log.exception("a stream failed")
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
    app.api_route("/health", methods=["GET", "HEAD"], response_model=None)(api.health)
    app.get("/v1/models")(api.models)
    app.get("/v1/models/{name:path}")(api.model)
    app.post("/v1/completions", response_model=None)(api.completions)
    app.post("/v1/chat/completions", response_model=None)(api.chat)
    for kind in (HTTPException, FullError, ClosingError, ModelError, UserError, Exception):
        app.add_exception_handler(kind, _answer)
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


_FAILED = "the server has failed: its log says why"
_UNKNOWN = ApiError(500, _FAILED)
_ERRORS: dict[type[Exception], ApiError] = {
    FullError: ApiError(429, "too many requests wait already: try again", code="queue_full", retry_after=1),
    ClosingError: closing(),
    ModelError: ApiError(500, _FAILED, code="model_failed"),
}


def _api_error(error: Exception) -> ApiError:
    """What the client is told of an error."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, HTTPException):
        return ApiError(error.status_code, error.detail)
    if isinstance(error, UserError):
        return ApiError(400, str(error))
    return _ERRORS.get(type(error), _UNKNOWN)
