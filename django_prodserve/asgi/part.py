"""What a worker needs to run async views: the ASGI application, and which requests it gets.

Built in the arbiter, before the fork. The worker calls ``wants`` in the thread that receives a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from typing import Any

from django.urls import Resolver404, get_resolver

from .handler import Handler, load
from .leases import Leases

ASGIApplication = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Called with a scope, ``receive`` and ``send``."""


@dataclass(frozen=True)
class AsyncPart:
    """The async part of a project."""

    application: ASGIApplication
    wants: Callable[[str], bool]
    """Says whether the request for a path, as the client sent it, runs on the asyncio loop."""

    leases: Leases
    """The threads for what may block."""

    @property
    def is_ours(self) -> bool:
        """Say whether our handler serves the requests: it gets each body complete, and may be cancelled."""
        return isinstance(self.application, Handler)

    @classmethod
    def find(cls, *, threads: int, patience: float, speedups: bool) -> AsyncPart | None:
        """Return it; None if no route of the project is async.

        ``threads`` may run what blocks at a time; a call waits ``patience`` seconds for one.
        """
        if not _has_async(get_resolver()):
            return None
        known: dict[str, bool] = {}

        def wants(path: str) -> bool:
            found = known.get(path)
            if found is None:
                try:
                    found = iscoroutinefunction(get_resolver().resolve(path).func)
                except Resolver404:
                    found = False
                known[path] = found
            return found

        leases = Leases(threads, patience)
        return cls(load(leases, speedups=speedups), wants, leases)


def _has_async(resolver: Any) -> bool:
    return any(
        _has_async(entry) if hasattr(entry, "url_patterns") else iscoroutinefunction(entry.callback)
        for entry in resolver.url_patterns
    )
