"""One client's connection and its state. Lives in a worker; at any time one thread owns it.

A thread that gets the connection's event from the poller, or finds its deadline past, must first ``acquire``
it. The thread that arms it releases it. Between the two no other thread reads or writes its attributes.
"""

from __future__ import annotations

import fcntl
import math
import socket
import termios
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any

from ..http.exceptions import ClientGoneError
from ..http.limits import RECEIVE_BYTES

if TYPE_CHECKING:
    from ..http.body import ChunkedReceiver, FixedLengthReceiver
    from ..http.environ import EnvironBuilder
    from ..http.parser import RequestHead
    from .tls_socket import TLSSocket
    from .write_buffer import WriteBuffer

IDLE, HEAD, BODY, OWNED, WRITE, STREAM, LINGER, HANDSHAKE = range(8)
"""Between requests; request line and headers, or a body, arrive; a thread owns it; a complete response is
being sent; a stream is being sent while its thread produces more; closed by us, until the client closes,
too; the client must begin or continue the TLS handshake."""


class Connection:
    """A socket and the state of its conversation."""

    __slots__ = (
        *(
            "_free",
            "armed",
            "arrived",
            "arriving",
            "body",
            "buffer",
            "client_closes",
            "deadline",
            "environs",
            "fd",
        ),
        *("introduced", "is_registered", "keep"),
        *("bytes_since_check", "number", "write_buffer", "peer", "request", "sock", "state", "tls", "waited"),
    )

    def __init__(self, sock: socket.SocketType, peer: Any, environs: EnvironBuilder) -> None:
        self.sock: socket.SocketType | TLSSocket = sock
        self.tls: TLSSocket | None = None
        """The same as ``sock`` once the client speaks TLS."""
        self.peer, self.environs = peer, environs
        self.fd = sock.fileno()
        self.introduced: Mapping[str, str] | None = None
        """Client data from the PROXY protocol, from which ``peer`` then has its address. None until the
        worker knows whether the connection starts with such a header."""
        self.state = IDLE
        self.buffer = b""
        """Bytes of an incomplete request line and headers, or of requests behind the one that runs."""
        self.number = 0  # requests received so far
        self.request: RequestHead | None = None
        self.arriving: FixedLengthReceiver | ChunkedReceiver | None = None
        self.body: tuple[IO[bytes], int] | None = None
        self.arrived = 0.0  # when the request was complete
        self.waited = 0.0  # seconds that its first request waited in the accept queue, if that was long
        self.deadline = math.inf  # when a thread must check its progress
        self.bytes_since_check = 0  # bytes transferred since the last check
        self.write_buffer: WriteBuffer | None = None
        self.keep = False  # whether another request may follow once the response is sent
        self.client_closes = False  # as the client has asked
        self.is_registered = False  # with the poller
        self.armed = False  # to send the rest of a stream
        self._free: list[None] = []

    def environ(self, request: RequestHead, body: tuple[IO[bytes], int] | None) -> dict[str, Any]:
        """Return the environ of one of its requests."""
        environ = self.environs.build(request, self.peer, body, self.introduced)
        if self.tls is not None:
            environ["gunicorn.socket"] = self.tls.peer
        return environ

    def speak_tls(self, tls: TLSSocket) -> None:
        """Talk to the client through TLS from now on."""
        self.sock = self.tls = tls

    def acquire(self) -> bool:
        """Become its owner; return False if another thread owns it."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def release(self) -> None:
        """Stop being its owner."""
        self._free.append(None)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send as much as the kernel accepts without waiting."""
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGoneError(*error.args) from error

    def receive(self) -> bytes:
        """Return received bytes, none if the client has closed; BlockingIOError if none arrived."""
        try:
            return self.sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ClientGoneError(*error.args) from error

    def send_interim(self, data: bytes) -> None:
        """Send an interim response; a client that reads nothing does not get it."""
        if self.tls is None:
            self.send_nowait(data)
            return
        try:
            self.tls.send_whole(data)
        except OSError as error:
            raise ClientGoneError(*error.args) from error

    def holds_unread(self) -> bool:
        """Return whether unread bytes have arrived: closing now would truncate our response."""
        if self.tls is not None and self.tls.holds_partial:
            return True
        count = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return bool(self.buffer) or count != bytes(4)

    def is_gone(self) -> bool:
        """Return whether the client has closed, or only stopped sending, which looks the same."""
        if self.tls is not None:
            return self._has_ended(self.tls)
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _has_ended(self, tls: TLSSocket) -> bool:
        """Read what has arrived, because the end is encrypted too; keep bytes of later requests."""
        if self.buffer:
            return tls.is_ended
        try:
            self.buffer = tls.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return not self.buffer

    def forget_request(self) -> None:
        """Discard the state of the request that is over; what belongs to the connection stays."""
        if self.request is not None:
            self.client_closes = self.request.should_close() and not self.request.must_close
        if self.body is not None:
            with suppress(OSError):
                self.body[0].close()
        self.request = self.arriving = self.body = None
