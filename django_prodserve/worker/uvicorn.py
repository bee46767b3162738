"""uvicorn in a worker of Gunicorn, with our middleware: signals of its arbiter alone, and an end in time.

Lives in a worker, whose main thread runs the loop and everything on it. For people who ask for it
(``--worker-class uvicorn``): our own worker runs async views, too, and keeps more promises.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gunicorn.arbiter import Arbiter
from uvicorn.server import Server as BaseServer
from uvicorn_worker import UvicornWorker as BaseWorker

from ..middleware.asgi import ASGIApplication
from ..scoreboard import stop_flags
from .other_servers import asgi_of, init_signals, meanwhile

BEFORE_THE_END = 0.5
"""Seconds before the graceful timeout in which uvicorn cancels what still runs: then the arbiter kills it."""


class Server(BaseServer):  # type: ignore[misc]  # the lint group installs no uvicorn
    """uvicorn without signal handlers of its own."""

    def __init__(self, worker: UvicornWorker) -> None:
        super().__init__(config=worker.config)
        self.worker = worker

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the worker, which obeys its arbiter only."""
        yield

    async def shutdown(self, sockets: Any = None) -> None:
        async with meanwhile(self._end_connections()):
            await super().shutdown(sockets)

    async def _end_connections(self) -> None:
        """End what has no end of its own: event streams. uvicorn itself closes websockets."""
        stop_flags.mark_stopped_accepting(self.worker)
        await self.worker.asgi.end(for_good=stop_flags.closing())


class UvicornWorker(BaseWorker):  # type: ignore[misc]  # the same
    """Serves through uvicorn, with httptools and uvloop where they are installed."""

    CONFIG_KWARGS = {  # noqa: RUF012, the name is uvicorn-worker's
        "loop": "auto",
        "http": "auto",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
    }
    asgi: ASGIApplication
    server: Server | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        logger = logging.getLogger("uvicorn.error")
        if logger.level > logging.DEBUG:  # its routine lines describe its internals
            logger.setLevel(max(logging.WARNING, logger.level))
        patience = max(0.5, self.cfg.graceful_timeout - BEFORE_THE_END)
        self.config.timeout_graceful_shutdown = patience

    def init_signals(self) -> None:
        init_signals(self)

    def handle_exit(self, sig: int, frame: object) -> None:
        self.alive = False
        if self.server is not None:
            self.server.should_exit = True

    def handle_quit(self, sig: int, frame: object) -> None:
        self.handle_exit(sig, frame)
        self.cfg.worker_int(self)
        if self.server is not None:
            self.server.force_exit = True

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.asgi = asgi_of(self.wsgi)

    def disown(self) -> None:
        """In a copy of this process, nothing: the middleware ends the copy."""

    async def _serve(self) -> None:
        self.asgi.serve_in(self)
        self.config.app = self.asgi
        server = self.server = Server(self)
        server.should_exit = not self.alive
        await server.serve(sockets=self.sockets)
        if not server.started:
            sys.exit(Arbiter.WORKER_BOOT_ERROR)
