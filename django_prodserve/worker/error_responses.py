"""Responses that need neither a thread nor Django: refusals, with a request id and an access log line.

Lives in a worker, in the thread that owns the connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gunicorn.http.errors import ConfigurationProblem

from ..http.exceptions import BodyTooLargeError, DiskShortError
from ..http.parser import RequestHead
from ..http.response import complete
from ..logs import request_id
from ..logs.environ_keys import ID
from ..middleware.application import Application
from ..middleware.request_id import RequestIDs
from .connection import Connection
from .refusals import Sheet


def reply(status: str, *headers: str, keep: bool = False) -> bytes:
    """Return a complete response whose body is its status."""
    body = f"{status[4:]}\n".encode()
    lines = [*headers, "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(body)}"]
    return complete(status, lines, body, keep=keep)


def service_unavailable(*, keep: bool) -> bytes:
    """Return the response of an overloaded server."""
    return reply("503 Service Unavailable", "Retry-After: 1", "Cache-Control: no-store", keep=keep)


def request_timeout() -> bytes:
    """Return the response for a client that has sent part of a request and then stopped."""
    return reply("408 Request Timeout")


def with_request_id(data: bytes, name: str) -> bytes:
    """Return a complete response with the id of its request."""
    return data.replace(b"\r\n", b"\r\nX-Request-ID: %b\r\n" % name.encode(), 1) if name else data


class ErrorResponder:
    """Adds to the server's own responses what every response has."""

    def __init__(self, worker: Any) -> None:
        application: Application = worker.application
        layer, proxy = application.request_ids, application.proxy
        self._identify = layer.identity if layer is not None else RequestIDs(lambda environ: False)
        self._tells = layer is not None
        self._clean = proxy.sanitize if proxy is not None else None
        self._access = worker.access

    def respond(self, connection: Connection, make: Callable[[], bytes]) -> bytes:
        """Return the response that ``make`` builds, with an id; lines logged meanwhile have the same id."""
        environ = self.environ(connection)
        name = str(environ[ID])
        request_id.set(name)
        try:
            data = make()
        finally:
            request_id.set("")
        self._access.note_refused(connection.request, environ, data, 0.0)
        return with_request_id(data, name if self._tells else "")

    def environ(self, connection: Connection) -> dict[str, Any]:
        """Return the log's environ of a request that Django never gets, as far as it was parsed."""
        request, peer = connection.request, connection.peer
        environ: dict[str, Any] = {"REMOTE_ADDR": peer[0] if isinstance(peer, tuple) else ""}
        if request is not None:
            try:
                environ = connection.environ(request, None)
            except ConfigurationProblem:  # the reason for the refusal
                environ |= {
                    "REQUEST_METHOD": request.method,
                    "RAW_URI": request.uri,
                    "SERVER_PROTOCOL": "HTTP",
                }
        self._identify(environ)
        if self._clean is not None:
            self._clean(environ)
        return environ


def error_response(worker: Any, connection: Connection, error: BaseException) -> bytes:
    """Return and log the response to a request that was refused, or that raised."""
    if isinstance(error, BodyTooLargeError):
        return reply("413 Content Too Large")
    if isinstance(error, DiskShortError):
        worker.log.error("A request body was refused: %s.", error)
        return reply("503 Service Unavailable", "Retry-After: 30")
    sink = Sheet()
    request: RequestHead | None = connection.request
    worker.handle_error(request, sink, connection.peer, error)
    return sink.data
