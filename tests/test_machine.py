"""Machine.detect() on fake file trees: each case is a machine, written as path -> content."""

from __future__ import annotations

import os
import random
import sys
import time
from dataclasses import asdict

import pytest

from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.machine.detect import Machine, count_cpu_list, physical_memory
from django_prodserve.utils.units import GIB, MIB

MOUNT = "/sys/fs/cgroup"
V1_NONE = "9223372036854771712\n"
UNREADABLE = object()  # a directory in place of a file: it cannot be read, not even by root
MEMINFO = f"MemTotal:       {16 * GIB // 1024} kB\nMemFree: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\n"


def plant(root, files):
    """Write a tree; a directory for UNREADABLE, nothing for None."""
    for path, content in files.items():
        target = root / path.lstrip("/")
        if content is UNREADABLE:
            target.mkdir(parents=True)
        elif content is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else os.fsencode(content))
    return root


def line(point=MOUNT, root="/", kind="cgroup2", options="rw"):
    return f"31 23 0:28 {root} {point} rw,relatime shared:9 - {kind} cgroup {options}\n"


def on_linux(memberships, mounts, files):
    return {
        "/proc/meminfo": MEMINFO,
        "/proc/self/cgroup": memberships,
        "/proc/self/mountinfo": "22 27 0:21 / /proc rw - proc proc rw\n" + mounts,
        **files,
    }


def v2(files, path="/app", root="/", point=MOUNT):
    """A machine with cgroup v2; the files are named from the mount point."""
    found = {f"{point}/{name}": content for name, content in files.items()}
    return on_linux(f"0::{path}\n", line(point, root), found)


def v1(files, path="/app", root="/"):
    """A machine with cgroup v1; the files are named by controller, from its mount point."""
    mounts = line(f"{MOUNT}/cpu,cpuacct", root, "cgroup", "rw,cpu,cpuacct")
    mounts += line(f"{MOUNT}/memory", root, "cgroup", "rw,memory")
    mounts += line(f"{MOUNT}/pids", root, "cgroup", "rw,pids")
    mounts += line(f"{MOUNT}/cpuset", root, "cgroup", "rw,cpuset")
    names = ("pids", "cpuset", "memory", "cpu,cpuacct")
    memberships = "".join(f"{n}:{name}:{path}\n" for n, name in enumerate(names, 1))
    found = {f"{MOUNT}/{name}": content for name, content in files.items()}
    return on_linux(memberships, mounts, found)


def cfs(directory, quota, period=100000):
    base = f"cpu,cpuacct/{directory}".rstrip("/")
    return {f"{base}/cpu.cfs_quota_us": f"{quota}\n", f"{base}/cpu.cfs_period_us": f"{period}\n"}


def detect(tmp_path, files, affinity=16, online=16, environ=None):
    root = plant(tmp_path, files)
    return Machine.detect(root=root, affinity=affinity, online=online, environ=environ or {})


STOPPED = ". The process is stopped for part of each 100 ms when it needs more"
POD = "kubepods-burstable-pod0a1b2c3d_0123_4567_89ab_cdef01234567.slice"

