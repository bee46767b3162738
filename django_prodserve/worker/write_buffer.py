"""Bytes that a client has not accepted yet, in memory and in files, sent when the socket has room.

Lives in a worker, in the thread that owns the connection. A stream's buffer is shared with the thread that
polls, so a thread that uses it holds its lock.
"""

from __future__ import annotations

import os
import socket
import threading
from collections import deque

from ..http import limits
from ..http.exceptions import ClientGoneError, FileShrankError
from ..http.spool import SPACE, open_file
from .tls_socket import TLSSocket

LARGEST = 2**30
"""Maximum bytes for one sendfile call; some systems fail beyond 2 GiB."""


MORE = getattr(socket, "MSG_MORE", 0)


class FileRange:
    """Bytes of a file that are still to be sent."""

    __slots__ = ("descriptor", "is_ours", "left", "offset", "title")

    def __init__(
        self, descriptor: int, offset: int, left: int, *, is_ours: bool = False, title: str = ""
    ) -> None:
        self.descriptor, self.offset, self.left, self.title = descriptor, offset, left, title
        self.is_ours = is_ours  # if we must close it

    def close(self) -> None:
        if self.is_ours:
            self.is_ours = False
            os.close(self.descriptor)


class WriteBuffer:
    """Pieces in sending order."""

    __slots__ = ("broken", "in_memory", "lock", "pieces", "room", "size", "spool")

    def __init__(self) -> None:
        self.pieces: deque[memoryview | FileRange] = deque()
        self.size = 0
        self.in_memory = 0
        self.spool: FileRange | None = None  # the last piece, while it grows
        self.broken = False
        self.lock = threading.Lock()
        self.room = threading.Condition(self.lock)

    def add(self, data: bytes | memoryview) -> None:
        """Append bytes: to a file if much waits already, in memory if the disk has no room."""
        size = len(data)
        self.size += size
        if self.in_memory + size > limits.MAX_OUTPUT_IN_MEMORY and self._spooled(data):
            return
        self.spool = None  # later bytes must not overtake these
        self.in_memory += size
        self.pieces.append(memoryview(data))

    def _spooled(self, data: bytes | memoryview) -> bool:
        """Append to a file; return False if the disk has no room for it."""
        try:
            if self.spool is None:
                with open_file() as file:
                    self.spool = FileRange(os.dup(file.fileno()), 0, 0, is_ours=True)
                self.pieces.append(self.spool)
            spool = self.spool
            end = spool.offset + spool.left
            SPACE.check(spool.descriptor)
            view = memoryview(data)
            while view:
                wrote = os.pwrite(spool.descriptor, view, end)
                view, end, spool.left = view[wrote:], end + wrote, spool.left + wrote
        except OSError:
            return False
        return True

    def add_part(self, part: FileRange) -> None:
        """Append a part of a file."""
        self.size += part.left
        self.spool = None
        self.pieces.append(part)

    def flush(self, sock: socket.SocketType | TLSSocket) -> int:
        """Send as much as the socket accepts now; return the number of bytes."""
        moved = 0
        try:
            while self.pieces:
                piece = self.pieces[0]
                send = self._send_file if isinstance(piece, FileRange) else self._send_memory
                sent = send(sock, piece)  # type: ignore[arg-type]  # each gets its own kind
                moved += sent
                self.size -= sent
        except BlockingIOError:
            pass
        except ClientGoneError:
            raise
        except OSError as error:
            raise ClientGoneError(*error.args) from error
        return moved

    def _send_memory(self, sock: socket.SocketType | TLSSocket, piece: memoryview) -> int:
        # A file shares a packet with the headers before it.
        more = MORE if len(self.pieces) > 1 else 0
        sent = sock.send(piece, socket.MSG_DONTWAIT | more)
        self.in_memory -= sent
        if sent == len(piece):
            self.pieces.popleft()
        else:
            self.pieces[0] = piece[sent:]
        return sent

    def _send_file(self, sock: socket.SocketType | TLSSocket, part: FileRange) -> int:
        if isinstance(sock, TLSSocket):  # the kernel does not encrypt
            sent = sock.send_range(part.descriptor, part.offset, part.left)
        else:
            sent = os.sendfile(sock.fileno(), part.descriptor, part.offset, min(part.left, LARGEST))
        if sent == 0:
            raise FileShrankError(
                f"The file that answers {part.title} has become shorter while it was sent: "
                f"{part.left} bytes are missing, the connection is closed."
            )
        part.offset += sent
        part.left -= sent
        if not part.left:
            self.pieces.popleft()
            if part is self.spool:
                self.spool = None
            part.close()
        return sent

    def close(self) -> None:
        """Discard everything."""
        for piece in self.pieces:
            if isinstance(piece, FileRange):
                piece.close()
        self.pieces.clear()
        self.size = self.in_memory = 0
        self.spool = None
