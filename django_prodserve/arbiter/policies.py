"""Decide when a worker must be replaced, and why one has ended. Pure: no clock, no files, no log.

The verdict contains the log line; None keeps the worker.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from ..plan.sizing import KILL_SHARE, MEMORY_SHARE, REPLACE_SHARE
from ..utils.units import format_duration, format_size

STARVED_SECONDS = 20.0
"""Seconds after which a worker counts as hung: no free thread, and no request ended while others wait."""
BOOT_SECONDS = 60.0
"""Seconds a worker may take to boot; the slowest of seven real projects took 4."""
MIN_AGE_SECONDS = 60.0
"""A worker younger than this is not replaced for its memory: its replacement would soon be no better."""
RELOAD_SHARE = 0.95
"""Share of the memory limit that two generations may take together, for the seconds of a reload."""
GROWTH_UNDER_LOAD = 4
"""Memory of a worker under load, as a multiple of its start (project/footprint.py), threads included."""
MAX_GROWTH_PER_SECOND = 4 << 30
"""Assumed maximum growth of memory in bytes a second."""
REPLACE_SECONDS = 0.6
"""Seconds that a worker needs to get the signal, to finish and to release its memory."""
MIN_GROWTH = 1.5
"""Replacing a worker that uses less than this multiple of the planned memory gains nothing."""
FATAL_SIGNALS = {signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL}
"""Signals of a process that crashed by itself."""
MAX_FAILED_ROUNDS = 6
"""Failed rounds of starts after which a server without workers exits: 8 s plus the boot times."""


class Verdict(NamedTuple):
    """Why a worker must stop: the reason that is counted (board.REASONS), and the line for the log."""

    reason: str
    line: str


@dataclass(frozen=True, kw_only=True)
class WorkerState:
    """A worker's state as the monitor measures it; ages and times in seconds, memory in bytes."""

    pid: int
    age: float
    serving: bool = True
    silent: float = 0.0
    """Since the last iteration of its event loop."""
    threads: int = 1
    busy: int = 0
    idle: float = 0.0
    """Since one of its requests ended, or the youngest running one has started."""
    memory: int = 0
    """Its proportional share (PSS)."""
    planned: int = 0
    """The memory that the plan expects a worker of this project to use under load."""


def hangs_at_boot(seen: WorkerState, limit: float = BOOT_SECONDS) -> Verdict | None:
    """Detect a hang at boot, which Gunicorn never notices: it ignores a heartbeat that has not begun."""
    if seen.serving or seen.age < limit:
        return None
    return Verdict("boot", f"did not finish booting within {format_duration(limit)}")


def is_unresponsive(seen: WorkerState, limit: float) -> Verdict | None:
    """Return why a worker with a blocked event loop must stop; a limit of 0 disables this."""
    if not limit or not seen.serving or seen.silent < limit:
        return None
    return Verdict("hung", f"unresponsive for {seen.silent:.0f} s (something holds the GIL)")


def is_starved(seen: WorkerState, waiting: int, limit: float = STARVED_SECONDS) -> Verdict | None:
    """Return why a worker must stop whose threads all hang while other requests wait."""
    if not seen.serving or not waiting or seen.busy < seen.threads or seen.idle < limit:
        return None
    return Verdict(
        "hung",
        f"hung: all threads busy, no request finished for {seen.idle:.0f} s, {waiting} waiting",
    )


@dataclass(frozen=True, kw_only=True)
class MemoryBudget:
    """The container's memory, in bytes: limit, current use, and the arbiter's part."""

    limit: int
    used: int | None
    """None if no control group accounts for this server alone."""
    master: int
    growth: float = 0.0
    """Growth of the use in bytes a second since the last check."""

    @property
    def soon(self) -> int:
        """Return the expected use at the moment when an action taken now has an effect."""
        return int((self.used or 0) + self.growth * REPLACE_SECONDS)

    def without(self, leaving: int) -> MemoryBudget:
        """Return the same without the memory of workers that are stopping."""
        return replace(self, used=None if self.used is None else max(0, self.used - leaving))

    def share(self, workers: int) -> int:
        """Return the memory that each worker may use."""
        return int((self.limit * MEMORY_SHARE - self.master) / max(1, workers))


