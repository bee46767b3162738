"""TCP facts from Linux: connections in the accept queue, and their waiting time. Runs in workers; 2 us."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress

LISTEN = 10  # a state, in include/net/tcp_states.h
_UNACKED, _LAST_DATA_RECV = 24, 52
"""Offsets of tcpi_unacked, with tcpi_sacked behind it, and of tcpi_last_data_recv, in linux/tcp.h."""


def accept_queue(listener: socket.SocketType) -> tuple[int, int] | None:
    """Return the length and the limit of the accept queue; None if the system reports neither."""
    facts = _facts(listener)
    if not facts or facts[0] != LISTEN:
        return None
    depth, limit = struct.unpack_from("=II", facts, _UNACKED)  # the meaning of these fields for a listener
    return depth, limit


def waited(sock: socket.SocketType) -> float:
    """Return how many seconds ago this connection's last bytes arrived: its time in the accept queue."""
    facts = _facts(sock)
    return float(struct.unpack_from("=I", facts, _LAST_DATA_RECV)[0]) / 1000 if facts else 0.0


def _facts(sock: socket.SocketType) -> bytes:
    if sys.platform == "linux" and sock.family != socket.AF_UNIX:
        with suppress(OSError):
            facts = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
            return facts if len(facts) > _LAST_DATA_RECV else b""
    return b""