CPU_CASES = {
    "v2, a quota at the leaf": (
        v2({"app/cpu.max": "200000 100000\n"}),
        2.0,
        "quota 200000/100000 us in cpu.max (16 CPUs visible)",
    ),
    "v2, a tighter parent wins": (
        v2({"a/b/cpu.max": "400000 100000", "a/cpu.max": "150000 100000"}, path="/a/b"),
        1.5,
        "quota 150000/100000 us in cpu.max of the parent group a (16 CPUs visible)",
    ),
    "v2, a looser parent does not": (
        v2({"a/b/cpu.max": "100000 100000", "a/cpu.max": "900000 100000"}, path="/a/b"),
        1.0,
        "quota 100000/100000 us in cpu.max (16 CPUs visible)",
    ),
    "v2, the grandparent is the only one": (
        v2({"a/b/c/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, path="/a/b/c"),
        3.0,
        "in cpu.max of the parent group a (16",
    ),
    "v2, the leaf has no controller": (
        v2({f"kubepods.slice/{POD}/cpu.max": "200000 100000"}, path=f"/kubepods.slice/{POD}/x"),
        2.0,
        "in cpu.max of the parent group kubepods-bur….slice (16 CPUs visible)",
    ),
    "v2, the mount point counts in a namespace": (
        v2({"cpu.max": "50000 100000"}, path="/"),
        0.5,
        "quota 50000/100000 us in cpu.max (16 CPUs visible)" + STOPPED,
    ),
    "v2, the mount point is a parent": (
        v2({"cpu.max": "100000 100000"}, path="/init.scope"),
        1.0,
        "in cpu.max of the parent group / (",
    ),
    "v2, the mount point is a parent with a name": (
        v2({"cpu.max": "100000 100000"}, path="/docker/x", root="/docker"),
        1.0,
        "in cpu.max of the parent group docker (",
    ),
    "v2, equal levels name the leaf": (
        v2({"a/b/cpu.max": "100000 100000", "a/cpu.max": "100000 100000"}, path="/a/b"),
        1.0,
        "in cpu.max (16",
    ),
    "v2, no limit": (
        v2({"app/cpu.max": "max 100000\n"}),
        16,
        "no CPU limit found; affinity mask",
    ),
    "v2, max without a period": (v2({"app/cpu.max": "max"}), 16, "no CPU limit found"),
    "v2, no period means 100 ms": (v2({"app/cpu.max": "250000"}), 2.5, "250000/100000 us"),
    "v2, a period of 1 ms": (v2({"app/cpu.max": "1500 1000"}), 1.5, "1500/1000 us"),
    "v2, a period of 80 ms": (
        v2({"app/cpu.max": "5000 80000"}),
        0.0625,
        "stopped for part of each 80 ms",
    ),
    "v2, a hundredth of a CPU": (v2({"app/cpu.max": "1000 100000"}), 0.01, "1000/100000 us"),
    "v2, a quota above the CPUs": (
        v2({"app/cpu.max": "9000000 100000"}),
        16,
        "affinity mask; quota 9000000/100000 us in cpu.max allows more",
    ),
    "v2, the real root has no file": (v2({}, path="/"), 16, "no CPU limit found; affinity mask"),
    "v2, burst, weight and idle do not count": (
        v2({"app/cpu.max": "max 100000", "app/cpu.max.burst": "5", "app/cpu.idle": "1"}),
        16,
        "no CPU limit found",
    ),
    "v2, a mount somewhere else": (
        on_linux(
            "0::/app\n",
            line(r"/mnt/my\040cgroup"),
            {"/mnt/my cgroup/app/cpu.max": "200000 100000"},
        ),
        2.0,
        "cpu.max",
    ),
    "v2, docker in the host's namespace": (
        v2({"cpu.max": "200000 100000"}, path="/docker/ab", root="/docker/ab"),
        2.0,
        "in cpu.max (16 CPUs visible)",
    ),
    "v2, strange names": (
        v2({"a:b c\\d/cpu.max": "100000 100000"}, path="/a:b c\\d"),
        1.0,
        "cpu.max",
    ),
    "v2, a name that is not UTF-8": (
        v2({"\udcff/x/cpu.max": "max", "\udcff/cpu.max": "100000 100000"}, path="/\udcff/x"),
        1.0,
        r"in cpu.max of the parent group \udcff (",
    ),
    "v2, a removed group": (
        v2({"a/cpu.max": "100000 100000"}, path="/a/b (deleted)"),
        1.0,
        "of the parent group a",
    ),
    "v2, an unreadable leaf": (
        v2({"a/b/cpu.max": UNREADABLE, "a/cpu.max": "100000 100000"}, path="/a/b"),
        1.0,
        "of the parent group a",
    ),
    "v1, a quota at the leaf": (
        v1(cfs("app", 200000)),
        2.0,
        "quota 200000/100000 us in cpu.cfs_quota_us (16 CPUs visible)",
    ),
    "v1, a tighter parent wins": (
        v1({**cfs("a/b", -1), **cfs("a", 50000)}, path="/a/b"),
        0.5,
        "in cpu.cfs_quota_us of the parent group a (16 CPUs visible)" + STOPPED,
    ),
    "v1, no limit": (v1(cfs("app", -1)), 16, "no CPU limit found; affinity mask"),
    "v1, docker: the files lie at the mount point": (
        v1(cfs("", 150000), path="/docker/ab", root="/docker/ab"),
        1.5,
        "in cpu.cfs_quota_us (16",
    ),
    "v1, a group beside the mounted one": (
        v1(cfs("", 150000), path="/docker/abc", root="/docker/ab"),
        1.5,
        "of the group at /sys/fs/cgroup/cpu,cpuacct",
    ),
    "v1, shares do not count": (
        v1({**cfs("app", -1), "cpu,cpuacct/app/cpu.shares": "2"}),
        16,
        "no CPU limit found",
    ),
    "hybrid, cpu is v1": (
        on_linux(
            "2:cpu:/app\n0::/app\n",
            line(f"{MOUNT}/unified") + line(f"{MOUNT}/cpu", kind="cgroup", options="rw,cpu"),
            {
                f"{MOUNT}/cpu/app/cpu.cfs_quota_us": "100000",
                f"{MOUNT}/cpu/app/cpu.cfs_period_us": "50000",
                f"{MOUNT}/unified/app/cpu.max": "900000 100000",
            },
        ),
        2.0,
        "quota 100000/50000 us in cpu.cfs_quota_us",
    ),
    "hybrid, cpu is v2": (
        on_linux(
            "2:memory:/app\n0::/app\n",
            line(f"{MOUNT}/unified") + line(f"{MOUNT}/memory", kind="cgroup", options="rw,memory"),
            {f"{MOUNT}/unified/app/cpu.max": "300000 100000"},
        ),
        3.0,
        "cpu.max",
    ),
    "v1, the controller is switched off": (
        on_linux("2:memory:/app\n", line(kind="cgroup", options="rw,memory"), {}),
        16,
        "no CPU limit found",
    ),
    "a named hierarchy is not a controller": (
        on_linux("1:name=cpu:/app\n0::/app\n", line(), {f"{MOUNT}/app/cpu.max": "200000 100000"}),
        2.0,
        "cpu.max",
    ),
    "two mounts, the shorter root shows more": (
        on_linux(
            "0::/a/b\n",
            line("/own", root="/a/b") + line("/all"),
            {
                "/own/cpu.max": "400000 100000",
                "/all/a/b/cpu.max": "400000 100000",
                "/all/a/cpu.max": "100000 100000",
            },
        ),
        1.0,
        "of the parent group a",
    ),
    "two mounts, the dead one is passed over": (
        on_linux(
            "0::/a/b\n",
            line("/all") + line("/own", root="/a/b"),
            {"/own/cpu.max": "400000 100000"},
        ),
        4.0,
        "in cpu.max (16",
    ),
    "a later mount hides an earlier one": (
        on_linux(
            "0::/a/b\n",
            line(root="/") + line(root="/a/b"),
            {f"{MOUNT}/cpu.max": "400000 100000", f"{MOUNT}/a/b/cpu.max": "100000 100000"},
        ),
        4.0,
        "in cpu.max (16",
    ),
    "only the parents of another mount are not ours": (
        on_linux(
            "0::/a\n",
            line("/other", root="/b") + line("/mine", root="/a"),
            {"/other/cpu.max": "100000 100000", "/mine/cpu.max": "200000 100000"},
        ),
        2.0,
        "in cpu.max (16",
    ),
    "no mountinfo, v2": (
        on_linux("0::/a/b\n", "", {f"{MOUNT}/a/cpu.max": "100000 100000"}),
        1.0,
        "of the parent group a",
    ),
    "mountinfo is unreadable, v2 in a hybrid": (
        {
            "/proc/self/cgroup": "0::/a\n",
            "/proc/self/mountinfo": UNREADABLE,
            f"{MOUNT}/unified/a/cpu.max": "200000 100000",
        },
        2.0,
        "in cpu.max (16",
    ),
    "no mountinfo, v1": (
        {
            "/proc/self/cgroup": "3:cpu,cpuacct:/a\n",
            f"{MOUNT}/cpu/a/cpu.cfs_quota_us": "200000",
            f"{MOUNT}/cpu/a/cpu.cfs_period_us": "100000",
        },
        2.0,
        "in cpu.cfs_quota_us (16",
    ),
    "no mountinfo, v1 of RHEL 7": (
        {
            "/proc/self/cgroup": "3:cpuacct,cpu:/a\n",
            f"{MOUNT}/cpuacct,cpu/cpu.cfs_quota_us": "200000",
            f"{MOUNT}/cpuacct,cpu/cpu.cfs_period_us": "100000",
        },
        2.0,
        "of the parent group /",
    ),
    "no /proc/self/cgroup (gVisor), v2": (
        {"/proc/meminfo": MEMINFO, f"{MOUNT}/cpu.max": "200000 100000"},
        2.0,
        "in cpu.max (16",
    ),
    "no /proc/self/cgroup (gVisor), v1": (
        {
            f"{MOUNT}/cpu/cpu.cfs_quota_us": "100000",
            f"{MOUNT}/cpu/cpu.cfs_period_us": "100000",
        },
        1.0,
        "in cpu.cfs_quota_us (16",
    ),
    "unshare without a new mount (Nomad)": (
        v2({"cpu.max": "200000 100000"}, path="/", root="/../.."),
        2.0,
        "in cpu.max of the group at /sys/fs/cgroup (16",
    ),
    "nothing anywhere": ({}, 16, "no CPU limit found; affinity mask"),
}


@pytest.mark.parametrize(
    ("files", "cpus", "why"),
    [pytest.param(*case, id=name) for name, case in CPU_CASES.items()],
)
def test_cpus(tmp_path, files, cpus, why):
    machine = detect(tmp_path, files)
    assert machine.cpus == pytest.approx(cpus)
    assert why in machine.cpus_why


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "0 100000",
        "-1 100000",
        "100000 0",
        "100000 -5",
        "1.5 100000",
        "100000 100000 100000",
        "abc",
        "0x10 100000",
        f"{2**60} 100000",
        f"100000 {2**60}",
        "9" * 60,
        "\0",
        b"\xff\xfe\x00",
        UNREADABLE,
    ],
)
def test_a_senseless_quota_is_ignored_and_noted(tmp_path, text):
    files = v2({"a/b/cpu.max": text, "a/cpu.max": "300000 100000"}, path="/a/b")
    machine = detect(tmp_path, files)
    assert machine.cpus == 3
    assert any("/sys/fs/cgroup/a/b/cpu.max" in note for note in machine.notes)


