"""Ask the management address of a server under test."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Mapping

from .serving import PATIENCE, Response, Server

MANAGEMENT = ("--management-bind", "127.0.0.1:0")
"""Flags of a server that has one, at any free port."""


class _UnixConnection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(PATIENCE)
        self.sock.connect(self.host)


def address(server: Server) -> str:
    """Return the management address as the server has said it."""
    return re.findall(r"^management (?:http://)?(\S+)", "\n".join(server.lines), re.MULTILINE)[-1]


def ask(
    server: Server,
    path: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Response:
    """Send one request over a connection of its own."""
    where = address(server)
    connection = (
        _UnixConnection(where.removeprefix("unix:"))
        if where.startswith("unix:")
        else http.client.HTTPConnection(where, timeout=PATIENCE)
    )
    try:
        connection.request(method, path, body=body or None, headers={"Host": "localhost", **(headers or {})})
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()
