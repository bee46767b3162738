"""Find this process's control group and read the limits of all its levels, for cgroup v1, v2 and both.

Runs in the command, before the server. Reads /proc and the cgroup mounts, writes nothing, raises nothing. A
value that cannot be read counts as unknown, and leaves a note.

Sources: Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst, scheduler/sched-bwc.rst and
filesystems/proc.rst (3.5, mountinfo) of the Linux kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

# "No limit" is LONG_MAX rounded down to a page (it differs with the page size), or 2**64 - 1.
UNLIMITED = 1 << 60
DEFAULT_PERIOD = 100_000  # us; CFS bandwidth default, sched-bwc.rst

# The files that show that a mount is alive, by controller and version of cgroup.
PROBE_FILES = {
    ("cpu", 1): ("cpu.cfs_quota_us", "cpu.shares"),
    ("cpu", 2): ("cpu.max", "cpu.weight"),
    ("cpuacct", 1): ("cpuacct.usage",),
    ("memory", 1): ("memory.limit_in_bytes", "memory.stat"),
    ("memory", 2): ("memory.max", "memory.high"),
    ("pids", 1): ("pids.max",),
    ("pids", 2): ("pids.max",),
    ("cpuset", 1): ("cpuset.effective_cpus", "cpuset.cpus"),
    ("cpuset", 2): ("cpuset.cpus.effective",),
}


@dataclass(frozen=True)
class FileRoot:
    """The files below a root directory, and a note on each one that could not be used."""

    root: Path
    notes: list[str] = field(default_factory=list)

    def read(self, path: str) -> str | None:
        """Return the text of a file; None if it is missing (normal) or unreadable (noted)."""
        try:
            return os.fsdecode((self.root / path.lstrip("/")).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in the path
            self.notes.append(f"{printable(path)} is not readable: {type(error).__name__}")
            return None

    def exists(self, path: str) -> bool:
        """Return whether a file or directory exists, as far as this process may see it."""
        try:
            return (self.root / path.lstrip("/")).exists()
        except (OSError, ValueError):
            return False

    def ignore(self, path: str, text: str) -> None:
        """Record that the content of a file made no sense."""
        self.notes.append(f"{printable(path)} holds {shorten(ascii(text.strip()))}: ignored")


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One line of mountinfo that shows a cgroup hierarchy; ``controllers`` is empty for v2."""

    version: int
    root: tuple[str, ...]
    point: str
    controllers: frozenset[str] = frozenset()

    def shows(self, controller: str, version: int) -> bool:
        """Return whether the mount shows this controller of this version."""
        return self.version == version and (version == 2 or controller in self.controllers)


@dataclass(frozen=True, kw_only=True)
class Level:
    """One directory between the process's own group and the mount point; ``where`` completes "cpu.max"."""

    directory: str
    where: str = ""

    def file(self, name: str) -> str:
        """Return the path of one of its files, below the tree's root."""
        return f"{self.directory.rstrip('/')}/{name}"


@dataclass(frozen=True, kw_only=True)
class Group:
    """Where one controller accounts for this process: its levels, the leaf first.

    ``version`` is 0 if the controller does not exist. ``certain`` is False if the levels may belong to
    another process.
    """

    version: int = 0
    levels: tuple[Level, ...] = ()
    limits_visible: bool = True


@dataclass(frozen=True, kw_only=True)
class CpuQuota:
    """CPU time that a group may use in each period, both in microseconds."""

    quota: int
    period: int
    source: str
    level: Level

    @property
    def cpus(self) -> float:
        """Return the quota in CPUs, always more than 0."""
        return self.quota / self.period


@dataclass(frozen=True, kw_only=True)
class MemoryLimit:
    """A size in bytes; above a hard limit the kernel kills, above a soft one it throttles."""

    size: int
    source: str
    level: Level
    hard: bool = True