@pytest.mark.parametrize(("quota", "period"), [(0, 100000), (-2, 100000), (1, 0), ("", ""), (5, "x")])
def test_a_senseless_v1_quota_is_ignored_and_noted(tmp_path, quota, period):
    machine = detect(tmp_path, v1({**cfs("a/b", quota, period), **cfs("a", 300000)}, path="/a/b"))
    assert machine.cpus == 3
    assert any("/a/b/cpu.cfs_quota_us" in note for note in machine.notes)


def test_a_v1_quota_without_its_period_is_noted(tmp_path):
    machine = detect(tmp_path, v1({"cpu,cpuacct/app/cpu.cfs_quota_us": "50000"}))
    assert machine.cpus == 16
    assert machine.notes == ("/sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us holds '50000/': ignored",)


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(v2({"app/cpu.max": "max 100000\n", "app/memory.max": "max\n"}), id="v2"),
        pytest.param(v1({**cfs("app", -1), "memory/app/memory.limit_in_bytes": V1_NONE}), id="v1"),
    ],
)
def test_a_plain_machine_leaves_no_notes(tmp_path, files):
    machine = detect(tmp_path, files)
    assert machine.notes == ()
    assert machine.limits_visible


@pytest.mark.parametrize(
    ("affinity", "online", "files", "cpus", "why"),
    [
        pytest.param(8, 8, {}, 8, "no CPU limit found; affinity mask", id="both agree"),
        pytest.param({0, 5}, 8, {}, 2, "affinity mask (taskset or cpuset), 8 in the machine", id="taskset"),
        pytest.param(8, 2, {}, 2, "os.cpu_count(); the affinity mask has 8", id="lxcfs"),
        pytest.param(3, 0, {}, 3, "no CPU limit found; affinity mask", id="no cpu_count"),
        pytest.param(0, 10, {}, 10, "os.cpu_count(); this platform has no cgroups", id="macOS"),
        pytest.param(0, 10, v2({}), 10, "no CPU limit found; os.cpu_count()", id="Linux without a mask"),
        pytest.param(0, 0, {}, 1, "the number of CPUs is not known", id="nobody knows"),
        pytest.param(-3, -4, {}, 1, "the number of CPUs is not known", id="nonsense"),
        pytest.param((), 4, {}, 4, "os.cpu_count()", id="an empty mask"),
        pytest.param(
            0,
            8,
            v2({"app/cpuset.cpus.effective": "0-2,7\n"}),
            4,
            "cpuset.cpus.effective of the cpuset group, 8 in the machine",
            id="v2 cpuset instead of a mask",
        ),
        pytest.param(
            0,
            0,
            v2({"cpuset.cpus.effective": "0-1\n"}),
            2,
            "cpuset.cpus.effective of the cpuset group, an unknown number in the machine",
            id="v2 cpuset alone",
        ),
        pytest.param(
            0,
            8,
            v1({"cpuset/app/cpuset.effective_cpus": "1", "cpuset/app/cpuset.cpus": "0-3"}),
            1,
            "cpuset.effective_cpus of the cpuset group",
            id="v1 cpuset in effect",
        ),
        pytest.param(0, 8, v1({"cpuset/app/cpuset.cpus": "0-3"}), 4, "cpuset.cpus", id="v1 cpuset as set"),
        pytest.param(
            0,
            8,
            v2({"app/cpuset.cpus.effective": "\n", "cpuset.cpus.effective": "0-1"}),
            2,
            "cpuset",
            id="an empty cpuset is ignored",
        ),
        pytest.param(0, 8, v2({"app/cpuset.cpus.effective": "1-"}), 8, "os.cpu_count()", id="a bad cpuset"),
        pytest.param(
            0, 8, v2({"app/cpuset.cpus.effective": "0-15"}), 8, "os.cpu_count()", id="a wide cpuset"
        ),
        pytest.param(6, 8, v2({"app/cpuset.cpus.effective": "0-1"}), 6, "affinity", id="the mask is enough"),
    ],
)
def test_visible_cpus(tmp_path, affinity, online, files, cpus, why):
    machine = detect(tmp_path, files, affinity=affinity, online=online)
    assert machine.cpus == cpus
    assert why in machine.cpus_why


