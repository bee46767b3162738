"""Ask each database once, over a short connection of its own, what the preflight must know.

Each is asked by a process of its own, before the server forks: the kernel ends it when the time is up,
wherever it hangs. No driver's time limit covers a name server that does not answer, and a thread that waits
for one would hold the resolver's lock over the fork. Nothing stays open, no pool is created, nothing is
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

CONNECT_TIMEOUT = 2  # seconds for one connection: a start must not hang on a database that is away
READING = 60.0  # seconds to read the migrations of a large project, on half a CPU

# What limits connections, by vendor; the reserved ones are not for applications.
_LIMITS = {
    "postgresql": (
        "SELECT current_setting('max_connections')::int"
        " - current_setting('superuser_reserved_connections')::int"
    ),
    "mysql": "SELECT @@max_connections",
}


@dataclass(frozen=True, kw_only=True)
class DatabaseProbe:
    """What one database said; ``seconds`` is what the connection cost."""

    alias: str
    seconds: float = 0.0
    error: str = ""
    max_connections: int | None = None
    pending: int = 0
    """Migrations that are not applied."""


def probe_all() -> tuple[DatabaseProbe, ...]:
    """Ask every database in DATABASES."""
    return tuple(_ask_apart(alias) for alias in connections if _vendor(alias) != "unknown")


def _vendor(alias: str) -> str:
    return str(connections[alias].vendor)


def _ask_apart(alias: str) -> DatabaseProbe:
    """Ask in a process of its own, where that is safe."""
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
    """Let the kernel end this process then; never, with 0. Blocking C code hears no handler of Python's."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _ask(alias: str, *, bounded: bool = False) -> DatabaseProbe:
    """Ask over a copy of the connection, so that the project's own stays as it is."""
    connection = connections[alias].copy()
    try:
        require_sqlite_file(connection)
    except FileNotFoundError as error:
        return DatabaseProbe(alias=alias, error=str(error))
    limit_connect_timeout(connection, CONNECT_TIMEOUT)
    if bounded:
        _end_after(CONNECT_TIMEOUT)
    started = time.perf_counter()
    try:
        with closing(connection):
            connection.ensure_connection()
            seconds = time.perf_counter() - started
            answer = DatabaseProbe(alias=alias, seconds=seconds, max_connections=_limit(connection))
            if bounded:
                _end_after(0)
            return replace(answer, pending=_pending(connection))
    except Exception as error:  # drivers raise what they like; the preflight reports it
        return DatabaseProbe(alias=alias, error=str(error).strip().partition("\n")[0] or type(error).__name__)


def require_sqlite_file(connection: Any) -> None:
    """Raise FileNotFoundError where a sqlite database is missing: to connect would make it."""
    name = str(connection.settings_dict["NAME"])
    if connection.vendor == "sqlite" and not _is_there(name):
        raise FileNotFoundError(f"there is no file {name}; manage.py migrate makes it")


def _is_there(name: str) -> bool:
    """Whether a sqlite file exists; connecting would make it. A memory database is always there."""
    return ":memory:" in name or name.startswith("file:") or os.path.exists(name)


def limit_connect_timeout(connection: Any, seconds: float) -> None:
    """Have a copy of a connection connect by itself, outside of any pool, and not for long."""
    options = connection.settings_dict["OPTIONS"]
    options.pop("pool", None)
    if connection.vendor in {"postgresql", "mysql"}:
        options["connect_timeout"] = max(1, round(seconds))


def _limit(connection: Any) -> int | None:
    query = _LIMITS.get(connection.vendor)
    if query is None:
        return None
    with connection.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


def _pending(connection: Any) -> int:
    """Count the migrations to apply. Routers keep apps from other databases: only the default counts."""
    if connection.alias != "default":
        return 0
    executor = MigrationExecutor(connection)
    return len(executor.migration_plan(executor.loader.graph.leaf_nodes()))


def errors(answers: tuple[DatabaseProbe, ...]) -> Iterator[str]:
    """Yield a line for each database that did not answer."""
    for answer in answers:
        if answer.error:
            yield f"{answer.alias}: {answer.error}"


def close_connections() -> None:
    """Close database connections, pools and caches of this process.

    A pool that was inherited gives one worker's rows to another: 12 of 30 answers were wrong without this.
    """
    if not settings.configured:
        return
    for connection in connections.all(initialized_only=True):
        connection.close()
        if connection.alias in getattr(connection, "_connection_pools", {}):
            connection.close_pool()  # type: ignore[attr-defined]  # PostgreSQL has it
    caches.close_all()
