"""Apply a connection's PROXY protocol header to each of its requests, under Gunicorn's own workers.

Lives in a worker, on the thread that runs the request. Gunicorn reports the client's address with the first
request of a connection only. With the others it reports the load balancer's, which may be a trusted proxy.
Our worker handles the header itself (http/proxy_protocol.py), and does not use this.
"""

from __future__ import annotations

import socket
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

NAMES = ("PROXY_PROTOCOL", "PROXY_ADDR", "PROXY_PORT", "REMOTE_ADDR", "REMOTE_PORT")


class Introductions:
    """The open connections that began with a PROXY header."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()

    def hold(self, environ: WSGIEnvironment) -> None:
        """Store the data of a connection's first request; apply it to the others."""
        sock = environ.get("gunicorn.socket")
        if sock is None:
            return
        if "PROXY_PROTOCOL" in environ:
            if environ.get("REMOTE_ADDR") is None:  # the header named no client: the peer's address is known
                environ.update(_peer(sock))
                environ["PROXY_ADDR"] = environ["PROXY_PORT"] = ""
            self._known[sock] = {name: environ[name] for name in NAMES if name in environ}
        elif self._known and (said := self._known.get(sock)):
            environ.update(said)


def _peer(sock: Any) -> dict[str, str]:
    """Return the peer's address and port as the environ has them; a unix socket has neither."""
    with suppress(OSError, AttributeError):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            address, port, *_ = sock.getpeername()
            return {"REMOTE_ADDR": address, "REMOTE_PORT": str(port)}
        return {"REMOTE_ADDR": "", "REMOTE_PORT": ""}
    return {"REMOTE_ADDR": "unknown", "REMOTE_PORT": ""}
