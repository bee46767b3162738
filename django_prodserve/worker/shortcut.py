"""Static files without a thread and without WSGI: from the parsed request to bytes that are ready.

Lives in a worker, in the thread that waits for events. Small files are kept in memory with their heads. All
that is not a plain GET of one (ranges, conditions, redirects, large files) goes the long way, through the
same table of files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import limits
from .answer import DATES
from .connection import Connection

if TYPE_CHECKING:
    from ..proxy import ProxyLayer
    from ..staticfiles.layer import StaticLayer

LONG_WAY = {"RANGE", "IF-RANGE", "IF-NONE-MATCH", "IF-MODIFIED-SINCE", "IF-MATCH", "IF-UNMODIFIED-SINCE"}
OK = b"HTTP/1.1 200 OK"


class Shortcut:
    """The static files of one worker."""

    def __init__(self, worker: Any) -> None:
        proxy, static = _layers(worker.wsgi)
        self.files: dict[str, Any] = {}
        """Every file that may go the short way, by its path."""
        if (
            static is not None
            and static.files is not None
            and worker.sees_no_requests
            and not worker.access.is_gunicorns
        ):
            self.files = static.files
        self._proxy, self._static, self._access = proxy, static, worker.access
        self._ready: dict[tuple[str, bool], tuple[bytes, bytes]] = {}
        self._kept = 0
        self.retiring = False

    def find(self, connection: Connection, hit: Any) -> tuple[bytes, bool] | None:
        """Return a complete response and whether the connection may be kept; None for the long way."""
        request = connection.request
        assert request is not None
        if request.method != "GET" or request.version != (1, 1) or connection.body is not None:
            return None
        accepted = ""
        for name, value in request.headers:
            if name == "ACCEPT-ENCODING":
                accepted = value
            elif name in LONG_WAY:
                return None
        secure = self._is_secure(connection)
        if secure is None:
            return None
        found = self._response(hit, accepted, secure)
        if found is None:
            return None
        keep = not (request.should_close() or self.retiring)
        if self._access.is_on:
            self._access.add(self._environ(connection), 200, len(found[1]), 0.0)
        return b"".join((OK, DATES.tail(), b"keep-alive\r\n" if keep else b"close\r\n", *found)), keep

    def _is_secure(self, connection: Connection) -> bool | None:
        """Say whether the client came by https, where that matters; None where Django redirects."""
        static = self._static
        assert static is not None
        if not (static.hsts or static.redirect):
            return False
        secure = static.security.is_secure(self._environ(connection))
        return None if static.redirect and not secure else secure

    def _environ(self, connection: Connection) -> dict[str, Any]:
        """Return what Django would see of this request."""
        assert connection.request is not None
        environ = connection.environs.make(connection.request, connection.peer, None)
        if self._proxy is not None:
            self._proxy.clean(environ)
        return environ

    def _response(self, hit: Any, accepted: str, secure: bool) -> tuple[bytes, bytes] | None:
        """Return the rest of the head, and the body; None for what is no small file."""
        choose = getattr(hit, "choose", None)  # redirects have none
        if choose is None:
            return None
        path, headers = choose(accepted)
        found = self._ready.get((path, secure))
        return found or self._read(path, headers, secure)

    def _read(self, path: str, headers: list[tuple[str, str]], secure: bool) -> tuple[bytes, bytes] | None:
        size = next(int(value) for name, value in headers if name == "Content-Length")
        if size > limits.STATIC_IN_MEMORY or self._kept + size > limits.STATIC_MEMORY:
            return None
        try:
            with open(path, "rb") as file:
                content = file.read(size + 1)
        except OSError:
            return None
        if len(content) != size:
            return None  # it has changed since the start
        assert self._static is not None
        lines = [*headers, *self._static.hsts] if secure else headers
        head = "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
        self._kept += size
        self._ready[path, secure] = head.encode("latin-1"), content
        return self._ready[path, secure]


def _layers(wsgi: Any) -> tuple[ProxyLayer | None, StaticLayer | None]:
    """Return the layers of ours that the application is wrapped in (application.py)."""
    from ..identity import IdentityLayer
    from ..proxy import ProxyLayer
    from ..staticfiles.layer import StaticLayer

    wsgi = wsgi.application if isinstance(wsgi, IdentityLayer) else wsgi
    proxy = wsgi if isinstance(wsgi, ProxyLayer) else None
    inner = proxy.application if proxy is not None else wsgi
    return proxy, inner if isinstance(inner, StaticLayer) else None