def test_one_visible_cpu_is_not_plural(tmp_path):
    machine = detect(tmp_path, v2({"app/cpu.max": "100000 100000"}), affinity=1)
    assert machine.cpus_why == "quota 100000/100000 us in cpu.max (1 CPU visible)"


def test_without_arguments_the_kernel_is_asked(tmp_path):
    expected = min(len(os.sched_getaffinity(0)), os.cpu_count())
    assert Machine.detect(root=tmp_path, environ={}).cpus == expected


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError])
def test_a_refused_affinity_call_is_survived(tmp_path, monkeypatch, error):
    def refuse(pid):
        raise error

    monkeypatch.setattr(os, "sched_getaffinity", refuse)  # as seccomp and old C libraries do
    assert Machine.detect(root=tmp_path, online=10, environ={}).cpus == 10


def test_a_missing_affinity_call_is_survived(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert Machine.detect(root=tmp_path, online=10, environ={}).cpus == 10


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 1),
        ("0-3,8", 5),
        ("0-3,2-5\n", 6),
        ("0-65535", 65536),
        ("0-65536", 0),
        ("3-1", 0),
        ("0-99999999999", 0),
        ("0-3,", 0),
        ("0-31:2/4", 0),
        ("", 0),
        ("a-b", 0),
    ],
)
def test_cpu_lists(text, count):
    assert count_cpu_list(text) == count


@pytest.mark.parametrize(
    ("text", "cpus", "notes"),
    [
        pytest.param("3", 3, 0, id="more than the quota: what is stated wins"),
        pytest.param("default", 0.5, 0, id="default states nothing"),
        pytest.param("", 0.5, 0, id="empty states nothing"),
        pytest.param("0", 0.5, 1, id="zero is noted"),
        pytest.param("2.5", 0.5, 1, id="fractions are noted"),
        pytest.param("many", 0.5, 1, id="words are noted"),
    ],
)
def test_python_cpu_count(tmp_path, text, cpus, notes):
    files = v2({"app/cpu.max": "50000 100000"})
    machine = detect(tmp_path, files, environ={"PYTHON_CPU_COUNT": text})
    assert machine.cpus == cpus
    assert machine.quota == 0.5
    assert len(machine.notes) == notes
    assert ("set by PYTHON_CPU_COUNT" in machine.cpus_why) is (cpus == 3)


@pytest.mark.parametrize(("option", "cpus"), [("5", 5), ("default", 16)])
def test_the_command_line_of_python_beats_its_environment(tmp_path, monkeypatch, option, cpus):
    monkeypatch.setitem(sys._xoptions, "cpu_count", option)
    machine = detect(tmp_path, {}, environ={"PYTHON_CPU_COUNT": "3"})
    assert machine.cpus == cpus


