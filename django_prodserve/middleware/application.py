"""The WSGI middleware around Django: probes, request ids, proxy trust, static files, media. Outermost first.

Built once, before the fork (in the worker with --no-preload), with what runs on an asyncio loop. Each
middleware does O(1) work, reads no settings and takes no lock.
"""

from __future__ import annotations

import io
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.exceptions import SuspiciousOperation
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import got_request_exception
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver
from django.utils.module_loading import import_string

from ..asgi.leases import Leases
from ..asgi.other_servers import load_for_others
from ..asgi.part import AsyncPart
from ..asgi.project import load_application
from ..asgi.road_table import RoadTable, observing_hooks
from ..config.trust import parse_trust
from ..errors import Problem, ProdserveError
from ..logs import request_id
from ..project.hosts import first_allowed
from ..speedups.asgiref_locals import install, install_connections
from ..startup.dry_run import REFUSALS, Refused, cause
from ..staticfiles.layer import StaticLayer
from ..staticfiles.media import find_uploads
from ..staticfiles.placement import WSGI, with_files
from ..utils.names import full_name
from ..utils.notice import part
from ..utils.tracebacks import project_error
from .asgi import ASGIApplication
from .health import HealthMiddleware, Paths
from .proxy_headers import ProxyHeadersMiddleware
from .readiness import Readiness
from .readiness import load_checks as find_checks
from .request_id import RequestIDMiddleware, RequestIDs
from .route_names import record_route_names, run_alone

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..staticfiles import StaticFiles


@dataclass(frozen=True, kw_only=True)
class Application:
    """The project behind its middleware, each by its name. A call goes through all of them, outermost first.

    Our worker calls ``inner``, and does the work of the middleware around it itself, at lower cost.
    """

    health: HealthMiddleware
    """The probes, and the application behind them."""
    request_ids: RequestIDMiddleware | None = None
    """The middleware for request ids; None around an application that was not built here."""
    proxy: ProxyHeadersMiddleware | None = None
    """The middleware that decides which client data of a proxy counts."""
    static: StaticLayer | None = None
    """The static files, if they are answered in front of Django."""
    async_part: AsyncPart | None = None
    """What runs async views on the asyncio loop; None if the project has none."""
    asgi: ASGIApplication | None = None
    """The same for the worker classes asgi and uvicorn; None for all others."""
    plan: Plan | None = None
    """The plan for which it was built."""

    @classmethod
    def of(cls, wsgi: WSGI) -> Application:
        """Wrap any WSGI application; one that was not built here gets only disabled probes."""
        return wsgi if isinstance(wsgi, cls) else cls(health=HealthMiddleware(wsgi))

    @property
    def inner(self) -> WSGI:
        """The application behind the probes and the ids."""
        return self.proxy or self.health.application

    @property
    def road_table(self) -> str:
        """What runs where; empty if all of it runs in threads."""
        return "" if self.async_part is None else self.async_part.roads

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        return self.health(environ, start_response)


WARM_UP = "django-prodserve warm-up"  # the name in the request's User-Agent


def build(plan: Plan, static: StaticFiles, say: Callable[[str], object] = str) -> Application:
    """Load the project and wrap it; raise ProdserveError with the line from your project if that fails."""
    trust = parse_trust(plan.trusted_proxies.value, plan.trusted_hops.value)
    uploads = find_uploads(wanted=plan.media.value)
    record_route_names()
    inner, files = with_files(load_django, static, uploads, say)
    proxy = ProxyHeadersMiddleware(inner, trust, plan.client_address_header.value)
    identity = RequestIDMiddleware(proxy, RequestIDs(proxy.believes), timing=plan.server_timing.value)
    if plan.speedups.value:
        install()
        install_connections()
    readiness = Readiness(find_checks(plan.readiness_checks.value))
    health = HealthMiddleware(identity, Paths.beside_routes(plan.health_paths.value), readiness)
    application = Application(
        health=health,
        request_ids=identity,
        proxy=proxy,
        static=files,
        async_part=_find_async_part(plan, inner, say),
        plan=plan,
    )
    if plan.is_asgi_class:
        return replace(application, asgi=_for_other_servers(plan, application, inner))
    return application


def _for_other_servers(plan: Plan, layers: Application, inner: WSGI) -> ASGIApplication:
    """Return the same for the ASGI servers of other projects, which call Django's ASGI handler."""
    speedups = plan.speedups.value or plan.speedups.is_computed
    leases = Leases(plan.threads.value, plan.queue_timeout.value or math.inf)
    return ASGIApplication(
        load_for_others(load_application(), leases, speedups=speedups),
        layers,
        _behind_files(inner)[0],
        timeout=plan.timeout.value,
        limit=plan.worker_connections.value,
        max_body=plan.max_body.value,
    )


def _behind_files(wsgi: WSGI) -> tuple[list[Callable[[str], bool]], WSGI]:
    """Return the application behind the layers for files, and for each whether a path may be a file."""
    files: list[Callable[[str], bool]] = []
    while isinstance(wsgi, StaticLayer):
        files.append(wsgi.may_answer)
        wsgi = wsgi.application
    return files, wsgi


