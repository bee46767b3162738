"""The worker: sockets wait on an event loop, threads only ever run Django. Start at ``ProdserveWorker``.

    acceptor                 decides whether this worker takes a connection
    receiver                 collects the whole request
    static_cache             answers small static files at once
    scheduler                gives the request a thread, queues it, or refuses it
    request_handler          calls Django
    streaming, write_buffer  keep what the client takes later

``reactor`` is where they meet. Every module says in which thread it lives.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ProdserveWorker"]


def __getattr__(name: str) -> Any:
    """Import Gunicorn only when the worker is asked for: that parses the environment."""
    if name == "ProdserveWorker":
        from .worker import ProdserveWorker

        return ProdserveWorker
    raise AttributeError(name)