MEMORY_CASES = {
    "v2, memory.max": (v2({"app/memory.max": f"{512 * MIB}\n"}), 512 * MIB, "memory.max"),
    "v2, a tighter parent": (
        v2({"a/b/memory.max": f"{GIB}", "a/memory.max": f"{GIB // 4}"}, path="/a/b"),
        GIB // 4,
        "memory.max of the parent group a",
    ),
    "v2, memory.high is smaller": (
        v2({"app/memory.max": f"{GIB}", "app/memory.high": f"{900 * MIB}"}),
        900 * MIB,
        "memory.high (throttled above; killed at 1 GiB)",
    ),
    "v2, memory.high alone": (
        v2({"app/memory.max": "max", "app/memory.high": f"{900 * MIB}"}),
        900 * MIB,
        "memory.high (throttled above)",
    ),
    "v2, high of the parent, max of the leaf": (
        v2({"a/b/memory.max": f"{GIB}", "a/memory.high": f"{GIB // 2}"}, path="/a/b"),
        GIB // 2,
        "memory.high of the parent group a (throttled above; killed at 1 GiB)",
    ),
    "v2, max and high are equal": (
        v2({"app/memory.max": f"{GIB}", "app/memory.high": f"{GIB}"}),
        GIB,
        "memory.max",
    ),
    "v2, low and min protect": (
        v2({"app/memory.max": "max", "app/memory.low": "5", "app/memory.min": "5"}),
        None,
        "no limit found",
    ),
    "v2, no limit": (v2({"app/memory.max": "max\n"}), None, "no limit found"),
    "v2, 2^60 is no limit": (v2({"app/memory.max": f"{2**60}"}), None, "no limit found"),
    "v2, 2^60 - 1 is one": (v2({"app/memory.max": f"{2**60 - 1}"}), 2**60 - 1, "memory.max"),
    "v2, 2^64 - 1 is no limit": (v2({"app/memory.max": f"{2**64 - 1}"}), None, "no limit found"),
    "v2, zero is ignored": (
        v2({"a/b/memory.max": "0", "a/memory.max": f"{GIB}"}, path="/a/b"),
        GIB,
        "memory.max of the parent group a",
    ),
    "v2, a senseless number is ignored": (v2({"app/memory.max": "1e9"}), None, "no limit found"),
    "v2, 60 digits": (v2({"app/memory.max": "9" * 60}), None, "no limit found"),
    "v2, swap is not added": (
        v2({"app/memory.max": f"{GIB}", "app/memory.swap.max": f"{GIB}"}),
        GIB,
        "memory.max",
    ),
    "v1, a limit": (
        v1({"memory/app/memory.limit_in_bytes": f"{GIB}\n"}),
        GIB,
        "memory.limit_in_bytes",
    ),
    "v1, a parent": (
        v1(
            {
                "memory/a/b/memory.limit_in_bytes": V1_NONE,
                "memory/a/memory.limit_in_bytes": f"{GIB}",
                "memory/a/memory.use_hierarchy": "1",
            },
            path="/a/b",
        ),
        GIB,
        "memory.limit_in_bytes of the parent group a",
    ),
    "v1, a parent without hierarchy": (
        v1(
            {
                "memory/a/b/memory.limit_in_bytes": f"{2 * GIB}",
                "memory/a/memory.limit_in_bytes": f"{GIB}",
                "memory/a/memory.use_hierarchy": "0\n",
            },
            path="/a/b",
        ),
        2 * GIB,
        "memory.limit_in_bytes",
    ),
    "v1, the leaf counts without hierarchy": (
        v1({"memory/app/memory.limit_in_bytes": f"{GIB}", "memory/app/memory.use_hierarchy": "0"}),
        GIB,
        "memory.limit_in_bytes",
    ),
    "v1, a parent that is not visible": (
        v1(
            {
                "memory/memory.limit_in_bytes": V1_NONE,
                "memory/memory.stat": "cache 1\nhierarchical_memory_limit 314572800\n",
            },
            path="/docker/ab",
            root="/docker/ab",
        ),
        300 * MIB,
        "hierarchical_memory_limit (a parent group that is not visible here)",
    ),
    "v1, the hierarchical limit of a visible parent": (
        v1(
            {
                "memory/a/memory.limit_in_bytes": f"{GIB}",
                "memory/a/b/memory.stat": f"hierarchical_memory_limit {GIB}\n",
            },
            path="/a/b",
        ),
        GIB,
        "memory.limit_in_bytes of the parent group a",
    ),
    "v1, the hierarchical limit of the leaf is the one": (
        v1(
            {
                "memory/a/b/memory.stat": f"hierarchical_memory_limit {V1_NONE}",
                "memory/a/memory.stat": "hierarchical_memory_limit 5\n",
            },
            path="/a/b",
        ),
        None,
        "no limit found",
    ),
    "v1, a broken stat": (
        v1({"memory/app/memory.stat": b"\xff\x00hierarchical_memory_limit\n\n"}),
        None,
        "no limit found",
    ),
    "v1, unlimited with 64 KiB pages": (
        v1({"memory/app/memory.limit_in_bytes": "9223372036854710272"}),
        None,
        "no limit found",
    ),
    "v1, a soft limit is a hint": (
        v1({"memory/app/memory.soft_limit_in_bytes": f"{GIB}"}),
        None,
        "no limit found",
    ),
    "hybrid, memory is v2 (cgroup_no_v1=memory)": (
        on_linux(
            "2:cpu:/app\n0::/app\n",
            line(f"{MOUNT}/cpu", kind="cgroup", options="rw,cpu") + line(f"{MOUNT}/unified"),
            {f"{MOUNT}/unified/app/memory.max": f"{GIB}"},
        ),
        GIB,
        "memory.max",
    ),
    "no mountinfo, v1": (
        {"/proc/self/cgroup": "4:memory:/a\n", f"{MOUNT}/memory/memory.limit_in_bytes": f"{GIB}"},
        GIB,
        "memory.limit_in_bytes of the parent group /",
    ),
    "no /proc/self/cgroup": ({f"{MOUNT}/memory.max": f"{GIB}"}, GIB, "memory.max"),
}


