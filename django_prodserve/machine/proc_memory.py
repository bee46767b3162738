"""How much memory a process takes, as the kernel tells. Linux; elsewhere as psutil tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..utils.units import KIB


@dataclass(frozen=True)
class MemoryReading:
    """Memory of one process in bytes; ``private`` is None where the system does not tell it."""

    size: int
    private: int | None


def read_memory(process: Path = Path("/proc/self")) -> MemoryReading:
    """Return a process's PSS and private memory, or its RSS where the kernel shows no more."""
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
        sizes = {words[0]: int(words[1]) * KIB for words in map(str.split, lines) if words[-1] == "kB"}
        return MemoryReading(sizes["Pss:"], sizes["Private_Clean:"] + sizes["Private_Dirty:"])
    except (OSError, LookupError, ValueError):
        import psutil  # 1.4 MiB that most servers need not have

        pid = int(process.name) if process.name.isdecimal() else None
        try:
            return MemoryReading(psutil.Process(pid).memory_info().rss, None)
        except psutil.Error as error:
            raise ProcessLookupError(f"{process} is gone") from error
