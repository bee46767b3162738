"""How much memory this project takes: measured on a trial fork that becomes no worker.

Lives in the command's process, main thread, after loading and before the first worker is forked. What is
computed from the two readings is pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..machine.proc_memory import MemoryReading, read_memory
from ..utils.fork import run_in_fork

# Memory of a worker's own after 1,200 to 2,000 requests to many pages, most of them of the
# admin, MiB (Django 6.1, Python 3.13, four workers):
#                   master  trial   1 thread  4 threads  16 threads   computed for 1, 4, 16
#   startproject      54      3.0      17        21          29           17   23   47
#   Wagtail          106      7.0      29        40          44           37   43   53
# So five times the trial's own memory and 2 MiB a thread hold. A trial on a heavy page (--warmup) has copied
# more of it at once; a worker copied at most 43 % of the master. Python 3.10 and 3.11, where nothing is
# immortal (speedups/immortal.py), take 1.4 times as much for a trial, and 1.2 times for a worker.
GROWTH = 5
MAX_COPY_SHARE = 0.5
REQUESTS = 4  # the first one takes 90 % of what 50 take
TRIAL_SECONDS = 5.0  # seconds; a trial takes 0.01 to 0.05, unless a page or a lock of the project's hangs


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """What a project takes, in bytes: its master, and a worker of its own under load but for its threads."""

    master: int
    worker: int
    how: str
    """PSS, or RSS, which counts what the workers share once for each."""
    when: float
    """Seconds since 1970."""


def measure(request: Callable[[], object], prepare: Callable[[], object] = bool) -> Footprint:
    """Measure this process, loaded, with a trial that sends ``request`` a few times.

    Two forks: what is prepared in the first, such as all that a first request fills, lasts for a worker's
    life; what the second makes its own grows. Raises ChildError or OSError where that is not possible.
    Connections must be closed, in here and by ``prepare``, and memory frozen.
    """

    def trial() -> MemoryReading:
        prepare()
        return run_in_fork(lambda: memory_after(request), patience=TRIAL_SECONDS / 2, group=False)

    master = read_memory()
    return footprint(master, run_in_fork(trial, patience=TRIAL_SECONDS), preloaded=True)


def memory_after(request: Callable[[], object]) -> MemoryReading:
    """Return the memory of this process after a few requests."""
    for _ in range(REQUESTS):
        request()
    return read_memory()


def footprint(master: MemoryReading, trial: MemoryReading, *, preloaded: bool) -> Footprint:
    """Compute what workers will take under load; not ``preloaded`` is a trial that loaded by itself."""
    copied = int(master.size * MAX_COPY_SHARE)
    if trial.private is None or master.private is None:
        worker, how = trial.size, "RSS"
    elif preloaded:
        worker, how = min(GROWTH * trial.private, copied), "PSS"
    else:
        worker, how = trial.private + copied, "PSS"
    return Footprint(master=master.size, worker=worker, how=how, when=time.time())
