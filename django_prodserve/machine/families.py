"""A process and all that it has started, as Linux lists them. Used by minders, the arbiter and ``status``."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from .proc_memory import read_memory


def children(pid: int | str) -> list[int]:
    """Return the children of a process; none if this kernel does not list them."""
    found: list[int] = []
    with suppress(OSError, ValueError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


def family(pid: int) -> list[int]:
    """Return a process and everything that it has started; the kernel lists no daemons among them."""
    found = [pid]
    for each in found:
        found += [child for child in children(each) if child not in found]
    return found


def family_memory(pid: int) -> int:
    """Return the bytes that a process and everything that it has started use."""
    total = 0
    for each in family(pid):
        with suppress(OSError):
            total += read_memory(Path(f"/proc/{each}")).size
    return total
