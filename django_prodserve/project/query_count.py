"""Count and time the database queries of a worker, for ``prodserve tune``. In any other server: nothing.

Lives in every worker of the private server, on the threads that run Django. Each worker writes a count and
seconds into a file of its own, which the command maps into memory, too.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from django.db.backends.signals import connection_created

CELLS = struct.Struct("@Qd")
MARK = "prodserve-queries"


class Queries(NamedTuple):
    """Database queries of all workers since their start."""

    number: int
    seconds: float


class QueryCounter:
    """The count of one process; a fork begins a file of its own."""

    def __init__(self, directory: str) -> None:
        self._directory, self._pid = directory, 0
        self._number, self._seconds = 0, 0.0
        self._lock = threading.Lock()
        self._cells: mmap.mmap | None = None

    def __call__(self, execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
        """Run a query: a wrapper as ``connection.execute_wrapper`` takes it."""
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self._add(time.perf_counter() - began)

    def _add(self, seconds: float) -> None:
        with self._lock:
            if self._pid != os.getpid():
                self._open()
            self._number += 1
            self._seconds += seconds
            if self._cells is not None:
                CELLS.pack_into(self._cells, 0, self._number, self._seconds)

    def _open(self) -> None:
        self._pid, self._number, self._seconds, self._cells = os.getpid(), 0, 0.0, None
        with suppress(OSError), open(Path(self._directory, str(self._pid)), "w+b") as file:
            file.write(bytes(CELLS.size))
            file.flush()
            self._cells = mmap.mmap(file.fileno(), CELLS.size)

    def install(self, connection: Any, **kwargs: Any) -> None:
        """Count the queries of a connection; the signal comes again when it connects again."""
        if self not in connection.execute_wrappers:
            connection.execute_wrappers.append(self)


def start(directory: str) -> None:
    """Count the queries of every connection that opens from now on, in this process and its forks."""
    connection_created.connect(QueryCounter(directory).install, dispatch_uid=MARK, weak=False)


def read(directory: str) -> Queries:
    """Return the queries of all workers."""
    number, seconds = 0, 0.0
    for path in Path(directory).iterdir():
        with suppress(OSError, struct.error):
            found = CELLS.unpack(path.read_bytes())
            number, seconds = number + found[0], seconds + found[1]
    return Queries(number, seconds)
