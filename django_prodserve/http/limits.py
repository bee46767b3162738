"""How long a worker waits for clients, and how much it keeps for them. Seconds and bytes.

None of these costs a thread: they bound what a silent client costs in descriptors and memory. They are wide
enough for a phone on a train (Apache's mod_reqtimeout: 20 to 40 s for a head, 500 bytes/s; nginx: 60 s).
"""

from __future__ import annotations

KIB, MIB = 2**10, 2**20

HEAD_SECONDS = 30.0
"""From the first byte of a request, or the start of a connection, until its head is complete."""
STALL_SECONDS = 30.0
"""A body that arrives, or a response that leaves, must move ``MIN_RATE`` on average in each such time."""
MIN_RATE = 250
"""Bytes a second."""
STREAM_HOLD_SECONDS = 10.0
"""How long a stream may hold a thread that waits for its reader, beyond half of the threads."""
LINGER_SECONDS = 2.0
"""How long a closed connection may still send, lest a reset cuts off what it reads (RFC 9112 9.6)."""
LINGER_BYTES = 16 * MIB
"""What it may send meanwhile: an upload that was refused must not lose the refusal."""

RECEIVE_BYTES = 64 * KIB
MAX_BODY_IN_MEMORY = 64 * KIB
"""Bodies that are larger go to a file while they arrive."""
MAX_OUTPUT_IN_MEMORY = 64 * KIB
"""What a client does not take at once is kept in memory up to this, then in a file."""
STREAM_AHEAD = 16 * MIB
"""How far a stream may run ahead of its reader before its thread waits."""
DISK_RESERVE = 64 * MIB
"""No file of ours takes the last bytes of a disk."""
MAX_STATIC_FILE_IN_MEMORY = 64 * KIB
"""Static files up to this are answered from memory..."""
MAX_STATIC_MEMORY = 16 * MIB
"""...until this much is kept in a worker."""
