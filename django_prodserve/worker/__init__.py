"""The worker: sockets wait on an event loop, threads only ever run Django. Start at ``ProdserveWorker``.

    acceptor  whose connection it is
    receiver  the whole request
    static_cache  answered at once
    scheduler  a thread for it, its place in the queue, or a refusal
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