def largest_to_replace(
    workers: Sequence[WorkerState], room: MemoryBudget, since_last: float
) -> tuple[WorkerState, Verdict, bool] | None:
    """Return the worker to replace for its memory, why, and whether it must stop before its replacement.

    The kernel kills at the limit. Close to the limit, the worker using the most memory is stopped, young or
    not, if that gains anything. Before that, a worker that grew beyond its share is replaced, with a pause
    after the last one.
    """
    if not workers:
        return None
    fattest = max(workers, key=lambda seen: seen.memory)
    size, used, limit = format_size(fattest.memory), room.used or 0, format_size(room.limit)
    gains = fattest.memory > MIN_GROWTH * fattest.planned
    if gains and used >= room.limit / 2 and room.soon >= KILL_SHARE * room.limit:
        return fattest, Verdict("memory", f"uses {size} ({format_size(used)} of {limit} used)"), True
    if not gains or fattest.age < MIN_AGE_SECONDS or since_last < MIN_AGE_SECONDS:
        return None
    if used >= REPLACE_SHARE * room.limit:
        line = f"uses {size} ({format_size(used)} of {limit} used)"
        return fattest, Verdict("memory", line), used + fattest.planned > KILL_SHARE * room.limit
    share = room.share(len(workers))
    if fattest.memory > share:
        line = f"uses {size}, more than its share of {format_size(share)} of {limit}"
        return fattest, Verdict("memory", line), False
    return None


def startup_memory(planned: int, *, preloaded: bool) -> int:
    """Return a worker's memory in its first seconds; a worker that loads the project itself needs it all."""
    return planned // GROWTH_UNDER_LOAD if preloaded else planned


def fits_beside(room: MemoryBudget, wanted: int, each: int) -> int:
    """Return how many of the wanted workers fit into memory in addition to everything already there."""
    if room.used is None:
        return wanted
    return max(0, min(wanted, int((RELOAD_SHARE * room.limit - room.used) // max(1, each))))


def until_next_look(room: MemoryBudget | None) -> float:
    """Return the seconds until the next memory check; views that leak took 1.5 GiB a second."""
    if room is None or room.used is None:
        return 1.0
    return min(1.0, max(0.05, (room.limit / 2 - room.used) / MAX_GROWTH_PER_SECOND))


def unresponsive_limit(limit: float, since_last: float) -> float:
    """Return how long an event loop may be blocked: less if similar requests may wait for the next worker.

    Clients have most often sent the request that holds the GIL more than once, and the rest is still in the
    kernel's queue.
    """
    return min(limit, max(2.0, limit / 4)) if since_last < MIN_AGE_SECONDS else limit


def back_off(rounds: int) -> float:
    """Return how long to wait before workers are started again after this many failed rounds."""
    return min(30.0, 0.25 * 2 ** (rounds - 1)) if rounds else 0.0


def gives_up(rounds: int, serving: int) -> bool:
    """Return whether the server must exit, because no worker serves; its service manager then notices."""
    return rounds >= MAX_FAILED_ROUNDS and not serving


@dataclass(frozen=True, kw_only=True)
class WorkerExit:
    """How a worker ended."""

    code: int | None
    """Its exit code; None if a signal ended it."""
    number: int = 0
    """The signal's number."""
    ours: bool = False
    """Whether the arbiter asked it to stop."""
    served: bool = True
    recycles: bool = False
    """Whether Gunicorn's own workers end by themselves after max_requests."""
    out_of_memory: bool = False
    """Whether the OOM killer killed it, which may also happen to a worker that is stopping."""


def why_it_ended(end: WorkerExit) -> Verdict | None:
    """Return why a worker has ended that was not asked to; None if there is no reason to log."""
    if end.out_of_memory:
        return Verdict(
            "out of memory",
            "was killed by the kernel: the memory limit is reached. Use fewer workers (--workers) or "
            "threads, give it more memory, or find what grows: prodserve status shows each worker's memory",
        )
    if end.ours or (end.served and end.recycles and end.code == 0):
        return None
    if end.number == signal.SIGKILL:
        return Verdict("killed", "was killed (SIGKILL) by another process or user; no OOM event recorded")
    if end.number:
        what = "crashed ({})" if end.number in FATAL_SIGNALS else "was ended by {}"
        return Verdict("crashed", what.format(_name(end.number)))
    if not end.served:
        return Verdict("boot", f"failed to start (exit code {end.code}); see the error above")
    if end.code:
        return Verdict("crashed", f"exited with code {end.code}")
    return Verdict("crashed", "exited by itself")


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
