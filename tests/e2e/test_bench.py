"""The benchmark works; what it measures is for a quiet machine."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

COMPARE = Path(__file__).parent.parent / "bench" / "compare.py"
BEHAVIOUR, ABLATION = COMPARE.with_name("behaviour.py"), COMPARE.with_name("ablation.py")
BARS = COMPARE.with_name("bars.py")
# Enough to run all that the scenarios are made of; a figure of each.
FIGURES = {
    "slowmix": "p99 ms",
    "overload-waiting": "goodput",
    "idle": "KiB each",
    "kill": "lost for each",
}


def test_the_bench_compares_two_servers() -> None:
    flags = "--servers gthread-2x4,prodserve --views hello --rounds 1 --seconds 0.5 --connections 4"
    done = subprocess.run(
        [sys.executable, COMPARE, *flags.split()], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("| prodserve "))
    assert len(re.findall(r" x\d+\.\d\d ", row)) == 6, done.stdout


def test_the_bench_shows_how_servers_behave() -> None:
    flags = f"--servers prodserve --scenarios {','.join(FIGURES)} --scale 0.01 --json"
    done = subprocess.run(
        [sys.executable, BEHAVIOUR, *flags.split()], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    for scenario, figure in FIGURES.items():
        assert figure in found[scenario]["prodserve"], found[scenario]


@pytest.mark.timeout(240)
def test_the_bench_judges_async_views() -> None:
    flags = "--only async-hello,open-streams --rounds 1 --scale 0.01"
    flags += " --servers prodserve-async,gunicorn-asgi"
    done = subprocess.run([sys.executable, BARS, *flags.split()], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(
        r"^\| (\S.*?) +\| +([\d.e+]+) \| +[<>]= \S+ \| +(?:yes|NO) \|$", done.stdout, re.MULTILINE
    )
    judged = {row: float(value) for row, value in rows}
    assert judged["async hello: CPU / best"] > 0, done.stdout
    assert judged["500 open streams: more threads"] <= 2, done.stdout


def test_the_bench_neutralises_a_constant() -> None:
    flags = "--constants REBALANCE_SECONDS --rounds 1 --seconds 0.4"
    done = subprocess.run(
        [sys.executable, ABLATION, *flags.split()], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    start = "| acceptor.REBALANCE_SECONDS "
    [row] = [line for line in done.stdout.splitlines() if line.startswith(start)]
    assert len(re.findall(r"\d\.\d\d \(", row)) == 3, done.stdout


def test_the_bench_counts_the_calls_of_a_request() -> None:
    calls = COMPARE.with_name("calls.py")
    done = subprocess.run(
        [sys.executable, calls, "--views", "hello,nodjango"], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = re.findall(r"^(\w+) +(\d+)\.\d of Python +(\d+)\.\d of C$", done.stdout, re.MULTILINE)
    (_, hello, _), (_, bare, _) = counted
    assert int(hello) > 2 * int(bare) > 0, done.stdout
