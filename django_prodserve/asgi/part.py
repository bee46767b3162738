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
from .leases import why_not as leases_why_not
from .routes import Routes
from .sending import Sender

ASGIApplication = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Called with a scope, ``receive`` and ``send``."""


def _websocket_part() -> ASGIApplication | None:
    from django.conf import settings
    from django.core.handlers.asgi import ASGIHandler
    from django.utils.module_loading import import_string

    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return None
    application: Any = import_string(path)
    mapping = getattr(application, "application_mapping", None)
    if mapping is not None:
        return application if "websocket" in mapping else None
    return None if type(application) is ASGIHandler else application


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
    websocket: ASGIApplication | None = None
    """The application of websockets; None if the project has none."""
    floats: bool = False
    """Whether the sync code of each websocket may run in a leased thread of its own."""
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
        websocket = _websocket_part()
        if not routes.has_async and websocket is None:
            return None
        leases = Leases(threads, patience)
        application = load(leases, speedups=speedups)
        why = (
            ""
            if isinstance(application, Handler)
            else f"Django's own handler: {why_not() or '--speedups off'}"
        )
        shares_loop = speedups and not shared_loop.why_not()
        floats = speedups and not leases_why_not()
        return cls(application, routes, leases, why, shares_loop, websocket, floats, files, script)

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
