"""What the kernel tells of a process. Reads /proc; used by the arbiter and by ``status``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of a process; 0.0 where nobody tells. Fields 14 and 15 of proc(5)'s stat."""
    with suppress(OSError, ValueError, IndexError):
        # The name in parentheses may hold anything: count behind it.
        words = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0