@dataclass(frozen=True, kw_only=True)
class Cgroups:
    """This process's path for each v1 controller and for v2 (under ""), and the cgroup mounts."""

    tree: FileRoot
    paths: Mapping[str, str]
    mounts: tuple[Mount, ...]

    @classmethod
    def find(cls, tree: FileRoot) -> Cgroups:
        """Read /proc/self/cgroup and /proc/self/mountinfo once."""
        paths = parse_memberships(tree.read("/proc/self/cgroup") or "")
        mounts = parse_mounts(tree.read("/proc/self/mountinfo") or "")
        return cls(tree=tree, paths=paths, mounts=mounts)

    def group(self, controller: str) -> Group:
        """Return the levels that limit this process: v1 or v2 is a property of each controller."""
        if not self.paths:  # gVisor shows limits, but not the group of a process
            guesses = (self.guess(controller, version, "/") for version in (2, 1))
            return next(filter(None, guesses), Group(limits_visible=False))
        version = 1 if controller in self.paths else 2
        path = self.paths.get(controller if version == 1 else "")
        if path is None:  # switched off in the kernel: nothing can limit
            return Group()
        mounts = [mount for mount in self.mounts if mount.shows(controller, version)]
        if not mounts:
            return self.guess(controller, version, path) or Group(limits_visible=False)
        groups = [visible_levels(mount, path) for mount in sorted(mounts, key=lambda m: len(m.root))]
        own = [group for group in groups if group.limits_visible] or groups
        return next((group for group in own if self.is_alive(controller, group)), own[0])

    def guess(self, controller: str, version: int, path: str) -> Group | None:
        """Check the usual places (snap confinement hides mountinfo); None if no place has the controller."""
        for point in usual_places(controller, version):
            group = visible_levels(Mount(version=version, root=(), point=point), path)
            if self.is_alive(controller, group):
                own = group.limits_visible and self.tree.exists(group.levels[0].directory)
                return replace(group, limits_visible=own and bool(self.paths))
        return None

    def is_alive(self, controller: str, group: Group) -> bool:
        """Return whether a mount really shows the controller: one of its files can be read."""
        names = PROBE_FILES[controller, group.version]
        files = (level.file(name) for level in group.levels for name in names)
        return any(self.tree.read(path) is not None for path in files)

    def cpu_quotas(self) -> list[CpuQuota]:
        """Return every quota from the process's own group up: the kernel enforces all (sched-bwc.rst)."""
        group = self.group("cpu")
        read = self.cpu_max if group.version == 2 else self.cfs_quota
        return [quota for level in group.levels if (quota := read(level))]

    def cpu_max(self, level: Level) -> CpuQuota | None:
        """Read v2 ``cpu.max``: ``QUOTA PERIOD`` in us; ``max`` means no limit, the period is optional."""
        path = level.file("cpu.max")
        text = self.tree.read(path)
        fields = (text or "").split()
        if text is None or fields[:1] == ["max"]:
            return None
        if len(fields) == 1:
            fields.append(str(DEFAULT_PERIOD))
        return self.quota(path, text, fields, level)

    def cfs_quota(self, level: Level) -> CpuQuota | None:
        """Read v1 ``cpu.cfs_quota_us`` (-1 means no limit) and ``cpu.cfs_period_us``, both in us."""
        path = level.file("cpu.cfs_quota_us")
        quota = self.tree.read(path)
        if quota is None or quota.strip() == "-1":
            return None
        period = self.tree.read(level.file("cpu.cfs_period_us")) or ""
        return self.quota(path, f"{quota.strip()}/{period.strip()}", [quota, period], level)

    def quota(self, path: str, text: str, fields: list[str], level: Level) -> CpuQuota | None:
        """Return a quota from its two numbers in us; None, and a note, if they make no sense."""
        quota, period = map(parse_amount, fields) if len(fields) == 2 else (None, None)
        if quota is None or period is None or max(quota, period) >= UNLIMITED:
            self.tree.ignore(path, text)
            return None
        return CpuQuota(quota=quota, period=period, source=f"{Path(path).name}{level.where}", level=level)

    def memory_limits(self) -> list[MemoryLimit]:
        """Return every memory limit (bytes) from the process's own group up; the kernel enforces all."""
        group = self.group("memory")
        if group.version == 2:
            return [limit for level in group.levels for limit in self.limits_v2(level)]
        limits = [limit for level in group.levels for limit in self.limit_v1(level)]
        return [*limits, *self.hidden_limit(group, limits)]

    def limits_v2(self, level: Level) -> Iterator[MemoryLimit]:
        """Read ``memory.max`` and ``memory.high`` (throttled above it: a slow outage), in bytes."""
        for name in ("memory.max", "memory.high"):
            if size := self.size(level.file(name)):
                hard = name == "memory.max"
                yield MemoryLimit(size=size, source=f"{name}{level.where}", level=level, hard=hard)

    def limit_v1(self, level: Level) -> Iterator[MemoryLimit]:
        """Read ``memory.limit_in_bytes``; a parent counts unless its ``use_hierarchy`` is 0.

        Newer kernels reject that 0 (measured with 6.18), so there every parent counts.
        """
        hierarchy = self.tree.read(level.file("memory.use_hierarchy")) if level.where else None
        if hierarchy and hierarchy.strip() == "0":
            return
        if size := self.size(level.file("memory.limit_in_bytes")):
            yield MemoryLimit(size=size, source=f"memory.limit_in_bytes{level.where}", level=level)

    def hidden_limit(self, group: Group, seen: list[MemoryLimit]) -> Iterator[MemoryLimit]:
        """Read v1 ``hierarchical_memory_limit``, bytes: it includes parents that the mount hides."""
        for level in group.levels:
            text = self.tree.read(level.file("memory.stat"))
            if text is not None:
                size = parse_amount(parse_table(text).get("hierarchical_memory_limit", ""))
                if size and size < min((limit.size for limit in seen), default=UNLIMITED):
                    source = "hierarchical_memory_limit (a parent group that is not visible here)"
                    yield MemoryLimit(size=size, source=source, level=level)
                return

    def size(self, path: str) -> int | None:
        """Return a limit from a file of its own (bytes or tasks); None if it limits nothing."""
        text = self.tree.read(path)
        if text is None or text.strip() == "max":
            return None
        size = parse_amount(text)
        if size is None:
            self.tree.ignore(path, text)
        return size if size and size < UNLIMITED else None

    def memory_used(self, level: Level, *, firm: bool = False) -> int | None:
        """Return the bytes that a level holds, without inactive file pages, which the kernel drops.

        ``firm`` excludes the active file pages, too: the kernel drops them before it kills, and reads them
        again.
        """
        if self.group("memory").version == 2:
            current, prefix = "memory.current", ""
        else:
            current, prefix = "memory.usage_in_bytes", "total_"
        used = parse_amount(self.tree.read(level.file(current)) or "")
        stat = parse_table(self.tree.read(level.file("memory.stat")) or "")
        names = ("inactive_file", "active_file") if firm else ("inactive_file",)
        dropped = sum(parse_amount(stat.get(prefix + name, "")) or 0 for name in names)
        return None if used is None else max(0, used - dropped)

    def pids_limit(self) -> int | None:
        """Return the number of tasks (processes, threads) that the tightest ``pids.max`` allows."""
        sizes = [self.size(level.file("pids.max")) for level in self.group("pids").levels]
        return min((size for size in sizes if size), default=None)

    def texts(self, controller: str, *names: str) -> Iterator[tuple[str, str]]:
        """Yield name and text of those files that are not empty, from the process's own group up."""
        for level in self.group(controller).levels:
            for name in names:
                if text := (self.tree.read(level.file(name)) or "").strip():
                    yield name, text


