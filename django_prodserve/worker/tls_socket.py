"""TLS over a socket that never blocks: it replaces the socket of a connection.

Lives in a worker. The thread that owns the connection uses it; of a stream, also the one that waits for
events, so each call takes a lock. OpenSSL works on memory: no thread ever waits in it.

``send`` reports only bytes that have left. What was encrypted cannot be taken back, so the rest of it waits
here. As with ``SSL_write``, the caller must bring the unsent bytes again: those that wait are then skipped.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tls.contexts import TLSContexts

RECORD = 16 * 1024
"""Bytes of a full record. OpenSSL's buffers in memory never shrink, so they get no more at a time."""
BATCH = 4 * RECORD
"""Bytes that are encrypted before the socket must have taken them."""
UNSENT_BYTES = 64 * 1024
"""Bytes of TLS itself that may wait for a client that only sends: a renegotiation is refused with a few."""


class HandshakeError(OSError):
    """A handshake has failed; ``reason`` is a word for the metrics."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class TLSPeer:
    """What an application may ask of the client's TLS connection: ``environ["gunicorn.socket"]``."""

    __slots__ = ("__weakref__", "_tls")

    def __init__(self, tls: ssl.SSLObject) -> None:
        self._tls = tls

    def getpeercert(self, binary_form: bool = False) -> Any:
        """Return the client's certificate, as Python's SSLSocket does."""
        return self._tls.getpeercert(binary_form)

    def cipher(self) -> tuple[str, str, int] | None:
        """Return the cipher's name, the protocol that defines it, and the bits of its key."""
        return self._tls.cipher()

    def version(self) -> str | None:
        """Return the version of TLS."""
        return self._tls.version()

    def selected_alpn_protocol(self) -> str | None:
        """Return the protocol that the client and this server have agreed on."""
        return self._tls.selected_alpn_protocol()


