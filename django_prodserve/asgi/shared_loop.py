"""Let ``async_to_sync`` in threads of the pool run its coroutine on the worker's asyncio loop.

Runs in a worker, in each thread of the pool as it starts. Without this, each call starts a thread and a loop,
and whatever the coroutine opens belongs to a loop that ends with it: Channels' Redis layer opens a connection
for each ``group_send`` of a sync view.
"""

from __future__ import annotations

import asyncio
import os

import asgiref
from asgiref.sync import AsyncToSync, SyncToAsync

from ..speedups.fingerprints import fingerprint

TESTED = {
    "fd233e3f501e71b3": "3.9",
    "9cf77dff5240c8e6": "3.10 and 3.11",
    "65c1c4c0ea24261d": "3.12 and 3.13",
}
"""Fingerprints of the two functions that read and write a thread's loop, and the versions that have them."""


def why_not() -> str:
    """Return why threads do not share the loop; empty if asgiref is as tested."""
    if fingerprint(AsyncToSync.__call__, SyncToAsync.thread_handler) in TESTED:
        return ""
    return f"the source of asgiref {asgiref.__version__} is not as tested"


def share(loop: asyncio.AbstractEventLoop) -> None:
    """Make this loop the one of the calling thread's ``async_to_sync``. Call this after ``why_not``."""
    SyncToAsync.threadlocal.main_event_loop = loop
    SyncToAsync.threadlocal.main_event_loop_pid = os.getpid()