def parse_memberships(text: str) -> dict[str, str]:
    """Return the path of each v1 controller, of v2 under "", from the text of /proc/self/cgroup.

    The path is not escaped and may hold colons and blanks: only the first two colons separate.
    """
    paths: dict[str, str] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if path.startswith("/") and (names or number == "0"):
            for name in names.split(","):
                paths.setdefault(name, path.removesuffix(" (deleted)"))
    return paths


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the cgroup mounts that the text of /proc/self/mountinfo shows.

    A later mount on the same point, of whatever type, hides an earlier one.
    """
    mounts: dict[str, Mount] = {}
    for line in text.split("\n"):
        fields = line.split(" ")
        if "-" not in fields[6:]:
            continue
        mounts.pop(fields[4], None)
        if mount := parse_mount(fields):
            mounts[fields[4]] = mount
    return tuple(mounts.values())


def parse_mount(fields: list[str]) -> Mount | None:
    """Return the cgroup mount that a line of mountinfo describes; None for anything else."""
    root, point = unescape(fields[3]), unescape(fields[4])
    kind, _source, *options = [*fields[fields.index("-", 6) + 1 :], "", ""]
    if kind not in ("cgroup", "cgroup2") or not point.startswith("/") or ".." in components(point):
        return None
    # WSL puts blanks into the options of its mounts; the words are one field.
    controllers = frozenset(" ".join(options).strip().split(",")) if kind == "cgroup" else frozenset()
    return Mount(
        version=1 if kind == "cgroup" else 2,
        root=components(root),
        point=point,
        controllers=controllers,
    )


def visible_levels(mount: Mount, path: str) -> Group:
    """Return the levels of the group ``path`` that a mount shows, from the leaf to the mount point.

    A mount may not show the group: the process is outside its namespace, or entered a new one. Then the
    result is the mount point alone, and is not certain.
    """
    names, depth = components(path), len(mount.root)
    below = names[depth:]
    if names[:depth] != mount.root or ".." in below:
        where = f" of the group at {printable(mount.point)}"
        level = Level(directory=mount.point, where=where)
        return Group(version=mount.version, levels=(level,), limits_visible=False)
    levels = [parent(mount, below[:count]) for count in reversed(range(len(below)))]
    leaf = Level(directory="/".join((mount.point.rstrip("/"), *below)))
    return Group(version=mount.version, levels=(leaf, *levels))


def parent(mount: Mount, below: tuple[str, ...]) -> Level:
    """Return the level of a parent group, the given number of components below the mount point."""
    name = [*mount.root, *below][-1:] or ["/"]
    where = f" of the parent group {shorten(printable(name[0]))}"
    return Level(directory="/".join((mount.point.rstrip("/"), *below)), where=where)


def usual_places(controller: str, version: int) -> list[str]:
    """Return the usual mount points of a controller: v2 (pure, hybrid) or v1 (also RHEL 7)."""
    if version == 2:
        return ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"]
    joined = ["cpu,cpuacct", "cpuacct,cpu"] if controller == "cpu" else []
    return [f"/sys/fs/cgroup/{name}" for name in [controller, *joined]]


def components(path: str) -> tuple[str, ...]:
    """Split a path into its names: groups may only be compared name by name."""
    return tuple(name for name in path.split("/") if name)


def unescape(text: str) -> str:
    """Undo mountinfo's octal escapes of blank, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def parse_amount(text: str) -> int | None:
    """Return a number above 0, in the unit of its file; None for everything else, however long."""
    digits = text.strip()
    return (int(digits) or None) if re.fullmatch(r"[0-9]{1,20}", digits) else None


def parse_table(text: str) -> dict[str, str]:
    """Return the rows ``name value`` of a file such as memory.stat."""
    rows = (line.partition(" ") for line in text.split("\n"))
    return {name: value for name, _, value in rows}


def printable(name: str) -> str:
    """Return a name that is safe in a log line, whatever bytes its creator chose."""
    return name if name.isprintable() else ascii(name)[1:-1]


def shorten(name: str) -> str:
    """Shorten the middle of a long name, such as a pod's id."""
    return name if len(name) <= 40 else f"{name[:12]}…{name[-6:]}"
