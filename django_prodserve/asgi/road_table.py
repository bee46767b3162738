"""Which HTTP requests of a project run on the asyncio loop, and why: one line for the start and the plan.

Built after the project is loaded. It creates no middleware and no handler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ..utils.decision import Decision
from ..utils.names import full_name
from ..utils.units import counted
from .chosen_roads import ChosenRoads, NoChoice, Road
from .project import ProjectApplication
from .routes import Routes

Takes = Literal["all", "async routes", "nothing"]
"""Which HTTP requests run on the loop."""
REQUEST_HOOKS = {"pre_request", "post_request"}
"""Gunicorn's hooks for each request. They may block, so that views run where they may, too."""
NO_ROADS: Decision[tuple[str, ...]] = Decision((), "none is chosen")


def observing_hooks(settings: Iterable[str]) -> str:
    """Return the names of the hooks among these settings of Gunicorn that must see each request."""
    hooks = sorted(REQUEST_HOOKS.intersection(settings))
    return f"Gunicorn's {' and '.join(hooks)}" if hooks else ""


@dataclass(frozen=True, kw_only=True)
class RoadTable:
    """The roads of a project."""

    takes: Takes
    routes: Routes
    project: ProjectApplication | None = None
    mode: Decision[str] = Decision("hybrid", "")
    """The option ``--asgi``."""
    observer: str = ""
    """What must see each request, and sees only those in threads; empty for nothing."""
    unused: str = ""
    """The source of chosen roads that have no effect."""

    @classmethod
    def find(
        cls,
        mode: Decision[str],
        project: ProjectApplication | None,
        observer: str = "",
        roads: Decision[tuple[str, ...]] = NO_ROADS,
    ) -> RoadTable:
        """Decide by the option, the project's application, and what must see each request.

        Raise UsageError if ``roads`` names no route.
        """
        is_foreign = project is not None and bool(project.foreign)
        takes: Takes = "nothing" if observer else "async routes"
        if mode.value == "asgi" or (is_foreign and mode.source == "default"):
            takes = "all"
        usual: Road = "async" if takes == "all" else "sync"
        has_choice = takes == "async routes" or (takes == "all" and not is_foreign)
        chosen = ChosenRoads(roads.value, roads.source) if has_choice else NoChoice()
        unused = roads.source if roads.value and not has_choice else ""
        routes = Routes(chosen=chosen, usual=usual)
        return cls(takes=takes, routes=routes, project=project, mode=mode, observer=observer, unused=unused)

    @property
    def foreign(self) -> ProjectApplication | None:
        """The project's application, if that gets the HTTP requests in place of Django's handler."""
        is_foreign = self.takes == "all" and self.project is not None and self.project.foreign
        return self.project if is_foreign else None

    @property
    def has_sockets(self) -> bool:
        """Whether the project handles websockets."""
        return self.project is not None and self.project.has_websockets

    @property
    def has_loop(self) -> bool:
        """Whether anything runs on a loop."""
        if self.takes == "nothing":
            return self.has_sockets
        return self.takes == "all" or self.has_sockets or self.routes.has_async

    @property
    def in_plan(self) -> str:
        """What runs where, for the plan; empty if all of it runs in threads."""
        return str(self) if self.has_loop else ""

    def __str__(self) -> str:
        """Return what runs where, why, and what it costs."""
        return "; ".join(filter(None, [self._where(), self.unused and f"{self.unused} has no effect"]))

    def _where(self) -> str:
        sockets = ["websockets"] if self.has_sockets else []
        if self.takes == "all":
            return f"{' and '.join(['all requests', *sockets])} on the asyncio loop{self._why_all}"
        if self.takes == "nothing":
            text = f"all views run in threads: {self.observer} must see each request"
            return f"{text}; websockets on the asyncio loop" if sockets else text
        there, here = self.routes.async_routes, self.routes.sync_routes
        on_loop = [counted(there, "async route")] if there or not sockets else []
        text = f"{' and '.join([*on_loop, *sockets])} on the asyncio loop"
        text += f"; {counted(here, 'sync route')} in threads"
        if self.project is not None and self.project.foreign:
            text += f"; {self.project.foreign} gets no HTTP requests: {self.mode.source} is hybrid"
        return text

    @property
    def _why_all(self) -> str:
        project = self.foreign
        price = "each sync view costs a thread call"
        if project is None:
            count = self.routes.sync_routes
            marked = f"; {counted(count, 'route')} in threads" if count else ""
            return f": {self.mode.source} is asgi, and {price}{marked}"
        return (
            f", by {project.path}, {_reason(project)}. {price.capitalize()}; "
            "--asgi hybrid lets Django answer HTTP without it"
        )


def _reason(project: ProjectApplication) -> str:
    """Return why all HTTP requests go to the project's own application."""
    own = full_name(project.application)
    if project.foreign != own:
        return f"whose HTTP part is {project.foreign} and not Django's handler"
    return "which is not Django's handler" if own == project.path else f"a {own} and not Django's handler"
