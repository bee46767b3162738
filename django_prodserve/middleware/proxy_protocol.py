"""What the PROXY protocol says of a connection, for every request of it, under Gunicorn's own workers.

Lives in a worker, on the thread that runs the request. Gunicorn tells the client's address with the first
request of a connection only; with the others it tells the load balancer's, which may be trusted to speak for
clients. The worker of ours knows it by itself (http/proxy_protocol.py), and does without this.
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
    """The connections that began with a PROXY line, as long as they live."""

    def __init__(self) -> None:
        self._known: weakref.WeakKeyDictionary[Any, dict[str, str]] = weakref.WeakKeyDictionary()

    def hold(self, environ: WSGIEnvironment) -> None:
        """Keep what the first request of a connection is told; tell it the others."""
        sock = environ.get("gunicorn.socket")
        if sock is None:
            return
        if "PROXY_PROTOCOL" in environ:
            if environ.get("REMOTE_ADDR") is None:  # no client was named: the peer's address is known
                environ.update(_peer(sock))
                environ["PROXY_ADDR"] = environ["PROXY_PORT"] = ""
            self._known[sock] = {name: environ[name] for name in NAMES if name in environ}
        elif self._known and (said := self._known.get(sock)):
            environ.update(said)


def _peer(sock: Any) -> dict[str, str]:
    """Return the peer's address and port as the environ has them; of a unix socket there is neither."""
    with suppress(OSError, AttributeError):
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            address, port, *_ = sock.getpeername()
            return {"REMOTE_ADDR": address, "REMOTE_PORT": str(port)}
        return {"REMOTE_ADDR": "", "REMOTE_PORT": ""}
    return {"REMOTE_ADDR": "unknown", "REMOTE_PORT": ""}
