"""Advice from live traffic is right. What wants all CPUs is for a quiet machine: tests/bench/advise.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.advise import WORKLOADS, advice

from .serving import PATIENCE

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["waits, profile io", "few threads", "quota", "database budget"])
def test_the_advice_fits_the_traffic(tmp_path: Path, name: str) -> None:
    known = advice(WORKLOADS[name], tmp_path, PATIENCE)
    assert known.get("advice_kind") in WORKLOADS[name].right, known
