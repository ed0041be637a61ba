"""What stands before the routes: requests are let in whole, in time, not too long, and with the key."""

import asyncio
import hmac

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from starcoder.serving.protocol import ApiError


class Gate:
    """Reads a request before the application sees any of it, unless it has no key, is too long or too slow.

    Args:
        app: what answers the requests that are let in.
        max_bytes: longest body.
        api_key: what a request must bear, if anything.
        patience: seconds in which a body must arrive.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, api_key: str | None = None, patience: float = 60.0) -> None:
        self.app, self.max_bytes, self.patience = app, max_bytes, patience
        self._key = api_key.encode() if api_key else None
        self._reading: set[asyncio.Timeout] = set()
        self._closed = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            body = await self._admit(scope, receive)
        except ApiError as error:
            await error.response()(scope, receive, send)
            return
        if body is not None:
            await self.app(scope, _replayed(body, receive), send)

    def close(self) -> None:
        """Wait no longer for what is not here yet."""
        self._closed = True
        for deadline in self._reading:
            if not deadline.expired():
                deadline.reschedule(0)

    async def _admit(self, scope: Scope, receive: Receive) -> bytes | None:
        """The body; None when the client goes."""
        headers = dict(scope["headers"])
        if self._key and scope["path"] != "/health" and not self._has_key(headers.get(b"authorization", b"")):
            raise ApiError(401, "the API key is missing or wrong", code="invalid_api_key")
        if int(headers.get(b"content-length", b"0")) > self.max_bytes:
            raise self._too_long()
        try:
            async with asyncio.timeout(0 if self._closed else self.patience) as deadline:
                self._reading.add(deadline)
                return await self._read(receive)
        except TimeoutError:
            if self._closed:
                raise closing() from None
            message = f"the request did not arrive within {self.patience:.0f} seconds"
            raise ApiError(408, message, code="request_timeout", close=True) from None
        finally:
            self._reading.discard(deadline)

    async def _read(self, receive: Receive) -> bytes | None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.max_bytes:
                raise self._too_long()
        return bytes(body)

    def _has_key(self, authorization: bytes) -> bool:
        return hmac.compare_digest(authorization, b"Bearer " + (self._key or b""))

    def _too_long(self) -> ApiError:
        return ApiError(413, f"a request has at most {self.max_bytes} bytes", code="request_too_large")


def closing() -> ApiError:
    """What those are told whom a server that ends does not answer."""
    return ApiError(503, "the server is shutting down", code="shutting_down", retry_after=5)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What receives `body`, and then what `receive` does."""
    whole: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return whole.pop() if whole else await receive()

    return replayed
