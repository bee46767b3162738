"""What a worker runs on its asyncio loop: the applications, which requests they get, threads for their calls.

Built in the arbiter, before the fork. The worker calls ``wants`` in the thread that receives a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import unquote

from . import shared_loop
from .handler import Handler, load, why_not
from .leases import Leases
from .leases import why_not as leases_why_not
from .project import ASGIApplication
from .road_table import RoadTable, Takes
from .routes import Routes
from .sending import Sender


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
    roads: str = ""
    """What runs where, in one line."""
    state: dict[str, Any] = field(default_factory=dict)
    """What that application stores at its startup, in one worker: each scope gets a copy."""

    @classmethod
    def find(
        cls,
        table: RoadTable,
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
        if not table.has_loop:
            return None
        leases, project = Leases(threads, patience), table.project
        application: ASGIApplication
        if table.foreign is not None:
            application, why = table.foreign.application, ""
        else:
            application = load(leases, speedups=speedups)
            ours = isinstance(application, Handler)
            why = "" if ours else f"Django's own handler: {why_not() or '--speedups off'}"
        return cls(
            application,
            table.routes,
            leases,
            why,
            shares_loop=speedups and not shared_loop.why_not(),
            floats=speedups and not leases_why_not(),
            files=files,
            script=script,
            takes=table.takes,
            websocket=project.websocket if project is not None else None,
            lifespan=project.lifespan if project is not None else None,
            name=project.path if project is not None else "",
            roads=str(table),
        )

    def without_views(self) -> AsyncPart | None:
        """Return the part whose views run in threads; None if nothing is left of it.

        An application in place of Django's answers nowhere else: it keeps its requests.
        """
        if self.takes != "async routes":
            return self
        return None if self.websocket is None else replace(self, takes="nothing")

    @property
    def is_ours(self) -> bool:
        """Return whether our handler serves the requests: it gets complete bodies, and may be cancelled."""
        return isinstance(self.application, Handler)

    @property
    def adopts(self) -> bool:
        """Return whether the loop may send the async stream of a view in a thread."""
        return self.is_ours and self.takes != "nothing"

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
        if self.routes.road(path) != "async":
            return False
        return not any(is_file(path) for is_file in self.files)
