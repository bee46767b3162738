"""Real control groups of version 1, for processes that a test starts.

They are made below the own groups of the test run, so that its own limits stay in force, and they are
removed in any case. Nothing needs to be waited for: a limit holds once its file is written.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.utils.units import MIB

from .needs import lacking

PERIOD = 100_000  # us
HALF_A_CPU = {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD // 2}

# Run as ``python -c ENTER GROUP... -- ARGUMENT...``: join the groups, then become ``python ARGUMENT...``.
ENTER = """
import os, sys
end = sys.argv.index("--")
for group in sys.argv[1:end]:
    with open(os.path.join(group, "cgroup.procs"), "w") as file:
        file.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[end + 1:]])
"""


def limited_to(mebibytes: int) -> dict[str, int]:
    """Return the limit of a memory group."""
    return {"memory.limit_in_bytes": mebibytes * MIB}


def inside(*groups: Path) -> tuple[str, ...]:
    """Return what stands before a command's arguments, so that it runs in these groups."""
    return ("-c", ENTER, *map(str, groups), "--")


def own_group(controller: str) -> Path:
    """Return the directory of this test run's own group, or skip."""
    group = Cgroups.find(FileRoot(Path("/"))).group(controller)
    if group.version != 1 or not group.limits_visible:
        lacking("cgroup-v1", f"{controller} is not a visible controller of cgroup v1 here")
    return Path(group.levels[0].directory)


def remove(group: Path) -> None:
    """Remove a group; the kernel may need a moment to forget a process that has been waited for."""
    deadline = time.monotonic() + 5
    while True:
        try:
            return group.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


@contextmanager
def making_groups() -> Iterator[Callable[..., Path]]:
    """Give a function that makes a group with limits, below another or below the own one."""
    with ExitStack() as stack:

        def make(controller: str, limits: Mapping[str, int], parent: Path | None = None) -> Path:
            group = (parent or own_group(controller)) / f"prodserve-test-{os.getpid()}"
            try:
                group.mkdir()
            except OSError as error:
                lacking("cgroup-v1", f"no group can be made for {controller}: {error.strerror}")
            stack.callback(remove, group)
            for name, value in limits.items():
                (group / name).write_text(str(value))
            return group

        yield make
