"""The worker: sockets wait on an event loop, threads only ever run Django. Start at ``ProdserveWorker``.

    acceptor  whose connection it is
    receiver  the whole request
    static_cache, admission  answered at once, or refused
    thread_pool  a thread for it
    request_handler  Django
    streaming, write_buffer  what the client takes later

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
