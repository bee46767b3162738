"""The listener for plain HTTP: it redirects all but probes and the challenges of a certificate authority.

Lives in a worker, in the thread that owns the connection. Its connections have the limits and deadlines of
all others. The worker reads no body there: a response to a request with one closes the connection.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from socket import AF_UNIX, socket
from typing import Any

from ..http.environ import EnvironBuilder, Responder
from ..http.parser import RequestHead
from ..http.response import complete
from ..project.hosts import is_allowed, port_of
from .management.responses import METHODS

HTTP, HTTPS = 80, 443
CHALLENGES = "/.well-known/acme-challenge/"
"""Where a certificate authority looks for a file (RFC 8555, 8.3)."""
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,255}", re.ASCII)
"""Names of its files: base64url, so without dots and slashes."""
CHALLENGE_BYTES = 65536
"""Maximum size of such a file; it has about 90 bytes."""
TEXT = "Content-Type: text/plain; charset=utf-8"
STRICT = (TEXT, "X-Content-Type-Options: nosniff")


class PlainHTTP:
    """The listener for plain HTTP of one worker; without one it does nothing."""

    def __init__(self, worker: Any, listeners: Sequence[socket]) -> None:
        has_one = bool(getattr(worker.app, "has_redirect", False))
        self.listener = listeners[-1] if has_one else None
        self.site = listeners[:-1] if has_one else listeners
        self._webroot: str | None = worker.config.acme_webroot
        ports = [listener.getsockname()[1] for listener in self.site if listener.family != AF_UNIX]
        self._https = HTTPS if HTTPS in ports or not ports else ports[0]
        self._http = HTTP if self.listener is None else _port(self.listener)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The descriptor of the listener, if there is one."""
        return () if self.listener is None else (self.listener.fileno(),)

    def environs(self, config: Any, probes: Callable[[str], Responder | None]) -> dict[int, EnvironBuilder]:
        """Return the builder of environs for requests to this listener; ``probes`` finds their pages."""
        if self.listener is None:
            return {}
        builder = EnvironBuilder(config, self.listener.getsockname(), probes)
        builder.base["wsgi.url_scheme"] = "http"
        builder.otherwise = self.respond
        return {self.listener.fileno(): builder}

    def respond(self, request: RequestHead, keep: bool) -> bytes:
        """Return the complete response to a request other than a probe."""
        if self._webroot is not None and request.path.startswith(CHALLENGES):
            return self._answer_challenge(self._webroot, request, keep)
        host = next((value for name, value in request.headers if name == "HOST"), "")
        if not is_allowed(host):
            return _text(request, "400 Bad Request", "The Host header is not in ALLOWED_HOSTS.", keep=keep)
        return _text(
            request,
            "308 Permanent Redirect",
            "This page is served over https.",
            f"Location: {self.target(host, request)}",
            keep=keep,
        )

    def target(self, host: str, request: RequestHead) -> str:
        """Return the address of the same page over https."""
        port = self.https_port(port_of(host))
        name = host.removesuffix(f":{port_of(host)}")
        path = request.path if request.path.startswith("/") else "/"
        query = f"?{request.query}" if request.query else ""
        return f"https://{name}{'' if port == HTTPS else f':{port}'}{path}{query}"

    def https_port(self, asked: str) -> int:
        """Return the port at which clients reach TLS; ``asked`` is the port in the Host header.

        A client that names no port has connected to port 80. If this listener has another port, a container
        or a firewall translates ports, and clients reach TLS at 443.
        """
        return HTTPS if not asked and self._http != HTTP else self._https

    def _answer_challenge(self, webroot: str, request: RequestHead, keep: bool) -> bytes:
        name = request.path.removeprefix(CHALLENGES)
        if request.method not in METHODS:
            lines = ("405 Method Not Allowed", "Method not allowed.", f"Allow: {', '.join(METHODS)}")
            return _text(request, *lines, keep=keep)
        content = read_challenge(webroot, name) if TOKEN.fullmatch(name) else None
        if content is None:
            return _text(request, "404 Not Found", "There is no such file.", keep=keep)
        return _whole(request, "200 OK", content, "Cache-Control: no-store", keep=keep)


def read_challenge(webroot: str, name: str) -> bytes | None:
    """Return the content of a file for a certificate authority; None if webroot has no such plain file.

    Below webroot no link is followed: it could lead out.
    """
    with ExitStack() as stack, suppress(OSError):
        place = os.open(webroot, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, place)
        for step in CHALLENGES.strip("/").split("/"):
            place = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            stack.callback(os.close, place)
        # A named pipe without a writer would block the worker.
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
        stack.callback(os.close, file)
        status = os.fstat(file)
        if stat.S_ISREG(status.st_mode) and status.st_size <= CHALLENGE_BYTES:
            return os.read(file, CHALLENGE_BYTES)
    return None


def _port(listener: socket) -> int:
    return HTTP if listener.family == AF_UNIX else int(listener.getsockname()[1])


def _text(request: RequestHead, status: str, line: str, *headers: str, keep: bool) -> bytes:
    return _whole(request, status, f"{line}\n".encode(), *headers, keep=keep)


def _whole(request: RequestHead, status: str, body: bytes, *headers: str, keep: bool) -> bytes:
    lines = [*headers, *STRICT, f"Content-Length: {len(body)}"]
    return complete(status, lines, b"" if request.method == "HEAD" else body, keep=keep)
