"""Answers that need neither a thread nor Django: refusals.

Lives in a worker, in the thread that owns the connection.
"""

from __future__ import annotations

from typing import Any

from .answer import DATES
from .connection import Connection
from .intake import BodyTooLargeError
from .reading import Head
from .spool import DiskShortError


def reply(status: str, *headers: str, keep: bool = False) -> bytes:
    """Return a complete response whose body is its status."""
    body = f"{status[4:]}\n".encode()
    lines = "".join(f"{header}\r\n" for header in headers)
    return b"".join(
        [
            b"HTTP/1.1 ",
            status.encode(),
            DATES.tail(),
            b"keep-alive\r\n" if keep else b"close\r\n",
            f"{lines}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n".encode(),
            body,
        ]
    )


def busy(*, keep: bool) -> bytes:
    """Return what a server says that is overloaded."""
    return reply("503 Service Unavailable", "Retry-After: 1", "Cache-Control: no-store", keep=keep)


def timed_out() -> bytes:
    """Return what is said to a client that has sent half a request and no more."""
    return reply("408 Request Timeout")


class _Sink:
    """Stands in for the socket where Gunicorn writes an error."""

    def __init__(self) -> None:
        self.data = b""

    def gettimeout(self) -> float:
        return 0.0

    def sendall(self, data: bytes) -> None:
        self.data += data


def refusal(worker: Any, connection: Connection, error: BaseException) -> bytes:
    """Return the answer to a request that was refused, or that raised: logged, and worded, by Gunicorn."""
    if isinstance(error, BodyTooLargeError):
        return reply("413 Content Too Large")
    if isinstance(error, DiskShortError):
        worker.log.error("A request body was refused: %s.", error)
        return reply("503 Service Unavailable", "Retry-After: 30")
    sink = _Sink()
    request: Head | None = connection.request
    worker.handle_error(request, sink, connection.peer, error)
    return sink.data
