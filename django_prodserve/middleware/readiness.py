"""Run the project's readiness checks repeatedly, so that the result is always available.

Lives in every process that serves requests. The checks run on a daemon thread that starts after the fork; any
thread may read the result. A probe never waits for a check, and a check that hangs blocks no request.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, NamedTuple

from django.db import connections
from django.utils.module_loading import import_string

from ..errors import ProdserveError
from ..project.databases import limit_connect_timeout, require_sqlite_file
from ..utils.tracebacks import project_error

CHECK_EVERY_SECONDS = 5.0
"""Interval between two rounds of checks."""
CHECK_TIMEOUT = 1.0
"""Seconds that a check may take."""
LOG = logging.getLogger("gunicorn.error")


class Check(NamedTuple):
    """One check: it fails if it raises, returns False, or takes too long."""

    name: str
    run: Callable[[], object]


def load_checks(names: Sequence[str]) -> tuple[Check, ...]:
    """Return the checks of these names; raise ProdserveError if a name has none."""
    return tuple(Check(name.rpartition(".")[2], _callable(name)) for name in names)


def _callable(name: str) -> Callable[[], object]:
    if name == "database":
        return database
    try:
        found: Any = import_string(name)
    except Exception as error:  # an import may raise anything
        raise project_error(f"The check {name} (--readiness-checks) cannot be imported", error) from error
    if not callable(found):
        raise ProdserveError(
            f"The check {name} (--readiness-checks) is a {type(found).__name__}: it cannot be called."
        )
    checked: Callable[[], object] = found
    return checked


def database() -> None:
    """Connect to every database, outside of any pool, over a copy of the connection."""
    for alias in connections:
        connection = connections[alias].copy()
        if connection.vendor == "unknown":  # the dummy backend of a project without databases
            continue
        require_sqlite_file(connection)
        limit_connect_timeout(connection, CHECK_TIMEOUT)
        with closing(connection), connection.cursor() as cursor:
            cursor.execute("SELECT 1 FROM DUAL" if connection.vendor == "oracle" else "SELECT 1")


class Readiness:
    """The results of the last round of checks."""

    def __init__(self, checks: Sequence[Check] = ()) -> None:
        self.checks = checks
        self._failing: set[str] = set()
        self._running: tuple[str, float] | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._first = threading.Event()

    def start(self) -> None:
        """Start the checks, once in each process; wait for the first round as long as a check may take."""
        with self._lock:
            if not self.checks or self._pid == os.getpid():
                return
            self._pid = os.getpid()
            self._failing = {check.name for check in self.checks}  # until they have passed
            self._first.clear()
            threading.Thread(target=self._poll_forever, name="prodserve-ready", daemon=True).start()
        self._first.wait(CHECK_TIMEOUT)

    def failing(self) -> list[str]:
        """Return the names of the checks that fail now."""
        running, failing = self._running, set(self._failing)
        if running is not None and time.monotonic() - running[1] > CHECK_TIMEOUT:
            failing.add(running[0])
        return [check.name for check in self.checks if check.name in failing]

    def _poll_forever(self) -> None:
        told: dict[str, str] = {}
        while True:
            for check in self.checks:
                complaint = self._run_check(check)
                if complaint != told.get(check.name, ""):
                    LOG.log(
                        logging.WARNING if complaint else logging.INFO,
                        "The check %s %s.",
                        check.name,
                        complaint or "passes again",
                    )
                told[check.name] = complaint
            self._first.set()
            time.sleep(CHECK_EVERY_SECONDS)

    def _run_check(self, check: Check) -> str:
        """Run one check; return its error."""
        started = time.monotonic()
        self._running = check.name, started
        complaint = _complaint(check)
        self._running = None
        took = time.monotonic() - started
        if not complaint and took > CHECK_TIMEOUT:
            complaint = f"took {took:.1f} s, more than {CHECK_TIMEOUT:g} s"
        self._failing = self._failing - {check.name} | ({check.name} if complaint else set())
        return complaint


def _complaint(check: Check) -> str:
    try:
        return "returned False" if check.run() is False else ""
    except BaseException as error:  # any exception means that the check has failed
        line = str(error).strip().partition("\n")[0]
        return f"raised {type(error).__name__}{f': {line}' if line else ''}"
    finally:
        connections.close_all()  # only the connections of this thread
