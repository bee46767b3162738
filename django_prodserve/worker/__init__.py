"""The worker: sockets wait on an event loop, threads only ever run Django. Start at ``ProdserveWorker``.

    acceptor -> intake -> [shortcut | gate] -> crew -> exchange -> streams, outbox
    (whose)     (whole     (at once, or        (a      (Django)    (what the client
                requests)   not at all)        thread)              takes later)

``reactor`` is where they meet. Every module says in which thread it lives.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ProdserveWorker"]


def __getattr__(name: str) -> Any:
    """Import Gunicorn only when the worker is asked for: that parses the environment."""
    if name == "ProdserveWorker":
        from .process import ProdserveWorker

        return ProdserveWorker
    raise AttributeError(name)
