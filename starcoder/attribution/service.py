"""`starcoder trace serve`: the membership test of an index, for editors that ask Data Portraits' service (paper §8)."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from starcoder.attribution.index import Index
from starcoder.errors import UserError
from starcoder.serving.serve import host_names, listen, need_extra

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


def serve(
    index: Path = Path("build/trace"),
    host: str = "127.0.0.1",
    port: int = 8001,
    local_pages: bool = False,
) -> None:
    """Tell editors whether what they show stands in the corpus: POST /overlap, and /q.

    Point llm-vscode at it with the setting `llm.attributionEndpoint`: http://127.0.0.1:8001/overlap. Once the corpus or
    the index has changed, every request is answered with 503 until the service is started again; of that llm-vscode
    shows nothing, so it is told on the terminal, too.

    Args:
        index: Folder that `starcoder trace index` wrote.
        host: Address to listen at; 0.0.0.0 is every one that this machine has.
        port: Port to listen at; 0 takes a free one, which is printed.
        local_pages: Let scripts of web pages that this machine serves ask, too.

    Raises:
        UserError: There is no index, it is stale, or nobody can listen at this address.
    """
    if not 0 <= port <= 65535:
        raise UserError(f"port is {port}, outside [0, 65535]")
    need_extra()
    opened = Index.open(index)
    with listen(host, port) as listener:
        import uvicorn
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from starcoder.attribution.overlap import overlap_app

        names = list(host_names(listener.getsockname()[0]))
        current = Current(overlap_app(opened.membership, local_pages), opened)
        app = TrustedHostMiddleware(current, allowed_hosts=names, www_redirect=False)
        config = uvicorn.Config(app, loop="asyncio", lifespan="off", log_level="warning", server_header=False)
        listener.listen()
        name, bound = listener.getsockname()[:2]
        print(f"{index} at http://{f'[{name}]' if ':' in name else name}:{bound}/overlap; Ctrl-C ends it", flush=True)
        uvicorn.Server(config).run(sockets=[listener])


class Current:
    """An application that answers as long as an index is current, and says why not afterwards."""

    def __init__(self, app: "ASGIApp", index: Index) -> None:
        self._app, self._index = app, index
        self._told = ""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        try:
            self._index.check()
        except UserError as error:
            if str(error) != self._told:
                self._told = str(error)
                print(f"starcoder: {error}", file=sys.stderr, flush=True)
            body = json.dumps({"error": str(error)}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": body})
            return
        await self._app(scope, receive, send)
