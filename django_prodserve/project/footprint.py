"""How much memory this project uses: measured in a test fork that never becomes a worker.

Runs in the command's process, main thread, after loading and before the first worker is forked. The
computation from the two readings is pure.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..machine.proc_memory import MemoryReading, read_memory
from ..utils.fork import run_in_fork

# Private memory of a worker in MiB, after 1,200 to 2,000 requests to many pages, most of them of the admin.
# Measured with Django 6.1, Python 3.13 and four workers:
#                   master  fork   1 thread  4 threads  16 threads   computed for 1, 4, 16
#   startproject      54      3.0      17        21          29           17   23   47
#   Wagtail          106      7.0      29        40          44           37   43   53
# So five times the fork's private memory plus 2 MiB per thread is enough. A test fork on a heavy page
# (--warmup) copies more at the start; a worker copied at most 43 % of the master. Python 3.10 and 3.11 have
# no immortal objects (speedups/immortal.py): a test fork uses 1.4 times as much, and a worker 1.2 times.
GROWTH = 5
MAX_COPY_SHARE = 0.5
REQUESTS = 4  # the first one takes 90 % of what 50 take
TRIAL_SECONDS = 5.0  # seconds; a test fork takes 0.01 to 0.05, unless a page or a lock of the project hangs


@dataclass(frozen=True, kw_only=True)
class Footprint:
    """The memory of a project, in bytes: its master, and a worker's private memory without its threads."""

    master: int
    worker: int
    how: str
    """PSS, or RSS, which counts the memory shared by the workers once for each."""
    when: float
    """Seconds since 1970."""


def measure(request: Callable[[], object], prepare: Callable[[], object] = bool) -> Footprint:
    """Measure this loaded process with a test fork that sends ``request`` a few times.

    There are two forks. Memory that ``prepare`` fills in the first, such as everything that a first request
    fills, lasts for a worker's life. Memory that the second makes private grows. Raises ChildError or OSError
    if that is not possible. Before the call, here and by ``prepare``, connections must be closed and memory
    frozen.
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
    """Compute the memory of workers under load; ``trial`` loads the project itself if not ``preloaded``."""
    copied = int(master.size * MAX_COPY_SHARE)
    if trial.private is None or master.private is None:
        worker, how = trial.size, "RSS"
    elif preloaded:
        worker, how = min(GROWTH * trial.private, copied), "PSS"
    else:
        worker, how = trial.private + copied, "PSS"
    return Footprint(master=master.size, worker=worker, how=how, when=time.time())
