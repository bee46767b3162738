"""The facts of a loaded project that matter where its async views run on an asyncio loop.

Read once, in the process that has loaded the project: a start, its test process, or a command. Calls no view
and creates no middleware.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from weakref import ReferenceType

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.signals import request_started
from django.db import connections
from django.urls import get_resolver
from django.utils.module_loading import import_string

from ..asgi.project import ProjectApplication, load_application
from ..errors import ProdserveError
from ..utils.names import full_name

CHECKS_ORIGIN = "channels.security.websocket.OriginValidator"
WRAPPED = "inner", "application", "app"
"""Where a wrapper of an ASGI application keeps what it wraps."""


@dataclass(frozen=True, kw_only=True)
class Receiver:
    """A receiver of ``request_started`` that names what only one kind of request sends."""

    name: str
    parameter: str
    """``environ``, which only requests in threads send, or ``scope``, which only those on the loop send."""
    is_required: bool
    """Whether a request that does not send it fails."""


@dataclass(frozen=True, kw_only=True)
class AsyncFacts:
    """The facts about async views, their middleware and websockets."""

    async_views: int = 0
    sync_only: tuple[str, ...] = ()
    """Middleware that cannot be async, as MIDDLEWARE has it."""
    atomic_alias: str = ""
    """A database with ATOMIC_REQUESTS; empty if no async view is affected."""
    atomic: tuple[str, ...] = ()
    """Async views that ATOMIC_REQUESTS breaks."""
    receivers: tuple[Receiver, ...] = ()
    foreign: str = ""
    """The path of the ASGI application, if something else than Django's handler answers HTTP in it."""
    open_sockets: str = ""
    """The websocket application in which nobody checks the Origin header."""

    @classmethod
    def read(cls) -> AsyncFacts:
        """Read them; the URLconf is loaded if it is not."""
        views = [*async_views(get_resolver())]
        project = _project()
        alias, atomic = broken_by_transactions(views)
        return cls(
            async_views=len(views),
            sync_only=tuple(sync_only(settings.MIDDLEWARE)),
            atomic_alias=alias,
            atomic=tuple(atomic),
            receivers=tuple(one_sided()),
            foreign=project.path if project is not None and project.foreign else "",
            open_sockets=project.path if project is not None and _opens_sockets(project.application) else "",
        )


def async_views(entry: Any) -> Iterator[Callable[..., Any]]:
    """Yield the async views below an entry of a URLconf."""
    if hasattr(entry, "url_patterns"):
        for each in entry.url_patterns:
            yield from async_views(each)
    elif iscoroutinefunction(view := getattr(entry, "callback", None)):
        yield view


def sync_only(paths: list[str]) -> Iterator[str]:
    """Yield the middleware that Django calls in a thread, with all that comes before it in MIDDLEWARE."""
    for path in paths:
        try:
            middleware = import_string(path)
        except Exception:  # an import may raise anything; Django reports it
            continue
        if not getattr(middleware, "async_capable", False):
            yield path


def broken_by_transactions(views: list[Callable[..., Any]]) -> tuple[str, list[str]]:
    """Return a database with ATOMIC_REQUESTS, and the async views for which Django raises RuntimeError."""
    aliases = {alias for alias, entry in connections.settings.items() if entry.get("ATOMIC_REQUESTS")}
    found = {
        name_of(view): min(left)
        for view in views
        if (left := aliases - set(getattr(view, "_non_atomic_requests", ())))
    }
    return next(iter(found.values()), ""), [*found]


def one_sided() -> Iterator[Receiver]:
    """Yield the receivers of ``request_started`` that ask for ``scope`` or ``environ`` by name."""
    for entry in request_started.receivers:
        function = entry[1]() if isinstance(entry[1], ReferenceType) else entry[1]
        if function is None:  # it has gone
            continue
        try:
            known = inspect.signature(function).parameters
        except (TypeError, ValueError):  # written in C
            continue
        named = {name: known[name] for name in ("environ", "scope") if name in known}
        required = [name for name, one in named.items() if one.default is one.empty]
        if len(named) == 1 or required:
            name = (required or [*named])[0]
            yield Receiver(name=name_of(function), parameter=name, is_required=bool(required))


def name_of(function: Any) -> str:
    """Return module and name of a function or of a view, also of one in a wrapper or a partial."""
    return full_name(getattr(function, "view_class", None) or getattr(function, "func", function))


def _project() -> ProjectApplication | None:
    try:
        return load_application()
    except ProdserveError:  # whoever serves the application reports it
        return None


def _opens_sockets(application: Any) -> bool:
    """Return whether a page of any site may open the websockets of an application."""
    try:
        part = getattr(application, "application_mapping", {}).get("websocket")
        return part is not None and leads_to_consumer(part, import_string(CHECKS_ORIGIN))
    except Exception:  # a router of the project may do anything
        return False


def leads_to_consumer(part: Any, checks: type) -> bool:
    """Return whether a consumer is reached without a check of the Origin; False if a part is not known."""
    if part is None or isinstance(part, checks):
        return False
    if hasattr(part, "consumer_class"):  # of as_asgi()
        return True
    if routes := getattr(part, "routes", None):
        return any(leads_to_consumer(getattr(route, "callback", None), checks) for route in routes)
    return any(
        leads_to_consumer(vars(part).get(name), checks) for name in WRAPPED if hasattr(part, "__dict__")
    )