def _find_async_part(plan: Plan, wsgi: Any, say: Callable[[str], object]) -> AsyncPart | None:
    """Return what runs on the asyncio loop; None if nothing of the project does."""
    if plan.asgi.value == "off":
        if plan.roads.value:
            say(part("async", f"{plan.roads.source} has no effect: --asgi is off"))
        return None
    files, wsgi = _behind_files(wsgi)
    table = RoadTable.find(plan.asgi, load_application(), _observer(plan, wsgi), plan.roads)
    found = AsyncPart.find(
        table,
        files,
        os.environ.get("SCRIPT_NAME", ""),
        threads=plan.with_road_table(table.in_plan).leases.value,
        patience=plan.queue_timeout.value or math.inf,
        # If the plan finds no other speedup for this Python, it has not been disabled.
        speedups=plan.speedups.value or plan.speedups.is_computed,
    )
    if found is not None:
        run_alone(table.routes.alone)
    if found is not None or table.routes.has_async:
        why = f"; {found.why_stock}" if found is not None and found.why_stock else ""
        say(part("async", f"{table}{why}"))
    return found


def unserved(plan: Plan) -> Problem | None:
    """Return what of ASGI_APPLICATION the workers do not serve because of their class; this loads it.

    None for nothing, and if it cannot be loaded.
    """
    if plan.asgi.value != "off" or not plan.asgi.is_computed or plan.is_asgi_class:
        return None
    with suppress(ProdserveError):
        project = load_application()
        if project is not None and (project.foreign or project.has_websockets):
            what = "requests" if project.foreign else "websockets"
            fix = "Use --worker-class prodserve, behind a proxy that handles HTTP/2."
            return Problem(f"{plan.asgi.why}: {project.path} gets no {what}.", fix, topic="asgi")
    return None


def _observer(plan: Plan, wsgi: WSGI) -> str:
    """Return the name of what must see each request, and sees only those in threads; empty for nothing."""
    if hooks := observing_hooks(plan.gunicorn):
        return hooks
    return "" if isinstance(wsgi, WSGIHandler) else f"{full_name(wsgi)} (WSGI_APPLICATION)"


def load_django() -> WSGI:
    """Return the project's WSGI application, with its URLconf loaded."""
    path = getattr(settings, "WSGI_APPLICATION", None)
    try:
        application: WSGI = import_string(path) if path else get_wsgi_application()
    except Exception as error:  # an import may raise anything
        raise project_error(f"{path or 'The WSGI application'} cannot be loaded", error) from error
    try:
        get_resolver().reverse_dict  # noqa: B018, the attribute loads every URLconf
    except Exception as error:  # an import may raise anything
        name = getattr(settings, "ROOT_URLCONF", "ROOT_URLCONF")
        raise project_error(f"The URLconf {name} cannot be loaded", error) from error
    return application


class WarmUp(NamedTuple):
    """The result of a warm-up request; empty if the request succeeded."""

    warning: str = ""
    """Why the request ended with a 5xx."""
    note: str = ""
    """What the dry run blocked, so that no code behind it was tested."""


def warm_up(application: Application, path: str) -> WarmUp:
    """Send one request through the whole application, and return the result.

    It uses the first allowed host and https, so that middleware neither refuses nor redirects it. If a probe
    has this path, the request bypasses the probe, which would warm up nothing.
    """
    behind_probes: Any = application.health.application
    statuses: list[str] = []
    raised: list[WarmUp] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        statuses.append(status)

    def note(**kwargs: Any) -> None:
        raised.append(_raised(path, sys.exc_info()[1] or Exception()))

    got_request_exception.connect(note)
    try:
        with _quiet():
            response = behind_probes(_environ(path), start_response)
            for _ in response:
                pass
            getattr(response, "close", lambda: None)()
    except (Exception, SystemExit) as error:  # report a broken application, whatever it raises
        return _raised(path, error)
    finally:
        got_request_exception.disconnect(note)
        request_id.set("")  # the arbiter's own lines belong to no request
    if not statuses or not statuses[0].startswith("5"):
        return WarmUp()
    if raised:
        return raised[0]
    if REFUSALS:
        return WarmUp(note=_held_back(path, REFUSALS[-1]))
    return WarmUp(f"the warm-up request {path} was answered with {statuses[0]}")


def _raised(path: str, error: BaseException) -> WarmUp:
    refused = cause(error)
    if refused is not None:
        return WarmUp(note=_held_back(path, refused))
    return WarmUp(str(project_error(f"the warm-up request {path} raised", error)).replace("\n ", ";"))


def _held_back(path: str, refused: Refused) -> str:
    where = f" by {refused.where}" if refused.where else ""
    return (
        f"the warm-up request {path} tried to {refused.what}{where}, which prodserve refuses at a start: "
        "the code after that was not tested"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Exclude this one request from the log of the project: no client has sent it.

    Middleware may have changed its path by then. Django logs suspicious requests by exception class.
    """

    def is_theirs(record: logging.LogRecord) -> bool:
        meta = getattr(getattr(record, "request", None), "META", {})
        return bool(meta.get("HTTP_USER_AGENT") != WARM_UP)

    loggers = [logging.getLogger(f"django.security.{name}") for name in _suspicions(SuspiciousOperation)]
    loggers.append(logging.getLogger("django.request"))
    for logger in loggers:
        logger.addFilter(is_theirs)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_theirs)


def _suspicions(kind: type) -> set[str]:
    """Return the names of a class and of its subclasses."""
    return {kind.__name__}.union(*map(_suspicions, kind.__subclasses__()))


def _environ(path: str) -> dict[str, Any]:
    host = first_allowed()
    route, _, query = path.partition("?")
    return {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": os.environ.get("SCRIPT_NAME", ""),
        "PATH_INFO": route,
        "QUERY_STRING": query,
        "SERVER_NAME": host,
        "SERVER_PORT": "443",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": host,
        "HTTP_USER_AGENT": WARM_UP,
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "https",
        "wsgi.input": io.BytesIO(),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
