"""How much CPU time has been used of what a server may use, by itself and by all others.

Runs in the main loop of the arbiter. Reads /proc/stat, or the control group whose quota is the tightest.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from contextlib import suppress

from .cgroups import Cgroups, CpuQuota, parse_amount, parse_table

_IDLE = {3, 4}
"""Fields of a line of /proc/stat, counted from 0, in which a CPU does nothing: idle, iowait."""
_COUNTED = 8
"""Fields of such a line that add up to all time; the time of guests is a part of the first two."""


class CpuUse:
    """The CPUs that processes share with this server: those of its quota, else those of the machine."""

    def __init__(self, cgroups: Cgroups) -> None:
        self._cgroups = cgroups
        quotas = cgroups.cpu_quotas()
        self._quota = min(quotas, key=lambda quota: quota.cpus, default=None)
        self._numbers = _usable()
        if self._quota is not None and self._used_of(self._quota) is None:
            self._quota = None

    @property
    def cpus(self) -> float:
        """Return how many CPUs are shared."""
        return self._quota.cpus if self._quota else float(len(self._numbers))

    def seconds(self) -> float | None:
        """Return the CPU seconds that all processes have used of them so far; None if they are unknown."""
        if self._quota is not None:
            return self._used_of(self._quota)
        return used_of_machine(self._cgroups.tree.read("/proc/stat") or "", self._numbers)

    def _used_of(self, quota: CpuQuota) -> float | None:
        """Return what the group of a quota has used: v2 counts microseconds, v1 nanoseconds."""
        read, level = self._cgroups.tree.read, quota.level
        if self._cgroups.group("cpu").version == 2:
            used = parse_amount(parse_table(read(level.file("cpu.stat")) or "").get("usage_usec", ""))
            return None if used is None else used / 1e6
        depth = [found.directory for found in self._cgroups.group("cpu").levels].index(level.directory)
        counts = self._cgroups.group("cpuacct").levels
        paths = self._cgroups.paths
        if paths.get("cpu") != paths.get("cpuacct") or depth >= len(counts):  # of a different group
            return None
        used = parse_amount(read(counts[depth].file("cpuacct.usage")) or "")
        return None if used is None else used / 1e9


def used_of_machine(text: str, numbers: Collection[int]) -> float | None:
    """Return the CPU seconds that these CPUs have worked, from the text of /proc/stat.

    Time that the hypervisor has taken counts, too: no process here could use it.
    """
    ticks = 0
    for line in text.splitlines():
        name, *fields = line.split()
        if name[:3] == "cpu" and name[3:].isdecimal() and int(name[3:]) in numbers:
            with suppress(ValueError):
                counts = map(int, fields[:_COUNTED])
                ticks += sum(count for number, count in enumerate(counts) if number not in _IDLE)
    return ticks / os.sysconf("SC_CLK_TCK") if ticks else None


def _usable() -> frozenset[int]:
    """Return the CPUs that this process may run on; all of them where the system does not report it."""
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
