"""What a process has started, as Linux lists it. Used by minders, the arbiter and ``status``."""

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


def memory_below(pid: int) -> int:
    """Return the bytes that everything uses that a process has started or adopted, without itself."""
    found, total = children(pid), 0
    for each in found:
        found += [child for child in children(each) if child not in found]
        with suppress(OSError):
            total += read_memory(Path(f"/proc/{each}")).size
    return total
