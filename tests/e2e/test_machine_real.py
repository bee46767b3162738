"""Machine.detect() inside real control groups of version 1, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.utils.units import MIB

from .groups import HALF_A_CPU, PERIOD, limited_to, own_group

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="control groups are a matter of Linux"),
]

PROJECT = Path(__file__).parents[2]

# What the child does to itself, step by step, before it looks at its machine.
CHILD = """
import ctypes, json, os, sys
from dataclasses import asdict
from pathlib import Path

steps = json.loads(sys.argv[1])
for group in steps["groups"]:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
if steps["affinity"]:
    os.sched_setaffinity(0, steps["affinity"])
libc = ctypes.CDLL(None, use_errno=True)


def call(function, *arguments):
    if function(*arguments) != 0:
        number = ctypes.get_errno()
        sys.exit(f"refused: {os.strerror(number)}")


NEW_MOUNTS, NEW_CGROUPS = 0x00020000, 0x02000000  # sched.h
BIND, PRIVATE = 0x1000, 0x4000 | 0x40000  # mount.h; the latter for all mounts below
if steps["new_cgroups"]:
    call(libc.unshare, NEW_CGROUPS)
if steps["bind"]:
    source, target = (os.fsencode(path) for path in steps["bind"])
    call(libc.unshare, NEW_MOUNTS)
    call(libc.mount, b"none", b"/", None, PRIVATE, None)
    call(libc.mount, source, target, None, BIND, None)

from pathlib import Path
from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.machine.detect import Machine

def used():
    cgroups = Cgroups.find(FileRoot(Path("/")))
    return [cgroups.memory_used(limit.level) for limit in cgroups.memory_limits()]

