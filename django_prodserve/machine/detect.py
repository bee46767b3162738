"""CPUs and memory that this process may really use, and the source of each figure.

Runs in the command, before the server; reads files, changes nothing, takes well under 5 ms. This module
ignores ``--cpus`` and ``--memory``. CPUs are fractions, memory is bytes. Each ``why`` completes ``f"{value}:
{why}"``.
"""

from __future__ import annotations

import math
import os
import re
import sys
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..utils.units import format_size
from .cgroups import Cgroups, CpuQuota, FileRoot, MemoryLimit, parse_amount, printable, shorten
from .temporary import find_memory_type

KERNEL_CPUS = 1 << 16  # no kernel supports as many (NR_CPUS is 8192 at most); bounds the work on garbage

# The default and the minimum: cgroup-v2.rst, cpu.weight; MIN_SHARES in kernel/sched/sched.h.
USUAL_WEIGHTS = {"cpu.weight": (100, 1), "cpu.shares": (1024, 2)}

CONTAINER_FILES = (
    "/.dockerenv",
    "/run/.containerenv",  # Podman, CRI-O
    "/run/systemd/container",  # systemd writes it when it runs inside LXC, nspawn, OpenVZ
    "/var/run/secrets/kubernetes.io",  # the token of a pod's service account
)
CONTAINER_VARIABLES = (
    "KUBERNETES_SERVICE_HOST",  # kubelet sets it in every pod
    "ECS_CONTAINER_METADATA_URI_V4",
    "ECS_CONTAINER_METADATA_URI",
    "K_SERVICE",  # Cloud Run
    "DYNO",  # Heroku
    "container",  # systemd's container interface; Podman sets it for every process
)
# Names that runtimes give to groups; a service such as /system.slice/docker.service has none.
CONTAINER_GROUP = re.compile(
    r"/(kubepods[^/]*|lxc|lxc\.payload[^/]*|libpod_parent|garden|ecs|buildkit"
    r"|docker(?=/[0-9a-f]{12})|(?:docker|libpod|crio|cri-containerd|nerdctl)-[0-9a-f]{12}[^/]*)(?=/|$)"
)


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The share of the machine that this process may use, each number with its reason.

    ``cpus`` is never rounded and never 0; ``quota`` is in CPUs too, ``pids_limit`` counts tasks. Sizes are
    bytes; None means "no limit" or "not known". ``certain`` is False if there may be limits that this process
    cannot see.
    """

    cpus: float
    cpus_why: str
    quota: float | None
    memory_total: int | None
    memory_limit: int | None
    memory_limit_why: str
    memory_effective: int | None
    memory_effective_why: str
    pids_limit: int | None
    container: str | None
    cpu_weight: str | None
    limits_visible: bool
    notes: tuple[str, ...]
    temporary: str = ""
    """Why files in the temporary directory are memory, such as tmpfs; empty if they are on a disk."""

    @classmethod
    def detect(
        cls,
        root: Path = Path("/"),
        affinity: int | Collection[int] | None = None,
        online: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> Machine:
        """Read the facts of the machine from the files below ``root``; never fail.

        ``affinity`` (CPUs, or their number) and ``online`` (a number) default to the kernel's values for this
        process. 0 means that the platform reports no value.
        """
        tree = FileRoot(Path(root))
        cgroups = Cgroups.find(tree)
        environ = os.environ if environ is None else environ
        visible, visible_why = count_visible(cgroups, affinity, online)
        quota = min(cgroups.cpu_quotas(), key=lambda quota: quota.cpus, default=None)
        cpus, cpus_why = stated_cpus(tree, environ) or usable_cpus(visible, visible_why, quota)
        total = memory_total(tree)
        limits = cgroups.memory_limits()
        limit = min(limits, key=lambda limit: limit.size, default=None)
        hard = min((limit.size for limit in limits if limit.hard), default=None)
        effective, effective_why = usable_memory(total, limit, hard)
        container = find_container(tree, cgroups.paths, environ)
        return cls(
            cpus=cpus,
            cpus_why=cpus_why,
            quota=quota.cpus if quota else None,
            memory_total=total,
            memory_limit=limit.size if limit else None,
            memory_limit_why=explain_limit(limit, hard) if limit else "no limit found",
            memory_effective=effective,
            memory_effective_why=effective_why,
            pids_limit=cgroups.pids_limit(),
            container=container,
            cpu_weight=None if quota else describe_weight(cgroups, container),
            limits_visible=is_certain(cgroups),
            notes=tuple(dict.fromkeys(tree.notes)),
            temporary=find_memory_type(tree, environ.get("TMPDIR") or "/tmp", environ),
        )


def count_visible(
    cgroups: Cgroups, affinity: int | Collection[int] | None, online: int | None
) -> tuple[int, str]:
    """Return the number of CPUs before any quota, at least 1, and its source.

    Both counts matter. The affinity mask includes cpusets and taskset. lxcfs shows a container's CPUs only in
    /sys/devices/system/cpu/online, which os.cpu_count() reads.
    """
    allowed = count_affinity(affinity)
    machine = max(0, (os.cpu_count() or 0) if online is None else online)
    if allowed:
        return explain_affinity(allowed, machine)
    if cpuset := read_cpuset(cgroups):
        name, allowed = cpuset
        if not machine or allowed < machine:
            return (
                allowed,
                f"{name} of the cpuset group, {machine or 'an unknown number'} in the machine",
            )
    if not machine:
        cgroups.tree.notes.append("the number of CPUs is not known: counting 1")
        return 1, "the number of CPUs is not known"
    if not cgroups.tree.exists("/proc"):
        return machine, "os.cpu_count(); this platform has no cgroups"
    return machine, "no CPU limit found; os.cpu_count()"


def count_affinity(affinity: int | Collection[int] | None) -> int:
    """Return the number of CPUs that this process may run on, 0 if the platform does not report it."""
    ask = getattr(os, "sched_getaffinity", None)  # macOS has none
    if affinity is None and ask:
        with suppress(NotImplementedError, OSError):  # an old C library; seccomp
            affinity = ask(0)
    return max(0, affinity) if isinstance(affinity, int) else len(affinity or ())


def explain_affinity(allowed: int, machine: int) -> tuple[int, str]:
    """Return the smaller of two counts of CPUs, and its source."""
    if machine and machine < allowed:
        return machine, f"os.cpu_count(); the affinity mask has {allowed}"
    if allowed < machine:
        return allowed, f"affinity mask (taskset or cpuset), {machine} in the machine"
    return allowed, "no CPU limit found; affinity mask"


def read_cpuset(cgroups: Cgroups) -> tuple[str, int] | None:
    """Return the file and the number of CPUs of the nearest cpuset; the names are v2's and v1's."""
    names = ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus")
    for name, text in cgroups.texts("cpuset", *names):
        if count := count_cpu_list(text):
            return name, count
    return None


def count_cpu_list(text: str) -> int:
    """Return the number of CPUs in a list such as ``0-3,8``, 0 if the text is not a list (cpuset(7))."""
    cpus: set[int] = set()
    for item in text.strip().split(","):
        match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", item)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < KERNEL_CPUS:
            return 0
        cpus.update(range(first, last + 1))
    return len(cpus)


def stated_cpus(tree: FileRoot, environ: Mapping[str, str]) -> tuple[float, str] | None:
    """Return the CPUs set by ``-X cpu_count`` or PYTHON_CPU_COUNT; both are new in Python 3.13.

    Older versions honour them here, too, so that a new Python does not change the plan. 3.13 prefers -X,
    reads ``default`` as not set, and refuses to start if the number makes no sense.
    """
    option = sys._xoptions.get("cpu_count")
    name = "PYTHON_CPU_COUNT" if option is None else "-X cpu_count"
    text = str(environ.get("PYTHON_CPU_COUNT", "default") if option is None else option)
    if text == "default" or not text:
        return None
    if not (count := parse_amount(text)):
        tree.ignore(name, text)
        return None
    return float(count), f"set by {name}"


def usable_cpus(visible: int, visible_why: str, quota: CpuQuota | None) -> tuple[float, str]:
    """Return the smaller of the visible CPUs and the quota, in CPUs, and the sentence for it."""
    if not quota:
        return float(visible), visible_why
    why = f"quota {quota.quota}/{quota.period} us in {quota.source}"
    if quota.cpus > visible:
        return float(visible), f"{visible_why.removeprefix('no CPU limit found; ')}; {why} allows more"
    why += f" ({visible} CPU{'' if visible == 1 else 's'} visible)"
    if quota.cpus < 1:
        stopped = f"part of each {quota.period / 1000:g} ms"
        why += f". The process is stopped for {stopped} when it needs more"
    return quota.cpus, why


def describe_weight(cgroups: Cgroups, container: str | None) -> str | None:
    """Return a hint about an unusual CPU weight; a weight limits nothing while other groups are idle."""
    for name, text in cgroups.texts("cpu", "cpu.weight", "cpu.shares"):
        weight = parse_amount(text)
        usual, least = USUAL_WEIGHTS[name]
        if not weight or weight == usual:
            return None
        if not container:
            return f"its {name} is {weight}, where {usual} is usual"
        if weight <= least:
            return "it seems to have no CPU request"
        return f"its CPU request seems to be about {guess_request(name, weight)}"
    return None


def guess_request(name: str, weight: int) -> str:
    """Return the Kubernetes CPU request behind a weight, in CPUs, as text.

    A request of 1 CPU is 1024 shares (v1). For v2 the runtime turns shares into a weight. runc 1.3.2 and crun
    1.23 changed the formula (opencontainers/runc#4896), so a weight has two meanings.
    """
    if name == "cpu.shares":
        return f"{weight / 1024:.2g}"
    # weight = 1 + (shares - 2) * 9999 / 262142, rounded down: take the middle.
    linear = (2 + (weight - 0.5) * 262142 / 9999) / 1024
    # weight = 10 ** ((l * l + 125 * l) / 612 - 7 / 34), rounded up, with l = log2(shares).
    power = math.log10(weight - 0.5) + 7 / 34
    quadratic = 2 ** ((math.sqrt(125**2 + 4 * 612 * power) - 125) / 2) / 1024
    return f"{linear:.2g}, or {quadratic:.2g} under runc 1.3.2, crun 1.23 or newer"


def memory_total(tree: FileRoot) -> int | None:
    """Return the memory that /proc/meminfo shows, in bytes; lxcfs shows a container's memory there."""
    if total := meminfo(tree, "MemTotal"):
        return total
    if sys.platform != "linux" and tree.root == Path("/"):
        return physical_memory()
    return None


def physical_memory() -> int | None:
    """Return the machine's memory in bytes if there is no /proc, as on macOS.

    Not for Linux: there the call bypasses lxcfs and returns the host's memory.
    """
    try:
        return (os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) or None
    except (AttributeError, ValueError, OSError):
        return None


def meminfo(tree: FileRoot, name: str) -> int | None:
    """Return a row of /proc/meminfo in bytes; the unit kB in the file is 1024 bytes (proc.rst)."""
    text = tree.read("/proc/meminfo") or ""
    match = re.search(rf"^{name}:[ \t]*([0-9]{{1,15}}) kB$", text, re.MULTILINE)
    return int(match[1]) * 1024 or None if match else None


def explain_limit(limit: MemoryLimit, hard: int | None) -> str:
    """Return which file limits the memory; ``hard`` is the size at which the kernel kills, in bytes."""
    if limit.hard:
        return limit.source
    return f"{limit.source} (throttled above{f'; killed at {format_size(hard)}' if hard else ''})"


def usable_memory(total: int | None, limit: MemoryLimit | None, hard: int | None) -> tuple[int | None, str]:
    """Return the smaller of memory and limit, in bytes, and the sentence for it."""
    if limit and (total is None or limit.size <= total):
        return limit.size, explain_limit(limit, hard)
    if total is None:
        return None, "not known: neither MemTotal nor a limit found"
    if limit:
        return total, f"MemTotal; {limit.source} allows more ({format_size(limit.size)})"
    return total, "MemTotal, no limit found"


def find_container(tree: FileRoot, paths: Mapping[str, str], environ: Mapping[str, str]) -> str | None:
    """Return the sign of a container; None on a plain machine, also in a systemd service."""
    for path in CONTAINER_FILES:
        if tree.exists(path):
            return f"{path} exists"
    for name in CONTAINER_VARIABLES:
        if environ.get(name):
            return f"the environment has {name}"
    for path in paths.values():
        if match := CONTAINER_GROUP.search(path):
            return f"the cgroup path names {shorten(printable(match[1]))}"
    return None


def is_certain(cgroups: Cgroups) -> bool:
    """Return whether the groups that were read are this process's own; without /proc there are no groups."""
    if not cgroups.tree.exists("/proc"):
        return True
    return cgroups.group("cpu").limits_visible and cgroups.group("memory").limits_visible
