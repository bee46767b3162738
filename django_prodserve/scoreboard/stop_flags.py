"""Flags by which the arbiter stops workers, and announces that the site will stop.

One byte for each worker in memory that is shared over the fork; the arbiter writes, workers read. Signals
alone are not enough: Heroku, systemd and a terminal send them to every process. A worker that obeyed them
would shorten the drain delay, which its arbiter observes.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

SLOTS = 4096  # more workers than this are never alive at the same time
_DRAINING, _CLOSING = SLOTS, SLOTS + 1
_STOP, _LEFT, _AT_ONCE = 1, 2, 3

_flags: mmap.mmap | None = None


def install() -> None:
    """Create the flags; in the arbiter, before the first fork."""
    global _flags
    _flags = mmap.mmap(-1, SLOTS + 2)


def installed() -> bool:
    """Return whether our arbiter has created the flags; plain Gunicorn's does not."""
    return _flags is not None


def forget(age: int) -> None:
    """Clear the flag of the worker of this age, which the arbiter is about to fork."""
    if _flags is not None:
        _flags[age % SLOTS] = 0


def request_stop(age: int, *, at_once: bool = False) -> None:
    """Ask a worker to stop; its signal follows."""
    if _flags is not None:
        _flags[age % SLOTS] = _AT_ONCE if at_once else _STOP


def stop_requested(worker: Any) -> bool:
    """Return whether this worker's arbiter wants it to stop. The worker calls this when a signal arrives."""
    return _flags is None or bool(_flags[worker.age % SLOTS])


def immediate_stop_requested(worker: Any) -> bool:
    """Return whether the worker shall stop without answering its running requests."""
    return _flags is None or _flags[worker.age % SLOTS] == _AT_ONCE


def mark_stopped_accepting(worker: Any) -> None:
    """Record that a stopping worker accepts no more connections. Called by the worker."""
    if _flags is not None:
        _flags[worker.age % SLOTS] = _LEFT


def all_stopped_accepting(workers: Iterable[Any]) -> bool:
    """Return whether all of these workers have stopped accepting."""
    return _flags is None or all(_flags[worker.age % SLOTS] == _LEFT for worker in workers)


def drain() -> None:
    """Announce that the server stops soon: readiness fails, while workers still answer all requests."""
    if _flags is not None:
        _flags[_DRAINING] = 1


def draining() -> bool:
    """Return whether the server is about to stop. For readiness, in any process."""
    return _flags is not None and bool(_flags[_DRAINING])


def mark_closing() -> None:
    """Announce that the listeners close permanently: workers must still answer queued connections."""
    if _flags is not None:
        _flags[_CLOSING] = 1


def closing() -> bool:
    """Return whether no other process will accept the connections in the listeners' queues."""
    return _flags is not None and bool(_flags[_CLOSING])