facts = asdict(Machine.detect())
facts["used"] = used()
ballast = b"x" * steps["ballast"]
facts["used_after"] = used()
print(json.dumps(facts))
"""


def look(*groups, affinity=(), new_cgroups=False, bind=(), ballast=0, **variables):
    """Return what a process in these groups finds out about its machine."""
    steps = {
        "groups": [str(group) for group in groups],
        "affinity": list(affinity),
        "new_cgroups": new_cgroups,
        "bind": [str(path) for path in bind],
        "ballast": ballast,
    }
    plain = {name: text for name, text in os.environ.items() if name != "PYTHON_CPU_COUNT"}
    child = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(steps)],
        cwd=PROJECT,
        env={**plain, **variables},
        capture_output=True,
        text=True,
        timeout=30,
    )
    if child.stderr.startswith("refused: "):
        pytest.skip(f"namespaces or mounts are {child.stderr.strip()}")
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def cpus_before():
    """The CPUs that this test run may use, and how a sentence counts them."""
    count = len(os.sched_getaffinity(0))
    return count, f"({count} CPU{'' if count == 1 else 's'} visible)"


def test_half_a_cpu_and_256_mib(make_group):
    cpu, memory = make_group("cpu", HALF_A_CPU), make_group("memory", limited_to(256))
    facts = look(cpu, memory)
    _, visible = cpus_before()
    assert (facts["cpus"], facts["quota"]) == (0.5, 0.5)
    assert facts["cpus_why"] == (
        f"quota 50000/100000 us in cpu.cfs_quota_us {visible}. "
        "The process is stopped for part of each 100 ms when it needs more"
    )
    assert facts["memory_limit"] == facts["memory_effective"] == 256 * MIB
    assert facts["memory_limit_why"] == facts["memory_effective_why"] == "memory.limit_in_bytes"
    assert facts["memory_total"] > 256 * MIB
    assert facts["limits_visible"]
    assert facts["notes"] == []


def test_a_tighter_parent_wins(make_group):
    cpu, memory = make_group("cpu", HALF_A_CPU), make_group("memory", limited_to(256))
    inner_cpu = make_group("cpu", {"cpu.cfs_quota_us": -1}, parent=cpu)
    inner_memory = make_group("memory", limited_to(512), parent=memory)
    facts = look(inner_cpu, inner_memory)
    assert facts["cpus"] == 0.5
    assert f"in cpu.cfs_quota_us of the parent group {cpu.name} (" in facts["cpus_why"]
    assert facts["memory_effective"] == 256 * MIB
    assert facts["memory_effective_why"] == f"memory.limit_in_bytes of the parent group {memory.name}"


def test_a_tighter_child_wins(make_group):
    cpu, memory = make_group("cpu", HALF_A_CPU), make_group("memory", limited_to(256))
    inner_cpu = make_group("cpu", {"cpu.cfs_quota_us": PERIOD // 4}, parent=cpu)
    inner_memory = make_group("memory", limited_to(128), parent=memory)
    facts = look(inner_cpu, inner_memory)
    assert facts["cpus"] == 0.25
    assert "in cpu.cfs_quota_us (" in facts["cpus_why"]
    assert facts["memory_effective"] == 128 * MIB
    assert facts["memory_effective_why"] == "memory.limit_in_bytes"


def test_a_parent_that_the_mount_hides_shows_in_the_hierarchical_limit(make_group):
    """A container of cgroup v1 sees its own group alone, mounted where the hierarchy was."""
    parent = make_group("memory", limited_to(300))
    group = make_group("memory", {}, parent=parent)
    mount = Path(Cgroups.find(FileRoot(Path("/"))).group("memory").levels[-1].directory)
    facts = look(group, bind=(group, mount))
    assert facts["memory_limit"] == 300 * MIB
    assert facts["memory_limit_why"] == (
        "hierarchical_memory_limit (a parent group that is not visible here)"
    )
    assert facts["limits_visible"]


def test_a_cgroup_namespace_without_a_mount_of_its_own_is_not_certain(make_group):
    facts = look(make_group("cpu", HALF_A_CPU), new_cgroups=True)
    assert not facts["limits_visible"]
    assert facts["cpus"] > 0


def test_an_affinity_mask(make_group):
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) == 1:
        pytest.skip("one CPU cannot be divided")
    facts = look(affinity=allowed[:1])
    assert facts["cpus"] <= 1
    assert "affinity mask (taskset or cpuset)" in facts["cpus_why"] or facts["quota"]


def test_an_affinity_mask_below_the_quota(make_group):
    quota = {"cpu.cfs_period_us": PERIOD, "cpu.cfs_quota_us": PERIOD * 3 // 2}
    facts = look(make_group("cpu", quota), affinity=sorted(os.sched_getaffinity(0))[:1])
    assert facts["cpus"] == 1
    assert facts["cpus_why"].endswith("quota 150000/100000 us in cpu.cfs_quota_us allows more")


def test_a_cpuset_group_is_an_affinity_mask(make_group):
    first = min(os.sched_getaffinity(0))
    own = own_group("cpuset")
    nodes = (own / "cpuset.effective_mems").read_text().strip()
    facts = look(make_group("cpuset", {"cpuset.cpus": first, "cpuset.mems": nodes}))
    assert facts["cpus"] == 1


def test_used_memory_grows_with_what_is_used(make_group):
    facts = look(make_group("memory", limited_to(256)), ballast=100 * MIB)
    (before, *_), (after, *_) = facts["used"], facts["used_after"]
    assert before < 56 * MIB
    assert 90 * MIB < after - before < 120 * MIB


def test_a_limit_of_tasks(make_group):
    assert look(make_group("pids", {"pids.max": 50}))["pids_limit"] == 50


def test_shares_are_a_hint_and_no_limit(make_group):
    facts = look(make_group("cpu", {"cpu.shares": 256}), KUBERNETES_SERVICE_HOST="10.0.0.1")
    assert facts["quota"] is None
    assert facts["cpu_weight"] == "its CPU request seems to be about 0.25"
    assert facts["cpus"] == cpus_before()[0]
