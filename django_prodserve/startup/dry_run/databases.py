"""Every transaction on every database is rolled back, and the request does not notice.

A connection stays in one transaction from its opening on. Django's transactions become savepoints within it:
a commit releases one, and ``on_commit`` calls nothing. The hooks are Django's own for backends. A backend
without savepoints is rejected.
"""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from .refusal import change

MAX_LOCK_SECONDS = {"sqlite": 4.0, "": 10.0}
"""Seconds from the first change on, for SQLite and for others: clients wait 5 s for SQLite's lock."""
DEFINING = {"CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "GRANT", "REVOKE", "LOCK"}
READING = {"SELECT", "PRAGMA", "EXPLAIN", "VALUES", "SHOW"}
ENDING = {"BEGIN", "START", "COMMIT", "END"}
SQLITE_CHANGES = {
    sqlite3.SQLITE_INSERT,
    sqlite3.SQLITE_UPDATE,
    sqlite3.SQLITE_DELETE,
    sqlite3.SQLITE_CREATE_TABLE,
}
HOOKS = ("_commit", "_rollback", "_set_autocommit", "run_and_clear_commit_hooks", "execute_wrappers")
"""Methods that Django's own code calls, since 2.0; a backend without them is not supported."""
TRANSACTION, STATEMENT = "prodserve_transaction", "prodserve_statement"

_held: list[Held] = []


def hold_back() -> None:
    """Start; open connections are closed, so that they reconnect under control."""
    connection_created.connect(_hold, weak=False)
    for connection in connections.all(initialized_only=True):
        with suppress(Exception):  # drivers raise any exception
            connection.close()


def roll_back() -> None:
    """End every transaction, those of other threads too, before this process ends."""
    for held in _held:
        held.connection.inc_thread_sharing()
        with suppress(Exception):  # drivers raise any exception, and closing rolls back
            if held.is_current():
                BaseDatabaseWrapper._rollback(held.connection)  # type: ignore[attr-defined]
            held.connection.close()
    _held.clear()


def _hold(connection: BaseDatabaseWrapper, **kwargs: Any) -> None:
    if not connection.features.uses_savepoints or not all(hasattr(connection, name) for name in HOOKS):
        raise change(f"the database {connection.alias!r}, which has no transactions")
    _held.append(Held(connection))


class Held:
    """The single transaction of a connection that was just opened."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.raw = connection.connection
        self.begun = False
        self.inside = False
        """Whether Django considers the connection to be in a transaction."""
        self.lazily = (
            connection.vendor == "sqlite"
        )  # there a transaction that began with reading may not write
        for name in ("_commit", "_rollback", "_set_autocommit"):
            setattr(connection, name, self._instead(name, getattr(self, name[1:])))
        if hasattr(connection, "_start_transaction_under_autocommit"):
            start = "_start_transaction_under_autocommit"
            setattr(connection, start, self._instead(start, lambda: self.set_autocommit(False)))
        connection.on_commit = lambda func, robust=False: None
        connection.execute_wrappers.insert(0, self.execute)  # the project removes its own from the end
        if self.lazily:
            self.raw.set_authorizer(self._authorize)
        else:
            self._begin()
        if not connection.autocommit:
            self.set_autocommit(False)

    def is_current(self) -> bool:
        """Whether the connection is still the one that this object holds."""
        return self.raw is not None and self.connection.connection is self.raw

    def _instead(self, name: str, ours: Callable[..., None]) -> Callable[..., None]:
        """Return ``ours`` while this connection is open; a new one has Django's method until it is held."""

        def call(*args: Any) -> None:
            if self.is_current():
                ours(*args)
            else:
                getattr(type(self.connection), name)(self.connection, *args)

        return call

    def _begin(self) -> None:
        if self.begun:
            return
        self.begun = True
        if self.lazily:
            self._run("BEGIN IMMEDIATE")  # waits for the lock, as each single statement would
        elif self.connection.autocommit:
            type(self.connection)._set_autocommit(self.connection, False)

    def _authorize(self, action: int, what: str | None, *details: str | None) -> int:
        """Deny every commit of SQLite: that of executescript(), or of a driver's connection used directly."""
        commits = action == sqlite3.SQLITE_TRANSACTION and what != "BEGIN" and what != "ROLLBACK"
        changes = action in SQLITE_CHANGES and not self.begun
        return sqlite3.SQLITE_DENY if commits or changes else sqlite3.SQLITE_OK

    def set_autocommit(self, autocommit: bool) -> None:
        if autocommit == (not self.inside):
            return
        self._begin()
        self._run((self._release if autocommit else self._savepoint)(TRANSACTION))
        self.inside = not autocommit

    def commit(self) -> None:
        if self.inside:
            self._run(self._release(TRANSACTION))
            self._run(self._savepoint(TRANSACTION))

    def rollback(self) -> None:
        if self.inside:
            self._run(self._back(TRANSACTION))

    def execute(self, execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Execute a statement as Django's ``execute_wrapper`` calls it."""
        words = str(sql).split(None, 2)[:2]
        first = words[0].upper().rstrip(";") if words else ""
        if not self.is_current() or not first:
            return execute(sql, params, many, context)
        if first in ENDING:
            return None
        if first == "ROLLBACK" and len(words) == 1:
            self.rollback()
            return None
        if first in DEFINING and not self.connection.features.can_rollback_ddl:
            raise change(f"tables of the database {self.connection.alias!r}")  # it would commit all before
        if first not in READING:
            self._begin()
            _hurry(MAX_LOCK_SECONDS.get(self.connection.vendor, MAX_LOCK_SECONDS[""]))
        if self.inside or self.lazily:
            return execute(sql, params, many, context)
        return self._alone(lambda: execute(sql, params, many, context))

    def _alone(self, execute: Callable[[], Any]) -> Any:
        """Run a statement outside of any transaction; as with autocommit, its failure affects no other."""
        self._run(self._savepoint(STATEMENT))
        try:
            result = execute()
        except Exception:
            self._run(self._back(STATEMENT))
            raise
        self._run(self._release(STATEMENT))
        return result

    def _savepoint(self, name: str) -> str:
        return str(self.connection.ops.savepoint_create_sql(name))

    def _release(self, name: str) -> str:
        return str(self.connection.ops.savepoint_commit_sql(name) or "")

    def _back(self, name: str) -> str:
        return str(self.connection.ops.savepoint_rollback_sql(name))

    def _run(self, sql: str) -> None:
        if sql:  # Oracle releases no savepoint
            with self.connection.wrap_database_errors, closing(self.connection.create_cursor()) as cursor:
                cursor.execute(sql)


def _hurry(seconds: float) -> None:
    """Have the kernel end this process once it has blocked other clients for too long."""
    left = signal.getitimer(signal.ITIMER_REAL)[0]
    if not left or left > seconds:
        signal.setitimer(signal.ITIMER_REAL, seconds)
