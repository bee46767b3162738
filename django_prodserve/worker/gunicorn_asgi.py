"""Gunicorn's own ASGI worker, with our middleware: signals of its arbiter alone, and an orderly end.

Lives in a worker, whose main thread runs the loop and everything on it. For people who ask for it
(``--worker-class asgi``): our own worker runs async views, too, and keeps more promises.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gunicorn.asgi.protocol import ASGIProtocol
from gunicorn.workers import gasgi

from ..logs.gunicorn_logger import Logger
from ..middleware.asgi import ASGIApplication
from ..scoreboard import stop_flags
from .other_servers import asgi_of, init_signals, meanwhile

LINGER_IDLE = 2.0
"""Seconds that a stopping worker waits for a request that a client may be sending on an idle connection."""


class SilentLogger(Logger):
    """The same logger without access lines: our middleware writes them, with ids and routes."""

    access_log_enabled = False

    def __init__(self, log: Logger) -> None:
        self.__dict__.update(log.__dict__)


class Protocol(ASGIProtocol):  # type: ignore[misc]  # Gunicorn has no types
    """A connection, which its worker knows."""

    def connection_made(self, transport: Any) -> None:
        self.worker.protocols.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self.worker.protocols.discard(self)
        super().connection_lost(error)

    def close_if_idle(self) -> None:
        """Close the connection if it waits for its next request."""
        if getattr(self, "_awaiting_request", False) and not getattr(self, "_finishing_calls", None):
            self.transport.close()


class ASGIWorker(gasgi.ASGIWorker):  # type: ignore[misc]  # Gunicorn has no types
    """Serves through Gunicorn's ASGI protocol."""

    wsgi: Any
    log: Any
    asgi: ASGIApplication

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.protocols: set[Protocol] = set()

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Accept ``threads``: they are for what blocks."""

    def init_signals(self) -> None:
        init_signals(self)

    def handle_quit(self, sig: int, frame: object) -> None:
        self.handle_quit_signal()

    def load_wsgi(self) -> None:
        self.wsgi = self.app.wsgi()
        self.asgi = asgi_of(self.wsgi)

    def disown(self) -> None:
        """In a copy of this process, nothing: the middleware ends the copy."""

    def run(self) -> None:
        self.asgi.serve_in(self)
        if isinstance(self.log, Logger):
            self.log = SilentLogger(self.log)
        gasgi.ASGIProtocol = Protocol  # what the loop makes of each connection
        super().run()

    async def _shutdown(self) -> None:
        async with meanwhile(self._end_connections()):
            await asyncio.sleep(0)  # the loop accepts what waits in the listeners' queues
            await super()._shutdown()

    async def _end_connections(self) -> None:
        """End what has no end of its own: websockets, event streams, and connections without a request."""
        await asyncio.sleep(0)
        stop_flags.mark_stopped_accepting(self)
        until = self.loop.time() + LINGER_IDLE
        await self.asgi.end(for_good=stop_flags.closing())
        while True:
            if self.loop.time() >= until:
                for protocol in [*self.protocols]:
                    protocol.close_if_idle()
            await asyncio.sleep(0.05)