class TLSSocket:
    """Has what a connection uses of a socket."""

    __slots__ = (
        *("_bare", "_contexts_lock", "_encrypted", "_incoming", "_left", "_lock", "_outgoing"),
        *("_tls", "_waiting", "fileno", "getsockopt", "has_begun", "holds_partial"),
        *("is_closing", "is_ended", "peer", "setblocking"),
    )

    def __init__(self, bare: socket.SocketType, contexts: TLSContexts) -> None:
        self._bare = bare
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = contexts.wrap(self._incoming, self._outgoing)
        self._contexts_lock = contexts.lock
        self._lock = threading.Lock()
        self._waiting: deque[tuple[bytes | memoryview, int]] = deque()
        """Encrypted pieces that the kernel has not taken, each with its bytes of the caller."""
        self._encrypted = self._left = 0
        """Bytes of the caller that are encrypted, and those that have left. No call has reported them."""
        self.has_begun = False
        """Whether the client has got its first answer in the handshake."""
        self.is_ended = False
        """Whether the client sends no more."""
        self.is_closing = False
        """Whether this side has sent its goodbye."""
        self.holds_partial = False
        """Whether a part of a record has arrived."""
        self.peer = TLSPeer(self._tls)
        self.fileno, self.setblocking = bare.fileno, bare.setblocking
        self.getsockopt = bare.getsockopt

    # The handshake.

    def handshake(self, data: bytes = b"") -> bool:
        """Continue the handshake with what arrived; return whether it is over. Raises HandshakeError.

        Without ``data``, receive some; BlockingIOError if none arrived.
        """
        with self._lock:
            if not data and not self._waiting and not self._incoming.pending:
                data = self._bare.recv(RECORD, socket.MSG_DONTWAIT)
                if not data:
                    raise HandshakeError("closed")
            self._incoming.write(data)
            try:
                with self._contexts_lock:
                    self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self.has_begun = True
                self._flush(0)
                return False
            except ssl.SSLError as error:
                with suppress(OSError):
                    self._flush(0)  # the alert with the reason
                raise HandshakeError(reason_for(error)) from error
            # In TLS 1.3 only session tickets wait now: they leave with the first response.
            if self._tls.version() != "TLSv1.3":
                self._flush(0)
            return True

    @property
    def is_resumed(self) -> bool:
        """Return whether the client has resumed a session."""
        return bool(self._tls.session_reused)

    @property
    def has_unsent(self) -> bool:
        """Return whether encrypted bytes wait for the kernel."""
        return bool(self._waiting)

    # Receiving.

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Return decrypted bytes, none if the client has ended; BlockingIOError if no record is complete.

        After ``close_notify``, return what arrives as it is: it is only discarded.
        """
        with self._lock:
            if self.is_closing:
                return self._bare.recv(size, flags)
            if self.is_ended:
                return b""
            incoming = self._incoming
            found: list[bytes] = []
            if incoming.pending:  # it came with the end of the handshake
                self._read(found)
            if not found and not self.is_ended:
                data = self._bare.recv(size, flags)
                self.is_ended = not data
                for start in range(0, len(data), RECORD):
                    incoming.write(data if len(data) <= RECORD else data[start : start + RECORD])
                    self._read(found)
            if self._outgoing.pending > UNSENT_BYTES and not self._flush(0):
                raise ConnectionAbortedError("the client makes TLS answer, and does not read the answers")
            if found:
                return found[0] if len(found) == 1 else b"".join(found)
            if self.is_ended:
                return b""
            raise BlockingIOError

    def _read(self, found: list[bytes]) -> None:
        """Decrypt the records that are complete."""
        tls, incoming = self._tls, self._incoming
        try:
            while True:
                piece = tls.read(RECORD)
                if not piece:
                    self.is_ended = True
                    return
                found.append(piece)
                if not incoming.pending and not tls.pending():  # saves the exception
                    self.holds_partial = False
                    return
        except ssl.SSLWantReadError:
            self.holds_partial = True
        except ssl.SSLZeroReturnError:
            self.is_ended = True
        except ssl.SSLError:
            with suppress(OSError):
                self._flush(0)  # the alert
            raise

    # Sending.

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Send what the kernel takes; BlockingIOError if that is nothing. Never waits."""
        with self._lock:
            size = len(data)
            if size <= RECORD and not self._encrypted and not self._waiting and size:  # most responses
                self._tls.write(data)
                return self._send_first(self._outgoing.read(), size, flags)
            view = memoryview(data)
            if not self._waiting or self._flush(flags):
                while self._encrypted < size:
                    self._encrypt(view[self._encrypted : self._encrypted + BATCH])
                    if not self._flush(flags):
                        break
            sent = min(self._left, size)
            self._left -= sent
            self._encrypted -= sent
            if not sent and size:
                raise BlockingIOError
            return sent

    def _send_first(self, piece: bytes, size: int, flags: int) -> int:
        """Send a piece with nothing before it; ``size``: bytes of the caller in it."""
        try:
            sent = self._bare.send(piece, flags | socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent == len(piece):
            return size
        self._waiting.append((memoryview(piece)[sent:], size))
        self._encrypted = size
        raise BlockingIOError

    def _encrypt(self, view: memoryview) -> None:
        write, read, keep = self._tls.write, self._outgoing.read, self._waiting.append
        for start in range(0, len(view), RECORD):
            count = write(view[start : start + RECORD])
            keep((read(), count))
            self._encrypted += count

    def _flush(self, flags: int) -> bool:
        """Send what is encrypted; return whether all of it has left."""
        waiting = self._waiting
        if self._outgoing.pending:
            waiting.append((self._outgoing.read(), 0))
        while waiting:
            try:
                if len(waiting) == 1:
                    sent = self._bare.send(waiting[0][0], flags | socket.MSG_DONTWAIT)
                else:
                    pieces = [piece for piece, _ in waiting]
                    sent = self._bare.sendmsg(pieces, (), flags | socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            while waiting and sent >= len(waiting[0][0]):
                piece, count = waiting.popleft()
                sent -= len(piece)
                self._left += count
            if sent:
                piece, count = waiting[0]
                waiting[0] = memoryview(piece)[sent:], count
        return True

    def sendmsg(self, pieces: Iterable[bytes | memoryview], ancillary: tuple[()] = (), flags: int = 0) -> int:
        """Send what the kernel takes of several pieces, as far as one batch goes."""
        some, room = [], BATCH
        for piece in pieces:
            some.append(memoryview(piece)[:room])
            room -= len(some[-1])
            if not room:
                break
        return self.send(b"".join(some), flags)

    def send_whole(self, data: bytes) -> None:
        """Send a few bytes that no call brings again: what does not leave now leaves with the next bytes."""
        with suppress(BlockingIOError):
            self.send(data)
        with self._lock:
            self._encrypted = self._left = 0
            self._waiting = deque((piece, 0) for piece, _ in self._waiting)

    def send_range(self, descriptor: int, offset: int, count: int) -> int:
        """Send bytes of a file, as ``sendfile`` does; 0 if the file has no more."""
        data = os.pread(descriptor, min(count, BATCH), offset)
        return self.send(data) if data else 0

    # The end.

    def say_goodbye(self) -> bool:
        """Announce that nothing follows (``close_notify``); return whether that has left."""
        with self._lock:
            if not self.is_closing:
                self.is_closing = True
                with suppress(ssl.SSLError):  # it also asks for the client's answer, which is not here yet
                    self._tls.unwrap()
            try:
                return self._flush(0)
            except OSError:
                return True

    def shutdown(self, how: int) -> None:
        """Shut the socket down, without a word."""
        self._bare.shutdown(how)

    def close(self) -> None:
        """Close the socket, without a word: a truncated response must not look complete."""
        self._bare.close()


REASONS = {
    "http": ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST"),
    "version": ("UNSUPPORTED_PROTOCOL", "WRONG_VERSION_NUMBER", "VERSION_TOO_LOW", "UNKNOWN_PROTOCOL"),
    "cipher": ("NO_SHARED_CIPHER", "NO_SHARED_SIGNATURE_ALGORITHMS", "NO_SUITABLE_KEY_SHARE"),
    "client-certificate": (
        *("PEER_DID_NOT_RETURN_A_CERTIFICATE", "CERTIFICATE_VERIFY_FAILED"),
        *("NO_CERTIFICATE_RETURNED", "CERTIFICATE_REQUIRED"),
    ),
}
"""OpenSSL's names of errors, by our words for the metrics."""


def reason_for(error: ssl.SSLError) -> str:
    """Return a word for the error of a handshake."""
    name = str(getattr(error, "reason", "") or "")
    for word, names in REASONS.items():
        if name in names:
            return word
    return "alert" if "_ALERT_" in name else "other"
