"""The onion around Django: probes, a request's id, proxy trust, static files, media. Outermost first.

Built once, before the fork (in the worker with --no-preload). A layer does O(1) work, reads no settings
and takes no lock.
"""

from __future__ import annotations

import io
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from django.conf import settings
from django.core.signals import got_request_exception
from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver
from django.utils.module_loading import import_string

from .dry_run import REFUSALS, Refused, cause
from .failures import failure
from .health import HealthLayer, Paths
from .identity import Identity, IdentityLayer
from .in_front import WSGI, with_files
from .logs import request_id
from .media import find_uploads
from .per_request import quicken, quicken_connections
from .proxy import ProxyLayer, parse_trust
from .readiness import Readiness
from .readiness import find as find_checks
from .routes import note_routes

if TYPE_CHECKING:
    from .plan import Plan
    from .staticfiles import StaticFiles

WARM_UP = "django-prodserve warm-up"  # what the request calls itself


def build(plan: Plan, static: StaticFiles, say: Callable[[str], object] = str) -> HealthLayer:
    """Load the project and wrap it; raise ProdserveError with the project's own line where that fails."""
    trust = parse_trust(plan.trusted_proxies.value, plan.trusted_hops.value)
    uploads = find_uploads(wanted=plan.media.value)
    note_routes()

    def identified(inner: ProxyLayer) -> IdentityLayer:
        return IdentityLayer(inner, Identity(inner.believes), timing=plan.server_timing.value)

    proxy = ProxyLayer(with_files(load_django, static, uploads, say), trust, plan.client_address_header.value)
    application = identified(proxy)
    if plan.speedups.value:
        quicken()
        quicken_connections()
    readiness = Readiness(find_checks(plan.ready.value))
    return HealthLayer(application, Paths.beside_routes(plan.health.value), readiness)


def load_django() -> WSGI:
    """Return the project's WSGI application, with its URLconf loaded."""
    path = getattr(settings, "WSGI_APPLICATION", None)
    try:
        application: WSGI = import_string(path) if path else get_wsgi_application()
    except Exception as error:  # anything may happen in an import
        raise failure(f"{path or 'The WSGI application'} cannot be loaded", error) from error
    try:
        get_resolver().reverse_dict  # noqa: B018, the attribute loads every URLconf
    except Exception as error:  # anything may happen in an import
        name = getattr(settings, "ROOT_URLCONF", "ROOT_URLCONF")
        raise failure(f"The URLconf {name} cannot be loaded", error) from error
    return application


class WarmUp(NamedTuple):
    """What came of a warm-up request; nothing where it was answered."""

    warning: str = ""
    """Why it ended in a 5xx."""
    note: str = ""
    """Where a dry run held it back, so that nothing behind that was tried."""


def warm_up(application: WSGI, path: str) -> WarmUp:
    """Send one request through everything, and say what came of it.

    The first allowed host and https are used, so that middleware neither refuses nor redirects it. A probe
    that has this path is passed by: it would warm nothing.
    """
    inner: Any = application.application if isinstance(application, HealthLayer) else application
    statuses: list[str] = []
    raised: list[WarmUp] = []

    def start_response(status: str, headers: object, exc_info: object = None) -> None:
        statuses.append(status)

    def note(**kwargs: Any) -> None:
        raised.append(_raised(path, sys.exc_info()[1] or Exception()))

    got_request_exception.connect(note)
    try:
        with _quiet():
            response = inner(_environ(path), start_response)
            for _ in response:
                pass
            getattr(response, "close", lambda: None)()
    except (Exception, SystemExit) as error:  # a broken application must be told, whatever it raises
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
    return WarmUp(str(failure(f"the warm-up request {path} raised", error)).replace("\n ", ";"))


def _held_back(path: str, refused: Refused) -> str:
    where = f" by {refused.where}" if refused.where else ""
    return (
        f"the warm-up request {path} asks to {refused.what}{where}, which a start does not do: "
        "nothing behind that was tried"
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep this one request out of the project's log; middleware may have changed its path by then."""

    def is_theirs(record: logging.LogRecord) -> bool:
        meta = getattr(getattr(record, "request", None), "META", {})
        return bool(meta.get("HTTP_USER_AGENT") != WARM_UP)

    logger = logging.getLogger("django.request")
    logger.addFilter(is_theirs)
    try:
        yield
    finally:
        logger.removeFilter(is_theirs)


def _environ(path: str) -> dict[str, Any]:
    hosts = [host.lstrip(".") for host in settings.ALLOWED_HOSTS if host != "*"]
    host = hosts[0] if hosts else "localhost"
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
