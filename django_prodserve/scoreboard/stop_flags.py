"""What the arbiter has told its workers: who is to stop, and that the site is about to.

One byte for each worker in memory that is shared over the fork; the arbiter writes, workers read. Signals
alone are not enough: Heroku, systemd and a terminal send them to every process, and a worker that obeyed
would cut short the drain delay, which its arbiter keeps.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from typing import Any

SLOTS = 4096  # more workers than this are never alive at once
_DRAINING, _CLOSING = SLOTS, SLOTS + 1
_STOP, _LEFT, _AT_ONCE = 1, 2, 3

_flags: mmap.mmap | None = None


def install() -> None:
    """Begin to give orders; in the arbiter, before the first fork."""
    global _flags
    _flags = mmap.mmap(-1, SLOTS + 2)


def installed() -> bool:
    """Say whether an arbiter of ours gives orders; plain Gunicorn's does not."""
    return _flags is not None


def forget(age: int) -> None:
    """A worker of this age is about to be forked."""
    if _flags is not None:
        _flags[age % SLOTS] = 0


def request_stop(age: int, *, at_once: bool = False) -> None:
    """A worker shall stop; its signal follows."""
    if _flags is not None:
        _flags[age % SLOTS] = _AT_ONCE if at_once else _STOP


def stop_requested(worker: Any) -> bool:
    """Say whether this worker's arbiter wants it to stop. Asked by the worker when a signal arrives."""
    return _flags is None or bool(_flags[worker.age % SLOTS])


def immediate_stop_requested(worker: Any) -> bool:
    """Say whether it shall not even answer what it has."""
    return _flags is None or _flags[worker.age % SLOTS] == _AT_ONCE


def mark_stopped_accepting(worker: Any) -> None:
    """A worker that was told to stop accepts no more; said by the worker."""
    if _flags is not None:
        _flags[worker.age % SLOTS] = _LEFT


def all_stopped_accepting(workers: Iterable[Any]) -> bool:
    """Say whether none of these workers accepts any more."""
    return _flags is None or all(_flags[worker.age % SLOTS] == _LEFT for worker in workers)


def drain() -> None:
    """The server stops soon: readiness turns red, while everything is still answered."""
    if _flags is not None:
        _flags[_DRAINING] = 1


def draining() -> bool:
    """Say whether the server is about to stop. For readiness, in any process."""
    return _flags is not None and bool(_flags[_DRAINING])


def mark_closing() -> None:
    """The listeners close for good: whoever waits in their queues is still to be answered."""
    if _flags is not None:
        _flags[_CLOSING] = 1


def closing() -> bool:
    """Say whether nobody else will accept what waits in the listeners' queues."""
    return _flags is not None and bool(_flags[_CLOSING])
