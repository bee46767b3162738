"""Answer static files without a thread and without WSGI, from the parsed request to the final bytes.

Lives in a worker, in the thread that waits for events. Small files are in memory with their headers. Any
other request (ranges, conditions, redirects, large files) goes through the WSGI middleware, which uses the
same table of files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..http import limits
from ..http.response import DATES
from ..logs.environ_keys import ID
from .connection import Connection
from .error_responses import ErrorResponder

if TYPE_CHECKING:
    from ..staticfiles.layer import StaticLayer

SLOW_PATH_HEADERS = {
    *("RANGE", "IF-RANGE", "IF-NONE-MATCH", "IF-MODIFIED-SINCE", "IF-MATCH", "IF-UNMODIFIED-SINCE"),
    "SCRIPT_NAME",  # only if the operator lets Gunicorn trust it: then the path differs
}
OK = b"HTTP/1.1 200 OK"
MOST_KNOWN, LONGEST_KNOWN = 2048, 100
"""How many Accept-Encoding values have a cached answer, by file, and how long each may be."""


class Below(Mapping[str, Any]):
    """Files by their full path, below the script name of every request."""

    def __init__(self, script: str, files: Mapping[str, Any]) -> None:
        self._script, self._files = script, files

    def __getitem__(self, path: str) -> Any:
        if not path.startswith(self._script):
            raise KeyError(path)
        return self._files[path[len(self._script) :]]

    def __iter__(self) -> Iterator[str]:
        return (self._script + path for path in self._files)

    def __len__(self) -> int:
        return len(self._files)


class StaticFileCache:
    """The static files of one worker."""

    def __init__(self, worker: Any, desk: ErrorResponder) -> None:
        self._desk = desk
        static: StaticLayer | None = worker.application.static
        self.files: Mapping[str, Any] = {}
        """Every file that may be answered here, by its path."""
        if (
            static is not None
            and static.files is not None
            and worker.sees_no_requests
            and not worker.access.is_gunicorns
        ):
            script = os.environ.get("SCRIPT_NAME", "")  # EnvironBuilder removes it
            self.files = Below(script, static.files) if script else static.files
        self._static, self._access = static, worker.access
        self._asks_secure = static is not None and bool(static.hsts or static.redirect)
        self._ready: dict[tuple[str, bool], tuple[bytes, bytes]] = {}
        self._known: dict[tuple[str, str, bool], tuple[bytes, bytes]] = {}
        self._kept = 0
        self.retiring = False

    def find(self, connection: Connection, hit: Any) -> tuple[bytes, bool] | None:
        """Return a response and whether the connection may stay open; None: use the middleware."""
        request = connection.request
        assert request is not None
        if request.method != "GET" or request.version != (1, 1) or connection.body is not None:
            return None
        if "%" in request.path:  # files have decoded names: an encoded path means another file
            return None
        accepted = ""
        for name, value in request.headers:
            if name == "ACCEPT-ENCODING":
                if accepted:  # two fields form one list
                    return None
                accepted = value
            elif name in SLOW_PATH_HEADERS:
                return None
        secure = self._asks_secure and self._is_secure(connection)
        if secure is None:
            return None
        found = self._known.get((request.path, accepted, secure))
        if found is None:
            found = self._response(hit, accepted, secure)
            if found is None:
                return None
            if len(self._known) < MOST_KNOWN and len(accepted) <= LONGEST_KNOWN:
                self._known[request.path, accepted, secure] = found
        keep = not (request.should_close() or self.retiring)
        told = self._note(connection, len(found[1])) if self._access.is_on else b""
        return b"".join((OK, DATES.tail(), b"keep-alive\r\n" if keep else b"close\r\n", told, *found)), keep

    def _note(self, connection: Connection, size: int) -> bytes:
        """Log a hit; return the header line with its id, which without a log would refer to nothing."""
        environ = self._desk.environ(connection)
        self._access.add(environ, 200, size, 0.0)
        return b"X-Request-ID: %b\r\n" % environ[ID].encode()

    def _is_secure(self, connection: Connection) -> bool | None:
        """Return whether the client used https; None if Django redirects."""
        static = self._static
        assert static is not None
        secure = static.security.is_secure(self._desk.environ(connection))
        return None if static.redirect and not secure else secure

    def _response(self, hit: Any, accepted: str, secure: bool) -> tuple[bytes, bytes] | None:
        """Return the rest of the headers, and the body; None for anything but a small file."""
        choose = getattr(hit, "choose", None)  # redirects have no such method
        if choose is None:
            return None
        path, headers = choose(accepted)
        found = self._ready.get((path, secure))
        return found or self._read(path, headers, secure)

    def _read(self, path: str, headers: list[tuple[str, str]], secure: bool) -> tuple[bytes, bytes] | None:
        size = next(int(value) for name, value in headers if name == "Content-Length")
        if size > limits.MAX_STATIC_FILE_IN_MEMORY or self._kept + size > limits.MAX_STATIC_MEMORY:
            return None
        try:
            with open(path, "rb") as file:
                content = file.read(size + 1)
        except OSError:
            return None
        if len(content) != size:
            return None  # the file has changed since the start
        assert self._static is not None
        lines = [*headers, *self._static.hsts] if secure else headers
        head = "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
        self._kept += size
        self._ready[path, secure] = head.encode("latin-1"), content
        return self._ready[path, secure]
