"""Query each database once, over a short separate connection, for the facts that the preflight needs.

A separate process queries each database before the server forks. The kernel ends that process when its time
is up, wherever it hangs. No driver's timeout covers a name server that does not answer, and a waiting thread
would hold the resolver's lock across the fork. No connection stays open, no pool is created, nothing is
written.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

from django.conf import settings
from django.core.cache import caches
from django.db import connections
from django.db.migrations.executor import MigrationExecutor

from ..utils.fork import ChildError, run_in_fork

CONNECT_TIMEOUT = 2  # seconds for one connection: an unreachable database must not block a start
READING = 60.0  # seconds to read the migrations of a large project, on half a CPU

# Limits on connections, by vendor; the reserved ones are not for applications.
_LIMITS = {
    "postgresql": (
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
    ),
    "mysql": "SELECT @@max_connections",
}
# The connections that are open; the count is in the last column.
_USED = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'",
    "mysql": "SHOW GLOBAL STATUS LIKE 'Threads_connected'",
}


@dataclass(frozen=True, kw_only=True)
class DatabaseProbe:
    """The answers of one database; ``seconds`` is the time to connect."""

    alias: str
    seconds: float = 0.0
    error: str = ""
    max_connections: int | None = None
    used: int = 0
    """Connections that were open, without the one that asked."""
    pending: int = 0
    """Number of unapplied migrations."""
    fix: str = ""
    """What to do about the error, if it is known."""


def probe_all() -> tuple[DatabaseProbe, ...]:
    """Query every database in DATABASES."""
    return tuple(_ask_apart(alias) for alias in connections if _vendor(alias) != "unknown")


def _vendor(alias: str) -> str:
    return str(connections[alias].vendor)


def _ask_apart(alias: str) -> DatabaseProbe:
    """Query in a separate process, if that is safe."""
    if sys.platform == "darwin":  # its frameworks may crash in a fork of a loaded process
        return _ask(alias)
    try:
        return run_in_fork(lambda: _ask(alias, bounded=True), patience=CONNECT_TIMEOUT + READING)
    except ChildError:
        name = _host(alias)
        return DatabaseProbe(
            alias=alias, error=f"no answer{f' from {name}' if name else ''} within {CONNECT_TIMEOUT} s"
        )


def _host(alias: str) -> str:
    return str(connections[alias].settings_dict["HOST"] or "")


def _end_after(seconds: float) -> None:
    """Have the kernel end this process then; never, with 0. Blocking C code runs no Python handler."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _ask(alias: str, *, bounded: bool = False) -> DatabaseProbe:
    """Query over a copy of the connection, so that the project's own one stays unchanged."""
    connection = connections[alias].copy()
    try:
        require_sqlite_file(connection)
    except FileNotFoundError as error:
        directory = _directory(connection)
        fix = "prodserve --migrate creates it" if os.path.isdir(directory) else f"mkdir -p {directory}"
        return DatabaseProbe(alias=alias, error=str(error), fix=fix)
    limit_connect_timeout(connection, CONNECT_TIMEOUT)
    if bounded:
        _end_after(CONNECT_TIMEOUT)
    started = time.perf_counter()
    try:
        with closing(connection):
            connection.ensure_connection()
            seconds = time.perf_counter() - started
            most, used = _limit(connection)
            answer = DatabaseProbe(alias=alias, seconds=seconds, max_connections=most, used=used)
            if bounded:
                _end_after(0)
            return replace(answer, pending=_pending(connection))
    except Exception as error:  # drivers raise any exception; the preflight reports it
        return DatabaseProbe(alias=alias, error=str(error).strip().partition("\n")[0] or type(error).__name__)


def require_sqlite_file(connection: Any) -> None:
    """Raise FileNotFoundError if the file of an SQLite database is missing: connecting would create it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and not _is_there(name):
        missing = "file" if os.path.isdir(_directory(connection)) else "directory for"
        raise FileNotFoundError(f"there is no {missing} {name}")


def _directory(connection: Any) -> str:
    """Return the directory of an SQLite file."""
    return os.path.dirname(str(connection.settings_dict["NAME"])) or "."


def _is_there(name: str) -> bool:
    """Return whether an SQLite file exists; connecting would create it. A memory database always exists."""
    return ":memory:" in name or name.startswith("file:") or os.path.exists(name)


def limit_connect_timeout(connection: Any, seconds: float) -> None:
    """Make a copy of a connection connect outside of any pool, with a short timeout."""
    options = connection.settings_dict["OPTIONS"]
    options.pop("pool", None)
    if connection.vendor in {"postgresql", "mysql"}:
        options["connect_timeout"] = max(1, round(seconds))


def _limit(connection: Any) -> tuple[int | None, int]:
    """Return how many connections a database allows to applications, and how many others are open."""
    query = _LIMITS.get(connection.vendor)
    if query is None:
        return None, 0
    with connection.cursor() as cursor:
        cursor.execute(query)
        most = int(cursor.fetchone()[0])
        cursor.execute(_USED[connection.vendor])
        return most, max(0, int(cursor.fetchone()[-1]) - 1)


def _pending(connection: Any) -> int:
    """Count the unapplied migrations. Routers keep apps from other databases: only the default counts."""
    if connection.alias != "default":
        return 0
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def errors(answers: tuple[DatabaseProbe, ...]) -> Iterator[str]:
    """Yield a line for each database that did not answer."""
    for answer in answers:
        if answer.error:
            yield f"{answer.alias}: {answer.error}"


def close_own_connections() -> None:
    """Close the database connections and caches of this thread; a pool keeps its connections for others."""
    for connection in connections.all(initialized_only=True):
        connection.close()
    caches.close_all()


def close_connections() -> None:
    """Close database connections, pools and caches of this process.

    An inherited pool gives one worker's rows to another: 12 of 30 answers were wrong without this.
    """
    if not settings.configured:
        return
    for connection in connections.all(initialized_only=True):
        connection.close()
        if connection.alias in getattr(connection, "_connection_pools", {}):
            connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has it
    caches.close_all()
