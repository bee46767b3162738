"""The CPU time that is used of what a server may use, on fake file trees: each case is a machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.machine.cpu_use import CpuUse, used_of_machine

MOUNT = "/sys/fs/cgroup"
TICKS = os.sysconf("SC_CLK_TCK")
NUMBERS = (
    sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [*range(os.cpu_count() or 1)]
)
# user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice: 21 of the first 8 are work.
LINE = "1 2 3 1000 2000 4 5 6 700 800"
STAT = f"cpu  9 9 9 9 9 9 9 9 9 9\n{''.join(f'cpu{number} {LINE}{chr(10)}' for number in NUMBERS)}intr 1 2\n"
WORK = 21 / TICKS


def use(root: Path, files: dict[str, str], memberships: str, *mounts: str) -> CpuUse:
    """Plant a tree with these groups, and measure there."""
    shown = "".join(f"{31 + number} 23 0:28 / {mount}\n" for number, mount in enumerate(mounts))
    tree = {"/proc/self/cgroup": memberships, "/proc/self/mountinfo": shown, "/proc/stat": STAT}
    for path, content in {**tree, **files}.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return CpuUse(Cgroups.find(FileRoot(root)))


def v2(root: Path, files: dict[str, str], path: str = "/a/b") -> CpuUse:
    named = {f"{MOUNT}/{name}": content for name, content in files.items()}
    return use(root, named, f"0::{path}\n", f"{MOUNT} rw - cgroup2 cgroup rw")


def v1(root: Path, files: dict[str, str], *controllers: str, accounting: str = "/app") -> CpuUse:
    """Plant v1 groups: one mount for each of these words, such as ``cpu,cpuacct``."""
    named = {f"{MOUNT}/{name}": content for name, content in files.items()}
    paths = {"cpuacct": accounting}
    memberships = "".join(
        f"{n}:{names}:{paths.get(names, '/app')}\n" for n, names in enumerate(controllers, 1)
    )
    mounts = (f"{MOUNT}/{names} rw - cgroup cgroup rw,{names}" for names in controllers)
    return use(root, named, memberships, *mounts)


def test_without_a_quota_the_usable_cpus_of_the_machine_count(tmp_path: Path) -> None:
    found = v2(tmp_path, {"a/b/cpu.max": "max 100000", "a/b/cpu.stat": "usage_usec 5\n"})
    assert found.cpus == len(NUMBERS)
    assert found.seconds() == pytest.approx(len(NUMBERS) * WORK)


def test_the_tightest_quota_sets_the_group_that_counts(tmp_path: Path) -> None:
    found = v2(
        tmp_path,
        {
            "a/b/cpu.max": "400000 100000",
            "a/b/cpu.stat": "usage_usec 1000000\n",
            "a/cpu.max": "150000 100000",
            "a/cpu.stat": "usage_usec 2500000\nuser_usec 7\n",
        },
    )
    assert found.cpus == 1.5
    assert found.seconds() == 2.5


def test_each_reading_is_new(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "100000 100000", "a/b/cpu.stat": "usage_usec 1000000\n"}
    found = v2(tmp_path, files)
    (tmp_path / f"{MOUNT}/a/b/cpu.stat".lstrip("/")).write_text("usage_usec 3000000\n")
    assert found.seconds() == 3.0


@pytest.mark.parametrize("stat", [None, "", "nr_periods 4\n", "usage_usec x\n"])
def test_a_group_that_does_not_count_leaves_the_machine(tmp_path: Path, stat: str | None) -> None:
    counts = {} if stat is None else {"a/b/cpu.stat": stat}
    found = v2(tmp_path, {"a/b/cpu.max": "50000 100000", **counts})
    assert found.cpus == len(NUMBERS)
    assert found.seconds() == pytest.approx(len(NUMBERS) * WORK)


@pytest.mark.parametrize("together", [True, False])
def test_v1_counts_nanoseconds_of_another_controller(tmp_path: Path, together: bool) -> None:
    mounts = ("cpu,cpuacct",) if together else ("cpu", "cpuacct")
    limit, count = mounts[0], mounts[-1]
    found = v1(
        tmp_path,
        {
            f"{limit}/app/cpu.cfs_quota_us": "50000\n",
            f"{limit}/app/cpu.cfs_period_us": "100000\n",
            f"{count}/app/cpuacct.usage": "2500000000\n",
        },
        *mounts,
    )
    assert found.cpus == 0.5
    assert found.seconds() == 2.5


@pytest.mark.parametrize("other", ["/other", "/other/deep"])
def test_v1_controllers_with_different_groups_leave_the_machine(tmp_path: Path, other: str) -> None:
    found = v1(
        tmp_path,
        {
            "cpu/app/cpu.cfs_quota_us": "50000\n",
            "cpu/app/cpu.cfs_period_us": "100000\n",
            f"cpuacct{other}/cpuacct.usage": "2500000000\n",
        },
        "cpu",
        "cpuacct",
        accounting=other,
    )
    assert found.cpus == len(NUMBERS)
    assert found.seconds() == pytest.approx(len(NUMBERS) * WORK)


@pytest.mark.parametrize(
    ("text", "numbers", "ticks"),
    [
        pytest.param(f"cpu0 {LINE}\ncpu1 {LINE}\n", {0, 1}, 42, id="both"),
        pytest.param(f"cpu0 {LINE}\ncpu1 {LINE}\ncpu11 {LINE}\n", {1}, 21, id="of those that it may use"),
        pytest.param("cpu0 1 2 3 1000\n", {0}, 6, id="an old kernel has fewer fields"),
        pytest.param("cpu0 1 x\ncpu1 5\n", {0, 1}, 5, id="a line that does not fit"),
        pytest.param(f"cpu {LINE}\n", {0}, None, id="the sum alone"),
        pytest.param("", {0}, None, id="nothing"),
    ],
)
def test_what_cpus_have_worked(text: str, numbers: set[int], ticks: int | None) -> None:
    assert used_of_machine(text, numbers) == (None if ticks is None else ticks / TICKS)
