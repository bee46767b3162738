"""What others use of the CPUs while we measure."""

from __future__ import annotations

import resource
import time

import psutil

CPUS = psutil.cpu_count() or 1
QUIET = 0.1  # share of all CPUs; more than that moves a ratio visibly


def busy() -> float:
    """Return the CPU seconds of everybody so far, those stolen from a virtual machine included."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system + getattr(times, "steal", 0.0))


def own() -> float:
    """Return the CPU seconds of this process and of its children that ended, such as wrk."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class Watch:
    """The share of the CPUs that others use from now on."""

    def __init__(self) -> None:
        self.others = busy() - own()
        self.began = time.monotonic()

    def share(self, measured: float = 0.0) -> float:
        """Return the share so far; ``measured`` are the CPU seconds of the server."""
        others = busy() - own() - self.others - measured
        return max(0.0, others / (time.monotonic() - self.began) / CPUS)


def await_quiet(seconds: float) -> None:
    """Wait until others leave the CPUs alone for a second, at most ``seconds``."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        watch = Watch()
        time.sleep(1)
        if watch.share() < QUIET / 2:
            return
