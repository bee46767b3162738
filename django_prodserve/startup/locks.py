"""One server at a time: locks for replicas that start together, while one of them changes a database.

Used by the command's process, main thread, before the fork, over a separate connection. No server waits
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

    KEY = int.from_bytes(
        hashlib.blake2b(b"django-prodserve migrate", digest_size=8).digest(), "big", signed=True
    )
    # Settings that would end a waiting transaction; not every release of PostgreSQL has all of them.
    LIMITS = ("idle_in_transaction_session_timeout", "transaction_timeout")

    def __init__(self, connection: Any) -> None:
        self.connection = private_connection(connection)

    def take(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
            cursor.execute(
                "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN (%s, %s)", self.LIMITS
            )
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [self.KEY])
            taken = bool(cursor.fetchone()[0])
            if not taken:
                cursor.execute("ROLLBACK")
        return taken

    def release(self) -> None:
        self.connection.close()


class MySQLNamedLock:
    """MySQL's named lock, which a session holds; the name is known to the whole server."""

    def __init__(self, connection: Any) -> None:
        self.connection = private_connection(connection)
        name = str(connection.settings_dict["NAME"])
        self.name = "django-prodserve " + hashlib.blake2b(name.encode(), digest_size=8).hexdigest()

    def take(self) -> bool:
        with self.connection.cursor() as cursor:
            cursor.execute("SET SESSION wait_timeout = 86400")
            cursor.execute("SELECT GET_LOCK(%s, 0)", [self.name])
            return bool(cursor.fetchone()[0])

    def release(self) -> None:
        self.connection.close()


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


def lock_for(connection: Any) -> Lock | None:
    """Return the lock of a database, or None if its vendor has none that we support."""
    if connection.vendor == "postgresql":
        return PostgresAdvisoryLock(connection)
    if connection.vendor == "mysql":
        return MySQLNamedLock(connection)
    if connection.vendor == "sqlite":
        name = str(connection.settings_dict["NAME"]).removeprefix("file:").partition("?")[0]
        return DirectoryLock(os.path.dirname(os.path.abspath(name)))
    return None


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
