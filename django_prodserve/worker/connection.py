"""One client's connection and how far it is. Lives in a worker; at any time one thread owns it.

Whoever gets its event from the poller, or finds its deadline past, must ``acquire`` it first; who arms it
releases it. Between the two nobody else reads or writes its attributes.
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
    from .write_buffer import WriteBuffer

IDLE, HEAD, BODY, OWNED, WRITE, STREAM, LINGER = range(7)
"""Between requests; a head or a body arrives; a thread has it; a complete response leaves; a stream leaves
while its thread makes more; closed by us, until the client closes too."""


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
        *("bytes_since_check", "number", "write_buffer", "peer", "request", "sock", "state", "waited"),
    )

    def __init__(self, sock: socket.SocketType, peer: Any, environs: EnvironBuilder) -> None:
        self.sock, self.peer, self.environs = sock, peer, environs
        self.fd = sock.fileno()
        self.introduced: Mapping[str, str] | None = None
        """What the PROXY protocol has said of the client, whose address ``peer`` is from then on; None until
        it is known whether it says anything."""
        self.state = IDLE
        self.buffer = b""
        """Bytes of a head that is not complete, or of requests behind the one that runs."""
        self.number = 0  # requests so far
        self.request: RequestHead | None = None
        self.arriving: FixedLengthReceiver | ChunkedReceiver | None = None
        self.body: tuple[IO[bytes], int] | None = None
        self.arrived = 0.0  # when the request was complete
        self.waited = 0.0  # seconds of its first request in the kernel's accept queue, where that was long
        self.deadline = math.inf  # when somebody must look what became of it
        self.bytes_since_check = 0  # bytes since the last look
        self.write_buffer: WriteBuffer | None = None
        self.keep = False  # whether another request may follow, once what is left has left
        self.client_closes = False  # as it has said
        self.is_registered = False  # to the poller
        self.armed = False  # for what a stream has left
        self._free: list[None] = []

    def environ(self, request: RequestHead, body: tuple[IO[bytes], int] | None) -> dict[str, Any]:
        """Return the environ of one of its requests."""
        return self.environs.build(request, self.peer, body, self.introduced)

    def acquire(self) -> bool:
        """Become its owner; False where somebody else is."""
        try:
            self._free.pop()
        except IndexError:
            return False
        return True

    def release(self) -> None:
        """Stop being its owner."""
        self._free.append(None)

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes at once."""
        try:
            return self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientGoneError(*error.args) from error

    def receive(self) -> bytes:
        """Return what is here, nothing where the client has closed; BlockingIOError where nothing is here."""
        try:
            return self.sock.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            raise
        except OSError as error:
            raise ClientGoneError(*error.args) from error

    def holds_unread(self) -> bool:
        """Say whether bytes are here that nobody has read: to close would cut off our answer."""
        count = fcntl.ioctl(self.fd, termios.FIONREAD, bytes(4))
        return bool(self.buffer) or count != bytes(4)

    def is_gone(self) -> bool:
        """Say whether the client has hung up. One that has only stopped sending looks the same."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def forget_request(self) -> None:
        """Let go of what belonged to the request that is over; what it said of the connection is kept."""
        if self.request is not None:
            self.client_closes = self.request.should_close() and not self.request.must_close
        if self.body is not None:
            with suppress(OSError):
                self.body[0].close()
        self.request = self.arriving = self.body = None
