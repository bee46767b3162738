"""How often the CPU quota has throttled this server.

Runs in the main loop of the arbiter, and in the thread of a worker that waits for events. Reads the cgroup.
"""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

from .cgroups import Cgroups, parse_table


class Throttling(NamedTuple):
    """Counters since the group was created: periods of the quota, throttled periods, throttled time."""

    periods: int = 0
    throttled: int = 0
    seconds: float = 0.0


def throttling(cgroups: Cgroups) -> Throttling:
    """Return the counters of the group with the tightest quota, which may be a parent; zeros without one."""
    quotas = cgroups.cpu_quotas()
    if not quotas:
        return Throttling()
    tightest = min(quotas, key=lambda quota: quota.cpus)
    table = parse_table(cgroups.tree.read(tightest.level.file("cpu.stat")) or "")
    with suppress(ValueError):
        # v2 counts microseconds, v1 nanoseconds.
        seconds = int(table.get("throttled_usec", "0")) / 1e6 + int(table.get("throttled_time", "0")) / 1e9
        return Throttling(int(table.get("nr_periods", "0")), int(table.get("nr_throttled", "0")), seconds)
    return Throttling()
