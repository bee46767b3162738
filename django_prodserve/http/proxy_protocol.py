"""Parse the PROXY protocol: a load balancer's description of the client, before the client's first byte.

Lives in a worker, in the thread that owns the connection. The worker reads the header once, before any HTTP
parser sees a byte. It holds for the whole connection: every request has the same client. Gunicorn's parser
keeps it with the first request only. It also refuses as malformed two forms that the protocol allows:
UNKNOWN and UNSPEC.

The specification is HAProxy's proxy-protocol.txt. As with Gunicorn, a permitted peer may also connect without
such a header: then the peer itself is the client.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gunicorn.http.errors import ForbiddenProxyRequest, InvalidProxyLine
from gunicorn.http.message import PP_V2_SIGNATURE

if TYPE_CHECKING:
    from collections.abc import Mapping

NOT_INTRODUCED: Mapping[str, str] = MappingProxyType({})
"""The environ entries of a connection without a PROXY protocol header."""
V1 = b"PROXY "
LONGEST_V1 = 107
"""Maximum bytes of a version 1 line, including its CRLF."""
PORT = re.compile(r"0|[1-9][0-9]{0,4}", re.ASCII)
FAMILIES = {"TCP4": socket.AF_INET, "TCP6": socket.AF_INET6}
STREAMS = {0x11: ("TCP4", 4), 0x21: ("TCP6", 16)}
"""Families of version 2 that name a client: their names in version 1, and the bytes of an address."""
UNNAMED = {0x00, 0x31}
"""Families that name no client: unspecified, and unix sockets."""
LOCAL, PROXIED = 0x20, 0x21


class Introduction(NamedTuple):
    """A load balancer's description of a connection."""

    client: tuple[str, int] | None
    """The client's address and port; None: only the peer's own are known."""
    environ: Mapping[str, str]
    """Entries that Gunicorn adds to the environ of the first request."""


class IncompleteError(Exception):
    """More bytes must arrive before the worker can decide."""


def local(name: str) -> Introduction:
    """Return the description of a connection whose client was not named."""
    return Introduction(None, MappingProxyType({"PROXY_PROTOCOL": name}))


class Preface:
    """Reads the PROXY header of a connection; ``mode`` is Gunicorn's ``proxy_protocol``."""

    def __init__(self, config: Any) -> None:
        self._allowed, self._networks = config.proxy_allow_ips, config.proxy_allow_networks()
        self._readers: list[tuple[bytes, Callable[[bytes], tuple[Introduction, bytes]]]] = []
        if config.proxy_protocol in ("v1", "auto"):
            self._readers.append((V1, read_v1))
        if config.proxy_protocol in ("v2", "auto"):
            self._readers.append((PP_V2_SIGNATURE, read_v2))

    def take(self, data: bytes, peer: Any) -> tuple[Introduction, bytes]:
        """Return the header at the start of ``data``, and the bytes behind it.

        Raises IncompleteError if more bytes are needed. Raises Gunicorn's exceptions if the header is
        malformed, or if this peer may not send one.
        """
        for start, read in self._readers:
            if data.startswith(start):
                if not self._may_introduce(peer):
                    raise ForbiddenProxyRequest(peer[0])
                return read(data)
        if any(start.startswith(data) for start, _ in self._readers):
            raise IncompleteError
        return NOBODY, data

    def _may_introduce(self, peer: Any) -> bool:
        """Return whether ``proxy_allow_ips`` includes this peer; a unix socket is always permitted."""
        if not isinstance(peer, tuple) or "*" in self._allowed:
            return True
        address = ipaddress.ip_address(peer[0].partition("%")[0])
        # On a dual-stack socket 127.0.0.1 is ::ffff:127.0.0.1.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._networks)


NOBODY = Introduction(None, NOT_INTRODUCED)
"""The description of a connection without such a header."""


def read_v1(data: bytes) -> tuple[Introduction, bytes]:
    """Read a line such as ``PROXY TCP4 203.0.113.9 10.0.0.1 5555 80``."""
    end = data.find(b"\r\n", 0, LONGEST_V1)
    if end < 0:
        if len(data) >= LONGEST_V1:
            raise InvalidProxyLine(data[:LONGEST_V1].decode("latin-1"))
        raise IncompleteError
    line, rest = data[:end].decode("latin-1"), data[end + 2 :]
    _, family, *words = line.split(" ")
    if family == "UNKNOWN":  # the protocol ignores the rest
        return local(family), rest
    if family not in FAMILIES or len(words) != 4:
        raise InvalidProxyLine(line)
    try:
        client, proxy = (_plain(family, socket.inet_pton(FAMILIES[family], word)) for word in words[:2])
    except (OSError, ValueError):
        raise InvalidProxyLine(line) from None
    if not all(PORT.fullmatch(word) and int(word) < 2**16 for word in words[2:]):
        raise InvalidProxyLine(line)
    return _named(family, client, int(words[2]), proxy, words[3]), rest


def read_v2(data: bytes) -> tuple[Introduction, bytes]:
    """Read a binary header."""
    if len(data) < 16:
        raise IncompleteError
    command, family, length = struct.unpack_from(">BBH", data, 12)
    if command not in (LOCAL, PROXIED):
        raise InvalidProxyLine(f"version 2: command {command:#x}")
    if len(data) < 16 + length:
        raise IncompleteError
    body, rest = data[16 : 16 + length], data[16 + length :]
    if command == LOCAL:  # health checks of the load balancer itself; the protocol ignores the rest
        return local("LOCAL"), rest
    if family in UNNAMED:
        return local("UNSPEC"), rest
    name, size = STREAMS.get(family, ("", 0))
    if not name or length < 2 * size + 4:
        raise InvalidProxyLine(f"version 2: family {family:#x} with {length} bytes")
    client, proxy = (_plain(name, body[at : at + size]) for at in (0, size))
    port, proxy_port = struct.unpack_from(">HH", body, 2 * size)
    return _named(name, client, port, proxy, str(proxy_port)), rest


def _plain(family: str, address: bytes) -> str:
    return socket.inet_ntop(FAMILIES[family], address)


def _named(family: str, client: str, port: int, proxy: str, proxy_port: str) -> Introduction:
    said = {"PROXY_PROTOCOL": family, "PROXY_ADDR": proxy, "PROXY_PORT": proxy_port}
    return Introduction((client, port), MappingProxyType(said))
