"""The project's ASGI_APPLICATION: loaded, and which part of it serves HTTP, websockets and lifespan.

Runs where the project is loaded: in the arbiter, before the fork (in the worker with --no-preload), in the
test process, and in the commands plan and check. Channels is not imported here: if the project uses it, it
has been.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.utils.module_loading import import_string

from ..errors import ProdserveError
from ..utils.names import full_name
from ..utils.tracebacks import project_error

ASGIApplication = Callable[[dict[str, Any], Any, Any], Awaitable[None]]
"""Called with a scope, ``receive`` and ``send``."""


@dataclass(frozen=True, kw_only=True)
class ProjectApplication:
    """ASGI_APPLICATION, by what it does with each kind of scope."""

    path: str
    """The dotted path in the setting."""
    application: ASGIApplication
    foreign: str = ""
    """What answers HTTP instead of Django's own handler, by its class or name; empty if that handler does."""
    has_websockets: bool = False
    has_lifespan: bool = False

    @property
    def websocket(self) -> ASGIApplication | None:
        """The application for websockets: the outermost one, so that nothing around them is skipped."""
        return self.application if self.has_websockets else None

    @property
    def lifespan(self) -> ASGIApplication | None:
        """The application that may want to know when a worker starts and stops."""
        return self.application if self.has_lifespan else None


def load_application() -> ProjectApplication | None:
    """Return the project's ASGI_APPLICATION, None without one; raise ProdserveError if it cannot be used."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return None
    try:
        application = import_string(path)
    except Exception as error:  # an import may raise anything
        found = project_error(f"ASGI_APPLICATION {path} cannot be loaded", error)
        found.hint = found.hint or "Correct ASGI_APPLICATION in the settings."
        raise found from error
    if reason := _why_not(application):
        raise ProdserveError(
            f"ASGI_APPLICATION is {path!r}, but that is {reason}.",
            "Name the ASGI application, which startproject calls application in asgi.py.",
            code="project",
        )
    return divide(path, application)


def _why_not(application: Any) -> str:
    """Return what an object is that cannot be called as an ASGI application; empty if it can be."""
    if isinstance(application, WSGIHandler):
        return "Django's WSGI application"
    if isinstance(application, ModuleType):
        return "a module"
    if inspect.isclass(application):
        return "a class and not an instance of it"
    return (
        ""
        if callable(application)
        else f"an object of class {type(application).__name__}, which cannot be called"
    )


def divide(path: str, application: Any) -> ProjectApplication:
    """Return which kinds of scope an application handles itself."""
    if type(application) is ASGIHandler:
        return ProjectApplication(path=path, application=application)
    # What is around the router, or in place of it, may treat each scope in its own way.
    routes = _mapping_of(application)
    if routes is None:
        name = full_name(application)
        return ProjectApplication(
            path=path, application=application, foreign=name, has_websockets=True, has_lifespan=True
        )
    http = routes.get("http")
    return ProjectApplication(
        path=path,
        application=application,
        foreign="" if http is None or type(http) is ASGIHandler else full_name(http),
        has_websockets="websocket" in routes,
        has_lifespan="lifespan" in routes,
    )


def _mapping_of(application: Any) -> dict[str, Any] | None:
    """Return the applications by kind of scope of Channels' router; None if this is not one."""
    router: Any = getattr(sys.modules.get("channels.routing"), "ProtocolTypeRouter", None)
    if router is None or not isinstance(application, router):
        return None
    if type(application).__call__ is not router.__call__:  # the project's own subclass does more
        return None
    found: dict[str, Any] = application.application_mapping
    return found
