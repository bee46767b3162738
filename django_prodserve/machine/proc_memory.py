"""The memory that a process uses, as the kernel reports it on Linux, and psutil on other systems."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..utils.units import KIB


@dataclass(frozen=True)
class MemoryReading:
    """Memory of one process in bytes; ``private`` is None if the system does not report it."""

    size: int
    private: int | None


def read_memory(process: Path = Path("/proc/self")) -> MemoryReading:
    """Return a process's PSS and private memory, or its RSS if the kernel shows no more."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        sizes = {words[0]: int(words[1]) * KIB for words in map(str.split, lines) if words[-1] == "kB"}
        return MemoryReading(sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"])
    except (OSError, LookupError, ValueError):
        import psutil  # 1.4 MiB that most servers do not need

        pid = int(process.name) if process.name.isdecimal() else None
        try:
            return MemoryReading(psutil.Process(pid).memory_info().rss, None)
        except psutil.Error as error:
            raise ProcessLookupError(f"{process} is gone") from error
