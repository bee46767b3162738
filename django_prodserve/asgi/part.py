"""What a worker needs to run async views: the application, which requests it gets, and threads for its calls.

Built in the arbiter, before the fork. The worker calls ``wants`` in the thread that receives a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from . import shared_loop
from .handler import Handler, load, why_not
from .leases import Leases
from .routes import Routes
from .sending import Sender

ASGIApplication = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Called with a scope, ``receive`` and ``send``."""


@dataclass(frozen=True)
class AsyncPart:
    """The async part of a project."""

    application: ASGIApplication
    routes: Routes
    leases: Leases
    """The threads for what may block."""
    why_stock: str
    """Why Django's own handler serves the requests; empty if ours does."""
    shares_loop: bool
    """Whether ``async_to_sync`` in the threads of the pool may use the worker's loop."""
    files: Sequence[Callable[[str], bool]] = ()
    """Return whether a path may be one of a file, which is served in threads."""
    script: str = ""
    """The script name, which is not in a route."""

    @classmethod
    def find(
        cls,
        files: Sequence[Callable[[str], bool]],
        script: str,
        *,
        threads: int,
        patience: float,
        speedups: bool,
    ) -> AsyncPart | None:
        """Return it; None if no route of the project is async.

        ``threads`` may run what blocks at a time; a call waits ``patience`` seconds for one.
        """
        routes = Routes()
        if not routes.has_async:
            return None
        leases = Leases(threads, patience)
        application = load(leases, speedups=speedups)
        why = (
            ""
            if isinstance(application, Handler)
            else f"Django's own handler: {why_not() or '--speedups off'}"
        )
        shares_loop = speedups and not shared_loop.why_not()
        return cls(application, routes, leases, why, shares_loop, files, script)

    @property
    def is_ours(self) -> bool:
        """Return whether our handler serves the requests: it gets complete bodies, and may be cancelled."""
        return isinstance(self.application, Handler)

    async def stream(self, response: Any, sender: Sender) -> None:
        """Send the async stream of a sync view, whose status and headers the sender has."""
        assert isinstance(self.application, Handler)
        await self.application.stream(response, sender)

    def wants(self, path: str) -> bool:
        """Return whether the request for a path, as the client sent it, runs on the asyncio loop."""
        if "%" in path:
            path = unquote(path)
        path = path.removeprefix(self.script)
        return self.routes.road(path) == "async" and not any(is_file(path) for is_file in self.files)
