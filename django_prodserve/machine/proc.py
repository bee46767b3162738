"""What the kernel tells of a process, and what it is told. /proc; used by arbiter, workers and ``status``."""

from __future__ import annotations

import os
import sys
import time
from contextlib import suppress
from pathlib import Path

EXPENDABLE = 50
"""Thousandths of the memory limit that a worker seems to take on top of what it does, to the OOM killer."""


def raise_own_oom_score() -> None:
    """In a worker: have the kernel, where memory ends, kill it rather than the arbiter.

    A worker that the kernel has killed is out of its sight while its memory is still being freed. Whoever
    asks for memory then has it choose again, and of an arbiter and workers that have just been forked the
    arbiter is the largest: all workers would end with it.
    """
    set_oom_score_adj("self", EXPENDABLE)


def set_oom_score_adj(pid: int | str, thousandths: int, than: int | str = "self") -> None:
    """Have a process seem larger by so much than another one is, to the OOM killer."""
    with suppress(OSError, ValueError):  # no such file but on Linux; or the process has ended
        other = int(Path(f"/proc/{than}/oom_score_adj").read_text())
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(1000, other + thousandths)))


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process; 0.0 where nobody tells. Fields 14 and 15 of proc(5)'s stat."""
    with suppress(OSError, ValueError, IndexError):
        # The name in parentheses may hold anything: count behind it.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def age(started: int) -> float:
    """Return the seconds since a process started, from what ``start_time`` has returned."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return time.time() - started / 100


def start_time(pid: int) -> int | None:
    """Return when a process started, in a unit that only this machine knows; None where there is none.

    A zombie is none: it has ended, and waits for its parent to hear of it.
    """
    if sys.platform == "linux":
        try:
            # The name in parentheses may hold anything: count behind it. Fields 3 and 22 of proc(5).
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
    """Return for how many seconds a process has run that started then, as ``start_time`` says it."""
    if sys.platform == "linux":  # in ticks since the machine booted
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started / os.sysconf("SC_CLK_TCK")
    return time.time() - started / 100
