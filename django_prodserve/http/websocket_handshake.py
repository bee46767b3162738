"""The handshake of a websocket (RFC 6455, section 4.2): which requests ask for one, and our answer. Pure.

Lives in a worker, in the thread that received the request, or in the asyncio loop's.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .parser import RequestHead

VERSION = "13"
UNIQUE = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""What the RFC adds to a client's key, so that only a websocket server finds the answer."""
NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")

Headers = Iterable[tuple[bytes, bytes]]


class HandshakeError(Exception):
    """A handshake that is not valid; with the status of the answer, and its headers."""

    def __init__(self, status: str, reason: str, *headers: str) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


def asks_for_websocket(request: RequestHead) -> bool:
    """Return whether this request begins a websocket. Any other may be answered as if it had no Upgrade."""
    for name, value in request.headers:
        if name == "UPGRADE" and "websocket" in tokens(value):
            return request.method == "GET" and request.version >= (1, 1)
    return False


def check(request: RequestHead) -> None:
    """Raise HandshakeError for a handshake that is not valid."""
    if "upgrade" not in tokens(_value(request, "CONNECTION")):
        raise HandshakeError("400 Bad Request", 'a websocket needs "Connection: Upgrade"')
    version = _value(request, "SEC-WEBSOCKET-VERSION")
    if version != VERSION:
        headers = ("Upgrade: websocket", f"Sec-WebSocket-Version: {VERSION}")
        raise HandshakeError("426 Upgrade Required", f"websockets have version {VERSION} here", *headers)
    try:
        key = base64.b64decode(_value(request, "SEC-WEBSOCKET-KEY"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != 16:
        raise HandshakeError("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64")
    if request.length != 0:
        raise HandshakeError("400 Bad Request", "the handshake of a websocket has no body")


def subprotocols(request: RequestHead) -> list[str]:
    """Return the subprotocols that a client offers, the one it likes best first."""
    found = _value(request, "SEC-WEBSOCKET-PROTOCOL").split(",")
    return [name for name in map(str.strip, found) if name]


def accept(request: RequestHead, subprotocol: str | None, headers: Headers, request_id: str) -> bytes:
    """Return the response that opens a websocket. Raise ValueError for what cannot be in it."""
    digest = hashlib.sha1(_value(request, "SEC-WEBSOCKET-KEY").encode() + UNIQUE).digest()
    lines: list[tuple[bytes, bytes]] = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Accept", base64.b64encode(digest)),
    ]
    if subprotocol:
        lines.append((b"Sec-WebSocket-Protocol", subprotocol.encode("latin-1")))
    if request_id:
        lines.append((b"X-Request-ID", request_id.encode()))
    return b"HTTP/1.1 101 Switching Protocols\r\n" + header_lines([*lines, *headers]) + b"\r\n"


def header_lines(headers: Headers) -> bytes:
    """Return headers as they are sent. Raise ValueError if one would end its line, or has no name."""
    for name, value in headers:
        if not NAME.fullmatch(name) or CONTROL.search(value):
            raise ValueError(f"{name!r}: {value!r} is not a valid header")
    return b"".join(b"%b: %b\r\n" % (name, value) for name, value in headers)


def tokens(value: str) -> list[str]:
    """Return the lower-case members of a list in a header."""
    return [token.strip() for token in value.lower().split(",")]


def _value(request: Any, wanted: str) -> str:
    """Return the value of a header, the values of several as one list."""
    return ",".join(value for name, value in request.headers if name == wanted)