@pytest.mark.parametrize(
    ("files", "limit", "why"),
    [pytest.param(*case, id=name) for name, case in MEMORY_CASES.items()],
)
def test_memory_limits(tmp_path, files, limit, why):
    machine = detect(tmp_path, files)
    assert machine.memory_limit == limit
    assert machine.memory_limit_why == why


def test_the_hard_limit_is_where_the_kernel_kills(tmp_path):
    files = v2(
        {"a/b/memory.high": "5", "a/b/memory.max": f"{GIB}", "a/memory.max": f"{GIB // 2}"},
        path="/a/b",
    )
    assert "512 MiB" in detect(tmp_path, files).memory_limit_why


@pytest.mark.parametrize(
    ("meminfo", "limit", "effective", "why"),
    [
        pytest.param(MEMINFO, "max", 16 * GIB, "MemTotal, no limit found", id="no limit"),
        pytest.param(MEMINFO, f"{GIB}", GIB, "memory.max", id="the limit is smaller"),
        pytest.param(
            MEMINFO,
            f"{32 * GIB}",
            16 * GIB,
            "MemTotal; memory.max allows more (32 GiB)",
            id="the limit is larger",
        ),
        pytest.param(None, f"{GIB}", GIB, "memory.max", id="no meminfo"),
        pytest.param(None, "max", None, "not known: neither MemTotal nor a limit found", id="nothing"),
        pytest.param("MemTotal: 0 kB\n", f"{GIB}", GIB, "memory.max", id="a total of 0"),
        pytest.param("MemTotal: many kB\n", f"{GIB}", GIB, "memory.max", id="a broken total"),
        pytest.param(f"MemTotal: {'9' * 60} kB\n", f"{GIB}", GIB, "memory.max", id="60 digits"),
        pytest.param(UNREADABLE, f"{GIB}", GIB, "memory.max", id="an unreadable meminfo"),
    ],
)
def test_effective_memory(tmp_path, meminfo, limit, effective, why):
    files = {**v2({"app/memory.max": limit}), "/proc/meminfo": meminfo}
    machine = detect(tmp_path, files)
    assert machine.memory_effective == effective
    assert machine.memory_effective_why == why


def test_total_memory_is_counted_in_kib(tmp_path):
    machine = detect(tmp_path, v2({}))
    assert machine.memory_total == 16 * GIB


def test_physical_memory_may_be_unknown(monkeypatch):
    monkeypatch.delattr(os, "sysconf")  # as on Windows
    assert physical_memory() is None


def test_physical_memory_is_not_less_than_meminfo_shows():
    assert physical_memory() >= (Machine.detect().memory_total or 0)


@pytest.mark.skipif(sys.platform == "linux", reason="Linux has /proc/meminfo")
def test_a_platform_without_meminfo_knows_its_memory():
    assert Machine.detect().memory_total == physical_memory()


@pytest.mark.parametrize(
    ("files", "used"),
    [
        pytest.param(v2({}), [], id="no limit"),
        pytest.param(
            v2(
                {
                    "app/memory.max": "1000",
                    "app/memory.current": "700",
                    "app/memory.stat": "inactive_file 200\n",
                }
            ),
            [500],
            id="v2: pages that can go are free",
        ),
        pytest.param(
            v2({"app/memory.max": "1000", "app/memory.current": "700"}), [700], id="v2 without stat"
        ),
        pytest.param(
            v2(
                {
                    "a/b/memory.max": "1000",
                    "a/b/memory.current": "100",
                    "a/memory.max": "2000",
                    "a/memory.current": "1900",
                },
                path="/a/b",
            ),
            [100, 1900],
            id="siblings fill the parent",
        ),
        pytest.param(v2({"app/memory.max": "1000", "app/memory.current": "1700"}), [1700], id="too much"),
        pytest.param(v2({"app/memory.max": "1000", "app/memory.current": "?"}), [None], id="unknown use"),
        pytest.param(
            v1(
                {
                    "memory/app/memory.limit_in_bytes": "1000",
                    "memory/app/memory.usage_in_bytes": "700",
                    "memory/app/memory.stat": "inactive_file 1\ntotal_inactive_file 200\n",
                }
            ),
            [500],
            id="v1 counts the children too",
        ),
        pytest.param(
            v2(
                {
                    "app/memory.max": "1000",
                    "app/memory.current": "100",
                    "app/memory.stat": "inactive_file 300\n",
                }
            ),
            [0],
            id="two counters disagree",
        ),
        pytest.param({}, [], id="nobody says"),
    ],
)
def test_used_memory(tmp_path, files, used):
    cgroups = Cgroups.find(FileRoot(plant(tmp_path, files)))
    assert [cgroups.memory_used(limit.level) for limit in cgroups.memory_limits()] == used


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        (v2({"app/pids.max": "max"}), None),
        (v2({"a/b/pids.max": "500", "a/pids.max": "100"}, path="/a/b"), 100),
        (v1({"pids/app/pids.max": "64\n"}), 64),
        (v1({"pids/app/pids.max": "0"}), None),
        ({}, None),
    ],
)
def test_pids_limit(tmp_path, files, limit):
    assert detect(tmp_path, files).pids_limit == limit


HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("files", "environ", "why"),
    [
        ({"/.dockerenv": ""}, {}, "/.dockerenv exists"),
        ({"/run/.containerenv": ""}, {}, "/run/.containerenv exists"),
        ({"/run/systemd/container": "lxc"}, {}, "/run/systemd/container exists"),
        ({}, {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "the environment has KUBERNETES_SERVICE_HOST"),
        ({}, {"container": "podman"}, "the environment has container"),
        ({}, {"DYNO": "web.1"}, "the environment has DYNO"),
        (v2({}, path="/kubepods.slice/x"), {}, "the cgroup path names kubepods.slice"),
        (v2({}, path="/kubepods/burstable/pod1"), {}, "the cgroup path names kubepods"),
        (v2({}, path=f"/docker/{HEX}"), {}, "the cgroup path names docker"),
        (
            v2({}, path=f"/system.slice/docker-{HEX}.scope"),
            {},
            "the cgroup path names docker-01234….scope",
        ),
        (v1({}, path=f"/machine.slice/libpod-{HEX}.scope/x"), {}, "the cgroup path names libpod-"),
        (v2({}, path="/lxc/web/app"), {}, "the cgroup path names lxc"),
        (v2({}, path="/lxc.payload.web/app"), {}, "the cgroup path names lxc.payload.web"),
        (v2({}, path="/ecs/task"), {}, "the cgroup path names ecs"),
        (v2({}, path="/system.slice/web.service"), {}, None),
        (v2({}, path="/system.slice/docker.service"), {}, None),
        (v2({}, path="/system.slice/docker-cleanup.service"), {}, None),
        (v2({}, path="/system.slice/lxc-net.service"), {}, None),
        (v2({}, path="/user.slice/user-1000.slice/docker"), {}, None),
        (v2({}, path="/"), {}, None),
        (v2({}), {"container": "", "HOME": "/root"}, None),
        ({}, {}, None),
    ],
)
def test_container(tmp_path, files, environ, why):
    found = detect(tmp_path, files, environ=environ).container
    assert found is None if why is None else why in found


IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.mark.parametrize(
    ("files", "environ", "sentence"),
    [
        pytest.param(v2({"app/cpu.weight": "100"}), IN_A_POD, None, id="v2, the usual weight"),
        pytest.param(v1({"cpu,cpuacct/app/cpu.shares": "1024"}), IN_A_POD, None, id="v1, usual"),
        pytest.param(
            v1({"cpu,cpuacct/app/cpu.shares": "256\n"}),
            IN_A_POD,
            "its CPU request seems to be about 0.25",
            id="v1, a quarter",
        ),
        pytest.param(
            v1({"cpu,cpuacct/app/cpu.shares": "2"}),
            IN_A_POD,
            "it seems to have no CPU request",
            id="v1, best effort",
        ),
        pytest.param(
            v2({"app/cpu.weight": "10"}),
            IN_A_POD,
            "its CPU request seems to be about 0.25, or 0.046 under runc 1.3.2, crun 1.23 or newer",
            id="v2, a quarter as it was",
        ),
        pytest.param(
            v2({"app/cpu.weight": "35"}),
            IN_A_POD,
            "its CPU request seems to be about 0.89, or 0.25 under runc 1.3.2, crun 1.23 or newer",
            id="v2, a quarter as it is",
        ),
        pytest.param(
            v2({"app/cpu.weight": "50"}), {}, "its cpu.weight is 50, where 100 is usual", id="systemd"
        ),
        pytest.param(
            v2({"app/cpu.weight": "10", "app/cpu.max": "200000 100000"}),
            IN_A_POD,
            None,
            id="a quota says more than a weight",
        ),
        pytest.param(v2({"app/cpu.weight": "much"}), IN_A_POD, None, id="a senseless weight"),
        pytest.param(v2({"app/cpu.weight": "9" * 20}), IN_A_POD, "about", id="an absurd weight"),
        pytest.param(v2({}), IN_A_POD, None, id="no weight"),
    ],
)
def test_cpu_weight(tmp_path, files, environ, sentence):
    found = detect(tmp_path, files, environ=environ).cpu_weight
    assert found is None if sentence is None else sentence in found


@pytest.mark.parametrize(
    ("files", "certain"),
    [
        pytest.param(v2({"app/cpu.max": "max"}), True, id="the own group is visible"),
        pytest.param(v2({}, path="/"), True, id="the root of the machine"),
        pytest.param(v2({}, path="/", root="/../.."), False, id="a namespace without its mount"),
        pytest.param(v2({}, path="/../x"), False, id="outside of the namespace"),
        pytest.param(on_linux("0::/a\n", "", {}), False, id="no cgroup mount"),
        pytest.param(
            on_linux("0::/a\n", "", {f"{MOUNT}/a/cpu.max": "max", f"{MOUNT}/a/memory.max": "max"}),
            True,
            id="no mountinfo, but the own group is where it should be",
        ),
        pytest.param(
            on_linux("0::/a\n", "", {f"{MOUNT}/cpu.max": "max", f"{MOUNT}/memory.max": "max"}),
            False,
            id="no mountinfo, and a mount without the own group",
        ),
        pytest.param({"/proc/meminfo": MEMINFO}, False, id="gVisor"),
        pytest.param(
            {
                "/proc/meminfo": MEMINFO,
                f"{MOUNT}/cpu.max": "max",
                f"{MOUNT}/memory.max": "max",
            },
            False,
            id="gVisor with cgroup files, whosever they are",
        ),
        pytest.param({}, True, id="macOS has no limits to miss"),
    ],
)
def test_certain(tmp_path, files, certain):
    assert detect(tmp_path, files).limits_visible is certain


