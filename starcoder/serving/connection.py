"""A connection on which requests must begin in time."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """uvicorn's, closed when the head of a request has not arrived `patience` seconds after its first byte could."""

    patience = 20.0
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take more of a request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self._rest()

    def _watch(self) -> None:
        if self.cycle and not self.cycle.response_complete:  # a whole head is here: the rest is not ours to time
            self._rest()
        elif not self._deadline:
            self._deadline = self.loop.call_later(self.patience, self.timeout_keep_alive_handler)

    def _rest(self) -> None:
        if self._deadline:
            self._deadline.cancel()
            self._deadline = None
