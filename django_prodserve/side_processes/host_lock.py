"""Who runs a process: one minder of a host, and with ``one_host`` one of all hosts.

Used by a minder. ``FileLock`` keeps two servers of a host, and two generations of a server, from running a
process at the same time: the kernel releases it when the minder ends. ``SharedLock`` is a lock in the
database, as for ``--migrate``. Its thread holds the connection, because a driver may block for as long as a
network takes; the minder's loop asks only for the time until which the lock is certain.

Times, in seconds. The holder proves every PROVE seconds that its session lives. Without a proof for SURE
seconds its process is stopped, and killed after LEASE. The database drops a session that is silent for
SILENT. A host that had to wait for the lock starts its process LEASE later. So two hosts do not run it at the
same time, and another host takes over within SILENT + ASK + LEASE. One case remains: a server that starts
within LEASE after the database was restarted may find the lock free before its holder has taken it again.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable
from typing import Protocol

from ..utils.tracebacks import reason_of

PROVE, SURE, LEASE, SILENT, ASK = 3.0, 10.0, 16.0, 25.0, 3.0


class FileLock:
    """A lock on a file among the processes of one host; without a path it is always free."""

    def __init__(self, path: str) -> None:
        self.path, self._handle = path, -1
        if path:
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)

    def take(self) -> bool:
        """Take the lock unless another process has it."""
        if self._handle < 0:
            return True
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def release(self) -> None:
        """Release the lock: the process has ended."""
        if self._handle >= 0:
            fcntl.flock(self._handle, fcntl.LOCK_UN)


class Lease(Protocol):
    """A lock in a database that ends with a silent session (startup/locks.py)."""

    def take(self) -> bool:
        """Take it, over a new connection if there is none."""
        ...

    def prove(self) -> None:
        """Let the session answer; an exception of the driver means that the lock is lost."""
        ...

    def release(self) -> None:
        """Close the connection."""
        ...


class SharedLock(threading.Thread):
    """Takes a lock in the database, and proves again and again that it is held."""

    def __init__(self, make: Callable[[], Lease]) -> None:
        """``make`` runs in the thread: a connection of Django belongs to the thread that made it."""
        super().__init__(name="prodserve-host-lock", daemon=True)
        self._make = make
        self._proven = 0.0
        self._may_start = 0.0
        self._waited = self._holds = self._is_lost = False
        self.fault = ""
        """Why the database gives no answer; empty if it does."""
        self._ended = threading.Event()

    def is_ours(self, now: float) -> bool:
        """Return whether this host may start the process now."""
        return self.is_sure(now) and now >= self._may_start

    def is_sure(self, now: float) -> bool:
        """Return whether the lock was proven lately; otherwise the process must stop."""
        return bool(self._proven) and not self._is_lost and now < self._proven + SURE

    @property
    def kill_at(self) -> float:
        """Return when the process must have ended if no proof follows."""
        return self._proven + LEASE

    def run(self) -> None:
        lease = self._make()
        while not self._ended.is_set():
            asked = time.monotonic()
            try:
                held = self._hold(lease, asked)
            except Exception as error:  # each driver has its own
                self.fault, held = reason_of(error), False
                self._close(lease)
            self._ended.wait(PROVE if held else ASK)
        self._close(lease)

    def _hold(self, lease: Lease, asked: float) -> bool:
        """Prove that the lock is held, or take it; the time counts from before the question."""
        if self._holds:
            lease.prove()
        elif lease.take():
            self._holds = True
            lost_since = asked - self._proven if self._proven else 0.0
            if self._waited or lost_since > SURE:
                self._may_start = asked + LEASE
            self._waited = False
        else:
            self._waited, self._is_lost, self.fault = True, True, ""
            return False
        self._is_lost = False
        self._proven, self.fault = asked, ""
        return True

    def _close(self, lease: Lease) -> None:
        self._holds = False
        try:
            lease.release()
        except Exception as error:  # it was broken before
            self.fault = self.fault or reason_of(error)

    def release(self) -> None:
        """Release the lock: the process has ended. The thread closes its connection."""
        self._ended.set()
        if self.is_alive():
            self.join(2.0)
