"""Advice from live traffic is right. What wants all CPUs is for a quiet machine: tests/bench/advise.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.advise import WAIT, WORKLOADS, advice, curious, load

from .serving import PATIENCE, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["waits, profile io", "few threads", "quota", "database budget"])
def test_the_advice_fits_the_traffic(tmp_path: Path, name: str) -> None:
    known = advice(WORKLOADS[name], tmp_path, PATIENCE)
    assert known.get("advice_kind") in WORKLOADS[name].right, known


def test_the_advice_follows_the_load(tmp_path: Path) -> None:
    with curious(tmp_path, ("--workers", "2", "--threads", "8")) as (server, status):
        for clients, right in ((24, "threads"), (3, "fits"), (24, "threads")):
            with load(server, WAIT, clients):
                until(lambda right=right: status().get("advice_kind") == right, lambda: str(status()))
