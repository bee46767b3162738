"""What a worker runs on its asyncio loop: the applications, which requests they get, threads for their calls.

Built in the arbiter, before the fork. The worker calls ``wants`` in the thread that receives a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote

from ..utils.units import counted
from . import shared_loop
from .handler import Handler, load, why_not
from .leases import Leases
from .leases import why_not as leases_why_not
from .project import ASGIApplication, ProjectApplication
from .routes import Routes
from .sending import Sender

Takes = Literal["all", "async routes", "nothing"]
"""Which HTTP requests run on the loop."""


@dataclass(frozen=True)
class AsyncPart:
    """The async part of a project."""

    application: ASGIApplication
    """The application for HTTP: Django's, or the project's own."""
    routes: Routes
    leases: Leases
    """The threads for what may block."""
    why_stock: str
    """Why Django's own handler serves the requests; empty if ours does."""
    shares_loop: bool
    """Whether ``async_to_sync`` in the threads of the pool may use the worker's loop."""
    floats: bool = False
    """Whether the sync code of each websocket may run in a leased thread of its own."""
    files: Sequence[Callable[[str], bool]] = ()
    """Return whether a path may be one of a file, which is served in threads."""
    script: str = ""
    """The script name, which is not in a route."""
    takes: Takes = "async routes"
    websocket: ASGIApplication | None = None
    """The application for websockets; None if the project has none for them."""
    lifespan: ASGIApplication | None = None
    """The application that may want to know when a worker starts and stops."""
    name: str = ""
    """The dotted path of the project's own application."""

    @classmethod
    def find(
        cls,
        project: ProjectApplication | None,
        takes: Takes,
        files: Sequence[Callable[[str], bool]],
        script: str,
        *,
        threads: int,
        patience: float,
        speedups: bool,
    ) -> AsyncPart | None:
        """Return it; None if nothing of the project runs on a loop.

        ``threads`` may run what blocks at a time; a call waits ``patience`` seconds for one.
        """
        routes = Routes()
        if takes == "async routes" and not routes.has_async:
            takes = "nothing"
        websocket = project.websocket if project is not None else None
        if takes == "nothing" and websocket is None:
            return None
        leases = Leases(threads, patience)
        application: ASGIApplication
        if takes == "all" and project is not None and project.foreign:
            application, why = project.application, ""
        else:
            application = load(leases, speedups=speedups)
            ours = isinstance(application, Handler)
            why = "" if ours else f"Django's own handler: {why_not() or '--speedups off'}"
        return cls(
            application,
            routes,
            leases,
            why,
            shares_loop=speedups and not shared_loop.why_not(),
            floats=speedups and not leases_why_not(),
            files=files,
            script=script,
            takes=takes,
            websocket=websocket,
            lifespan=project.lifespan if project is not None else None,
            name=project.path if project is not None else "",
        )

    def __str__(self) -> str:
        sockets = [] if self.websocket is None else ["websockets"]
        counts = self.routes.async_routes, self.routes.sync_routes
        if self.takes == "all":
            return f"{' and '.join(['all requests', *sockets])} on the asyncio loop"
        if self.takes == "nothing":
            return f"websockets on the asyncio loop; {counted(sum(counts), 'route')} in threads"
        here, there = [counted(counts[0], "async route"), *sockets], counted(counts[1], "sync route")
        return f"{' and '.join(here)} on the asyncio loop; {there} in threads"

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
        if self.takes == "nothing":
            return False
        if "%" in path:
            path = unquote(path)
        path = path.removeprefix(self.script)
        if self.takes == "async routes" and self.routes.road(path) != "async":
            return False
        return not any(is_file(path) for is_file in self.files)
