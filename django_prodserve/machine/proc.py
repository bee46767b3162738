"""Facts of a process in /proc, and its OOM score. Used by the arbiter, the workers and ``status``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

EXPENDABLE = 50
"""Thousandths of the memory limit added to a worker's usage in the OOM killer's comparison."""
SIDE_EXPENDABLE = 100
"""The same for a process alongside the workers: the site is worth more."""

_SCHEDULER_CLOCK = 2
"""CPUCLOCK_SCHED of Linux: the CPU time of all threads of a process, in nanoseconds."""


def raise_own_oom_score() -> None:
    """In a worker: make the OOM killer choose the worker rather than the arbiter.

    The OOM killer ignores a process that it has already killed, even while that process still frees its
    memory. So the next allocation makes it choose again. Among an arbiter and workers that were just forked,
    the arbiter is the largest: all workers would end with it.
    """
    set_oom_score_adj("self", EXPENDABLE)


def set_oom_score_adj(pid: int | str, thousandths: int, than: int | str = "self") -> None:
    """Add this many thousandths to the size of a process, relative to another one, for the OOM killer."""
    with suppress(OSError, ValueError):  # no such file except on Linux; or the process has ended
        other = int(Path(f"/proc/{than}/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(1000, other + thousandths)))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process; 0.0 if none are reported. Fields 14 and 15 of proc(5)'s stat."""
    if sys.platform == "linux" and pid > 0:
        # The number is that of clock_getcpuclockid(3). The fields below only count ticks of 10 ms.
        with suppress(OSError):
            return time.clock_gettime(~pid << 3 | _SCHEDULER_CLOCK)
    with suppress(OSError, ValueError, IndexError):
        # The name in parentheses may contain any character: count behind it.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def start_time(pid: int) -> int | None:
    """Return the start time of a process, in a unit of this machine; None if there is no such process.

    A zombie does not count: it has ended, and waits for its parent to reap it.
    """
    if sys.platform == "linux":
        try:
            # The name in parentheses may contain any character: count behind it. Fields 3 and 22 of proc(5).
            words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return None
        return None if words[0] in {"Z", "X"} else int(words[19])
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else round(process.create_time() * 100)
    except psutil.Error:
        return None


def age_of(started: int) -> float:
    """Return the age in seconds of a process with this start time, in the unit of ``start_time``."""
    if sys.platform == "linux":  # in ticks since the machine booted
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return time.time() - started / 100
