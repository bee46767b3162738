"""One server at a time: locks for replicas that start together, while one of them changes a database.

Used by the command's process, main thread, before the fork, over a separate connection; and by the minder of
a process that one host alone runs (side_processes/host_lock.py). No server waits
inside a database: a waiting statement keeps a snapshot, and CREATE INDEX CONCURRENTLY waits for that in turn.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..errors import ProdserveError
from ..utils.notice import warning
from ..utils.units import format_duration

LOCK_SECONDS = 600.0  # migrations of large tables take minutes; a lock that is never released, forever
MAX_PAUSE = 1.0
MIGRATE = "migrate"
"""What the lock of a database is for, unless another purpose is named."""


class Lock(Protocol):
    """A lock that only one server holds; it ends with the process at the latest."""

    def take(self) -> bool:
        """Acquire the lock unless another server has it; OSError if no such lock is possible."""

    def release(self) -> None:
        """Release the lock."""


class PostgresAdvisoryLock:
    """PostgreSQL's advisory lock of a transaction, which is kept open.

    A pooler keeps a server connection while a transaction lasts. So this lock works behind PgBouncer in
    transaction mode, too, and the lock of a session does not. READ COMMITTED keeps no snapshot between
    statements. The key is known in one database only.
    """

    # Settings that would end a waiting transaction; not every release of PostgreSQL has all of them.
    LIMITS = ("idle_in_transaction_session_timeout", "transaction_timeout")

    def __init__(self, connection: Any, purpose: str, silence: float) -> None:
        self.connection = private_connection(connection)
        self.key = int.from_bytes(_digest(f"django-prodserve {purpose}"), "big", signed=True)
        self.silence = silence

    def take(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            for name, seconds in zip(self.LIMITS, (self.silence, 0.0), strict=True):
                cursor.execute(
                    "SELECT set_config(name, %s, true) FROM pg_settings WHERE name = %s",
                    [str(round(seconds * 1000)), name],
                )
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [self.key])
            taken = bool(cursor.fetchone()[0])
            if not taken:
                cursor.execute("ROLLBACK")
        return taken

    def prove(self) -> None:
        """Let the session that holds the lock answer; raise the driver's exception if it is gone."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def release(self) -> None:
        self.connection.close()


class MySQLNamedLock:
    """MySQL's named lock, which a session holds; the name is known to the whole server."""

    def __init__(self, connection: Any, purpose: str, silence: float) -> None:
        self.connection = private_connection(connection)
        name = str(connection.settings_dict["NAME"])
        name += "" if purpose == MIGRATE else f" {purpose}"
        self.name = f"django-prodserve {_digest(name).hex()}"
        self.silence = round(silence) or 86400

    def take(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = %s", [self.silence])
            cursor.execute("SELECT GET_LOCK(%s, 0)", [self.name])
            return bool(cursor.fetchone()[0])

    def prove(self) -> None:
        """Let the session that holds the lock answer; raise the driver's exception if it is gone."""
        with self.connection.cursor() as cursor:
            cursor.execute("SELECT 1")

    def release(self) -> None:
        self.connection.close()


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


class DirectoryLock:
    """A lock on a directory; it leaves no file behind, and servers on other machines do not see it."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = directory
        self.handle = -1

    def take(self) -> bool:
        if self.handle < 0:
            self.handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self.handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def private_connection(connection: Any) -> Any:
    """Return a private copy of this connection: no pool, nothing open yet."""
    own = connection.copy()
    own.settings_dict["OPTIONS"].pop("pool", None)
    return own


def shared_lock_for(
    connection: Any, purpose: str, silence: float = 0.0
) -> PostgresAdvisoryLock | MySQLNamedLock | None:
    """Return a lock among all servers of a database; None if its vendor has none that we support.

    The database drops it if the session is silent for ``silence`` seconds; 0 for never.
    """
    if connection.vendor == "postgresql":
        return PostgresAdvisoryLock(connection, purpose, silence)
    if connection.vendor == "mysql":
        return MySQLNamedLock(connection, purpose, silence)
    return None


def lock_for(connection: Any) -> Lock | None:
    """Return the lock for the migrations of a database, or None if there is none that we support."""
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"]).removeprefix("file:").partition("?")[0]
        return DirectoryLock(os.path.dirname(os.path.abspath(name)))
    return shared_lock_for(connection, MIGRATE)


@contextmanager
def exclusive(lock: Lock | None, what: str, say: Callable[[str], object]) -> Iterator[bool]:
    """Hold a lock for the block; report the reason for waiting, and give up after LOCK_SECONDS.

    Yield whether another server had it before: that one may have done the work.
    """
    if lock is None:
        say(warning(f"{what} has no lock that prodserve knows: start one server first, then the others."))
        yield False
        return
    try:
        yield _take(lock, what, say)
    finally:
        lock.release()


def _take(lock: Lock, what: str, say: Callable[[str], object]) -> bool:
    waited = False
    deadline = time.monotonic() + LOCK_SECONDS
    pause = 0.05
    try:
        while not lock.take():
            waited = True
            if pause == 0.05:
                say(f"waiting for another server, which is busy with {what}")
            if time.monotonic() > deadline:
                raise ProdserveError(
                    f"Another server has been busy with {what} for {format_duration(LOCK_SECONDS)}.",
                    "Look at its output, stop it if it hangs, and start this one again.",
                )
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE)
    except OSError as error:
        why = f"{what} cannot be locked ({error.strerror})"
        say(warning(f"{why}: start one server first, then the others."))
    return waited
