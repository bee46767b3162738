"""``/livez`` and ``/readyz``: answered before Django, so hosts, redirects and middleware do not matter.

This is the outermost middleware. It answers in Gunicorn's own workers. Our worker removes it, and answers on
its event loop (worker/probes.py).
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.urls import Resolver404, get_resolver

from ..logs.environ_keys import UNLOGGED
from ..scoreboard import stop_flags
from .readiness import Readiness

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

DEFAULT = ("/livez", "/readyz")
HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


@dataclass(frozen=True)
class Paths:
    """The paths of the liveness and readiness probes; empty if there are no public probes."""

    configured: tuple[str, ...] = ()
    overridden: tuple[str, ...] = ()
    """Paths that are routes of the project, which answers them."""

    @classmethod
    def beside_routes(cls, stated: tuple[str, ...]) -> Paths:
        """Find out which of the paths the loaded URLconf has."""
        return cls(stated, tuple(path for path in stated if is_owned(path)))

    @property
    def everywhere(self) -> tuple[str, str]:
        """The paths on the management address, which has no other routes."""
        live, ready = self.configured or DEFAULT
        return live, ready

    @property
    def enabled(self) -> tuple[str, ...]:
        return tuple(path for path in self.configured if path not in self.overridden)

    def __str__(self) -> str:
        ours, owned = " and ".join(self.enabled), " and ".join(self.overridden)
        answered = f"{ours}, before Django" if ours else ""
        left = f"the project's own {owned}" if owned else ""
        return "; ".join(filter(None, [answered, left])) or "off"


def is_owned(path: str) -> bool:
    """Return whether the project has a route for exactly this path; one that accepts any path does not count.

    With APPEND_SLASH the route may end with the slash that the path lacks.
    """
    tried = [path] if path.endswith("/") or not settings.APPEND_SLASH else [path, f"{path}/"]
    return any(_names(spelling) for spelling in tried)


def _names(path: str) -> bool:
    route = _route(path)
    return route is not None and route != _route(_random_sibling_path(path))


def _route(path: str) -> Any:
    """Return an identifier of the pattern that matches a path; None if there is none."""
    try:
        match = get_resolver().resolve(path)
    except Resolver404:
        return None
    except Exception:  # a converter in your project: it would answer no probe either
        return None
    return match.route, match.view_name


def _random_sibling_path(path: str) -> str:
    """Return a random path of the same shape: letters stay letters, digits digits."""
    slash = "/" if path.endswith("/") else ""
    parent, _, name = path.rstrip("/").rpartition("/")
    while (other := "".join(map(_another, name))) == name:
        if not any(character.isalnum() for character in name):
            return f"{parent}/{name}x{slash}"
    return f"{parent}/{other}{slash}"


def _another(character: str) -> str:
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits):
        if character in kind:
            return random.choice(kind)
    return character


class HealthMiddleware:
    """Answers the probes; passes everything else on to the application."""

    def __init__(
        self, application: WSGIApplication, paths: Paths | None = None, readiness: Readiness | None = None
    ) -> None:
        self.application = application
        self.paths, self.readiness = paths or Paths(), readiness or Readiness()
        live, ready = self.paths.everywhere
        reasons: dict[str, Callable[[], list[str]]] = {live: list, ready: self.reasons}
        self._reasons = {path: reasons[path] for path in self.paths.enabled}

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        reasons = self._reasons.get(environ["PATH_INFO"])
        if reasons is None:
            return self.application(environ, start_response)
        environ[UNLOGGED] = True
        return _answer(environ["REQUEST_METHOD"], reasons, start_response)

    def reasons(self) -> list[str]:
        """Return a word for each reason why this process is not ready."""
        self.readiness.start()
        return [
            *(["draining"] if stop_flags.draining() or stop_flags.closing() else []),
            *self.readiness.failing(),
        ]


def _answer(method: str, reasons: Callable[[], list[str]], start_response: StartResponse) -> Iterable[bytes]:
    if method not in {"GET", "HEAD"}:
        start_response("405 Method Not Allowed", [("Allow", "GET, HEAD"), ("Content-Length", "0")])
        return []
    words = reasons()
    body = "".join(f"{word}\n" for word in words or ["ok"]).encode()
    start_response(
        "503 Service Unavailable" if words else "200 OK",
        [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body))), *HEADERS.items()],
    )
    return [] if method == "HEAD" else [body]
