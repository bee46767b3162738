"""The management address: status, metrics and live page for operators. The site is not reachable through it.

Lives in a worker, in the thread that waits for events: it answers even if every other thread is hung. Any
worker may accept a connection, because all workers read the same scoreboard.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING, Any

from ...http.environ import EnvironBuilder
from ...monitoring.metrics import CONTENT_TYPE, Metrics
from ...monitoring.snapshot import full_snapshot, live_snapshot, recent_history
from ...scoreboard import stop_flags
from ...scoreboard.board import Scoreboard
from ..acceptor import GONE_ERRORS
from ..poller import Epoll, Poll
from ..probes import Probes
from . import live_page
from .responses import Page, Reply, document, encode, respond, text

if TYPE_CHECKING:
    from ...http.parser import RequestHead

CONNECTIONS_AT_A_TIME = 16
"""Connections accepted before those of the public listeners get a chance."""
HOST_REFUSED = "Host header not accepted. Use an IP address, or a name without a dot such as localhost."


class ManagementEndpoint:
    """The management address as one worker serves it; without such an address it does nothing."""

    def __init__(self, worker: Any, board: Scoreboard, poller: Epoll | Poll, probes: Probes) -> None:
        self.worker, self.board, self._poller = worker, board, poller
        self.listener: socket | None = getattr(worker.app, "management", None)
        self.descriptor = -1 if self.listener is None else self.listener.fileno()
        self._host: str = getattr(worker.app, "management_host", "").lower()
        self._watching = False
        self._probes = probes
        self._metrics: Metrics | None = None
        self.pages: dict[str, Page] = {
            **live_page.pages(),
            **probes.pages,
            "/status.json": self.status,
            "/live.json": self.live,
            "/history.json": self.history,
            "/metrics": self.metrics,
        }
        """Every page by its path."""

    # Connections.

    def watch(self) -> None:
        """Begin to accept connections, or begin again."""
        if self.listener is not None and not self._watching:
            self._watching = True
            self.listener.setblocking(False)
            self._poller.watch(self.descriptor)

    def accept(self, now: float, arrived: Callable[[socket, Any, int, float, float], object]) -> None:
        """Accept the connections that no other worker has accepted."""
        for _ in range(CONNECTIONS_AT_A_TIME):
            if self.listener is None:
                return
            try:
                sock, peer = self.listener.accept()
            except OSError as error:
                if error.errno not in GONE_ERRORS:  # no file descriptor is left: the next tick tries again
                    self._watching = False
                    self._poller.forget(self.descriptor)
                return
            arrived(sock, peer, self.descriptor, now, 0.0)

    def retire(self) -> None:
        """Leave new connections to the other workers. If all workers stop, answer until the end."""
        if self.listener is not None and not stop_flags.closing():
            self._poller.forget(self.descriptor)
            self.listener.close()
            self.listener, self.descriptor = None, -1

    # Requests.

    def environs(self, config: Any) -> dict[int, EnvironBuilder]:
        """Return the builders of environs for requests to this address, by listener."""
        return {} if self.listener is None else {self.descriptor: EnvironBuilder(config, "", self.responder)}

    def responder(self, path: str) -> Callable[[RequestHead, bool], bytes]:
        """Return the function that answers on this address, for every path."""
        return self.respond

    def respond(self, request: RequestHead, keep: bool) -> bytes:
        """Return the complete response to a request."""
        if not self._is_meant(request):
            return encode(text("403 Forbidden", HOST_REFUSED), keep=keep)
        found = self.pages.get(request.path)
        if found is None:
            return encode(text("404 Not Found"), keep=keep)
        try:
            return respond(found, request, keep)
        except Exception:
            self.worker.log.exception("%s on the management address failed.", request.path)
            return encode(text("500 Internal Server Error"), keep=keep)

    def _is_meant(self, request: RequestHead) -> bool:
        """Return whether the Host header names this server, so that no foreign page can read from it.

        A browser would let such a page read these responses (DNS rebinding). A name without a dot cannot
        belong to a public site, and no browser reaches a unix socket.
        """
        if not self._host:
            return True
        value = next((value for name, value in request.headers if name == "HOST"), "")
        host = value.partition("]")[0] + "]" if value.startswith("[") else value.partition(":")[0]
        return host.lower() == self._host or "." not in host or _is_literal(host)

    # Pages.

    def metrics(self, request: RequestHead) -> Reply:
        """Return the metrics for Prometheus."""
        if self._metrics is None:
            self._metrics = Metrics(self.board, self.worker.sockets, self.worker.slot.generation)
        ready = not self._probes.reasons(time.monotonic())
        return Reply("200 OK", CONTENT_TYPE, self._metrics.text(ready=ready))

    def status(self, request: RequestHead) -> Reply:
        """Return the document of ``prodserve status --json``."""
        facts = full_snapshot(self.board, time.monotonic())
        return document({"generation": self.worker.slot.generation, **facts})

    def live(self, request: RequestHead) -> Reply:
        """Return the data that the live page requests each second."""
        facts = live_snapshot(self.board, time.monotonic())
        return document({"generation": self.worker.slot.generation, **facts})

    def history(self, request: RequestHead) -> Reply:
        """Return the traffic of the last minutes, second by second."""
        return document(recent_history(self.board))


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
