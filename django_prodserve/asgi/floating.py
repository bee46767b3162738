"""Threads for the sync code of websockets: a lease for each, which holds a thread only during its calls.

Lives in a worker, on the event loop's thread. asgiref runs the sync code of all websockets of a process in
one thread, because no request bounds it. Here each websocket has its own order: its calls run one after the
other, each in any leased thread, while the calls of other websockets run in other threads. A websocket may
last for days. So it never keeps a thread, and a call waits for one without limit.
"""

from __future__ import annotations

import math

from django.db import close_old_connections

from .leases import Lease, Leases


def floating_lease(leases: Leases) -> Lease:
    """Return a lease for one websocket; around its calls, connections that are too old or broken are closed.

    So does Channels' ``database_sync_to_async``, and Django around each request.
    """
    return leases.lend(close_old_connections, close_old_connections, floats=True, patience=math.inf)
