"""The worker: an event loop holds the sockets, and threads only run Django. Start at ``ProdserveWorker``.
    acceptor                 decides whether this worker accepts a connection
    receiver                 collects the whole request
    static_cache             answers requests for small static files immediately
    scheduler                gives the request a thread, queues it, or refuses it
    request_handler          calls Django
    async_requests           runs async views as tasks on the asyncio loop (asyncio_loop) instead
    websockets               runs the applications of websockets as such tasks (websocket, websocket_link)
    streaming, write_buffer  keep the bytes that the client accepts later

``reactor`` connects these modules. Every module names the thread in which it runs.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ProdserveWorker"]


def __getattr__(name: str) -> Any:
    """Import Gunicorn only on access to the worker class: the import parses the environment."""
    if name == "ProdserveWorker":
        from .worker import ProdserveWorker

        return ProdserveWorker
    raise AttributeError(name)