def test_each_problem_is_noted_once(tmp_path):
    files = v2({"app/cpu.max": "x\n\x1b[0m", "app/memory.max": UNREADABLE})
    assert sorted(detect(tmp_path, files).notes) == [
        r"/sys/fs/cgroup/app/cpu.max holds 'x\n\x1b[0m': ignored",
        "/sys/fs/cgroup/app/memory.max is not readable: IsADirectoryError",
    ]


def test_nothing_outside_of_the_root_is_read(tmp_path):
    plant(tmp_path, {"/outside/cpu.max": "100000 100000"})
    files = v2({}, path="/../../../outside", point="/../outside")
    assert detect(tmp_path / "root", files).cpus == 16


def test_a_path_with_a_nul_byte_is_noted(tmp_path):
    machine = detect(tmp_path, v2({"cpu.max": "100000 100000"}, path="/a\0b"))
    assert machine.cpus == 1
    assert any(r"a\x00b" in note for note in machine.notes)


@pytest.mark.parametrize("path", ["/a\0b", "/" + "a" * 300])
def test_a_path_that_cannot_be_asked_for_does_not_exist(tmp_path, path):
    assert FileRoot(tmp_path).exists(path) is False


SEEDS = {
    "/proc/meminfo": MEMINFO.encode(),
    "/proc/self/cgroup": b"3:memory:/m/n\n2:cpu,cpuacct:/c:d\n0::/a/b\n",
    "/proc/self/mountinfo": (
        line() + line("/m", "/m", "cgroup", "rw,memory") + line("/c", kind="cgroup", options="rw,cpu")
    ).encode(),
    "/sys/fs/cgroup/a/b/cpu.max": b"200000 100000\n",
    "/sys/fs/cgroup/a/cpu.max": b"max 100000\n",
    "/sys/fs/cgroup/cpu.max": b"150000 100000\n",
    "/sys/fs/cgroup/a/b/cpu.weight": b"39\n",
    "/sys/fs/cgroup/a/b/pids.max": b"100\n",
    "/sys/fs/cgroup/a/b/memory.max": b"1073741824\n",
    "/sys/fs/cgroup/a/b/memory.high": b"max\n",
    "/sys/fs/cgroup/a/b/memory.current": b"4096\n",
    "/sys/fs/cgroup/a/b/memory.stat": b"anon 1\ninactive_file 2\n",
    "/sys/fs/cgroup/a/cpuset.cpus.effective": b"0-3,8\n",
    "/c/c:d/cpu.cfs_quota_us": b"50000\n",
    "/c/c:d/cpu.cfs_period_us": b"100000\n",
    "/c/c:d/cpu.shares": b"512\n",
    "/m/n/memory.limit_in_bytes": b"268435456\n",
    "/m/memory.use_hierarchy": b"1\n",
    "/m/n/memory.stat": b"hierarchical_memory_limit 134217728\n",
    "/m/n/memory.usage_in_bytes": b"100\n",
}
SPICES = (b"\n", b" ", b":", b"/", b"-", b"..", b"\0", b"\xff", b"0", b"9" * 60, b"\\777", b"max", b",")


def mutate(chance, content):
    """Return bytes that were once well formed: cut, doubled, spiced, or noise."""
    where = chance.randrange(len(content) + 1)
    return chance.choice(
        [
            content,
            content[:where],
            content[where:] + content[:where],
            content[:where] + chance.choice(SPICES) + content[where:],
            content[:where] + chance.randbytes(chance.randrange(9)) + content[where + 3 :],
            chance.randbytes(chance.randrange(99)),
        ]
    )


@pytest.mark.parametrize("seed", range(400))
def test_no_content_whatever_is_an_error_or_makes_zero_cpus(tmp_path, seed):
    chance = random.Random(seed)
    kept = [path for path in SEEDS if chance.random() > 0.1]
    plant(tmp_path, {path: mutate(chance, SEEDS[path]) for path in kept})
    affinity, online = chance.choice([0, 1, 8]), chance.choice([0, 1, 8])
    words = {"PYTHON_CPU_COUNT": chance.choice(["", "2", "x"])}
    machine = Machine.detect(root=tmp_path, affinity=affinity, online=online, environ=words)
    assert 0 < machine.cpus <= 16
    assert all(size is None or 0 < size < 2**60 for size in sizes(machine))
    assert all(text.isprintable() for text in texts(machine))


def sizes(machine):
    return [machine.memory_total, machine.memory_limit, machine.memory_effective, machine.pids_limit]


def texts(machine):
    named = [value for name, value in asdict(machine).items() if name.endswith("_why")]
    return [*named, *machine.notes, machine.container or "", machine.cpu_weight or ""]


def test_detection_takes_less_than_5_ms_of_cpu(tmp_path):
    files = v2(
        {
            "a/b/c/d/e/cpu.max": "max 100000",
            "a/b/c/d/e/memory.max": "max",
            "a/b/cpu.max": "100000 100000",
        },
        path="/a/b/c/d/e",
    )
    files["/proc/self/mountinfo"] += "40 23 0:28 / /mnt/x rw - ext4 /dev/vda rw\n" * 200
    root = plant(tmp_path, files)

    def once():
        start = time.thread_time()
        Machine.detect(root=root, environ={})
        return time.thread_time() - start

    assert min(once() for _ in range(20)) < 0.005  # the best run: a busy machine is no failure


def test_the_real_machine_is_described_completely():
    facts = asdict(Machine.detect())
    assert all(text for name, text in facts.items() if name.endswith("_why"))
    assert facts["cpus"] > 0
