"""The benchmark works; what it measures is for a quiet machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

COMPARE = Path(__file__).parent.parent / "bench" / "compare.py"


def test_the_bench_compares_two_servers() -> None:
    flags = "--servers gthread-2x4,prodserve --views hello --rounds 1 --seconds 0.5 --connections 4"
    done = subprocess.run(
        [sys.executable, COMPARE, *flags.split()], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| prodserve "))
    assert len(re.findall(r" x\d+\.\d\d ", row)) == 6, done.stdout
