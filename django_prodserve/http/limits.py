"""How long a worker waits for clients, and how much it stores for them. Seconds and bytes.

No wait here occupies a thread: the limits bound the descriptors and memory of a silent client. They are wide
enough for a phone on a train (Apache's mod_reqtimeout: 20 to 40 s for the headers, 500 bytes/s; nginx: 60 s).
"""

from __future__ import annotations

KIB, MIB = 2**10, 2**20

HEAD_SECONDS = 30.0
"""From the first byte of a request, or the start of a connection, until its headers are complete."""
HANDSHAKE_SECONDS = 10.0
"""From the start of a connection until its TLS handshake is complete: two or three round trips. nginx waits
60 s, Gunicorn's threads without a limit."""
STALL_SECONDS = 30.0
"""A request body or a response must average ``MIN_RATE`` in each period of this length."""
MIN_RATE = 250
"""Bytes a second."""
STREAM_HOLD_SECONDS = 10.0
"""How long a thread may wait for the client of a stream once half of the threads already do."""
LINGER_SECONDS = 2.0
"""How long a client may still send after we close: a reset would truncate what it reads (RFC 9112 9.6)."""
LINGER_BYTES = 16 * MIB
"""How much it may send meanwhile: a client whose upload was refused must still get the refusal."""

RECEIVE_BYTES = 64 * KIB
MAX_BODY_IN_MEMORY = 64 * KIB
"""Larger request bodies are spooled to a file."""
MAX_OUTPUT_IN_MEMORY = 64 * KIB
"""Bytes not yet accepted by a client stay in memory up to this size, then in a file."""
STREAM_AHEAD = 16 * MIB
"""How far a stream may run ahead of its reader before its thread waits."""
DISK_RESERVE, DISK_RESERVE_SHARE = 64 * MIB, 0.1
"""Space that our files leave free on a disk, and the share of a small one."""
MAX_STATIC_FILE_IN_MEMORY = 64 * KIB
"""Maximum size of a static file that a worker answers from memory..."""
MAX_STATIC_MEMORY = 16 * MIB
"""...until its files in memory reach this size."""
