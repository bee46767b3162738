"""When the CPU quota counts as throttling, and when as enough again."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_prodserve.arbiter.quota_watch import WINDOW_SECONDS, QuotaWatch
from django_prodserve.machine.cgroups import Cgroups, FileRoot
from django_prodserve.machine.quota import Throttling, throttling


def changes(*throttled: int, periods: int = 10) -> list[int]:
    """Return the seconds in which throttling begins or ends, by how many periods of each are throttled."""
    watch, found, sum_of_periods, sum_of_throttled = QuotaWatch(), [], 0, 0
    for second, more in enumerate(throttled):
        sum_of_periods, sum_of_throttled = sum_of_periods + periods, sum_of_throttled + more
        if watch.tick(float(second), Throttling(sum_of_periods, sum_of_throttled)):
            found.append(second)
    return found


def test_it_begins_within_three_seconds_and_ends_once_the_quota_has_sufficed() -> None:
    busy = [0] * 30 + [10] * 60
    assert changes(*busy) == [30 + 0]
    assert changes(*busy, *[0] * 60) == [30, 90 + int(WINDOW_SECONDS) - 1]


@pytest.mark.parametrize(
    ("throttled", "periods"),
    [
        pytest.param([0] * 60, 10, id="a quota that suffices"),
        pytest.param([10, *[0] * 60], 10, id="before the first tick"),
        pytest.param([0, *[1] * 9], 1, id="too few periods to tell"),
        pytest.param([0] * 20 + [5, 0] + [0] * 20, 10, id="a moment"),
        pytest.param([0] * 60, 0, id="no quota"),
    ],
)
def test_what_is_no_throttling(throttled: list[int], periods: int) -> None:
    assert changes(*throttled, periods=periods) == []


def test_a_load_that_comes_and_goes_is_one_throttling() -> None:
    assert changes(*([10] * 5 + [0] * 5) * 12)[1:] == []


def test_what_the_generation_before_has_reported_is_not_reported_again() -> None:
    watch = QuotaWatch()
    watch.share = 1.0
    told = [watch.tick(float(second), Throttling(10 * second, 10 * second)) for second in range(60)]
    assert not any(told)


def tree(root: Path, quotas: dict[str, tuple[int, int]]) -> Cgroups:
    """Write groups of v2, each with its quota in us and its number of throttled periods."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc" / "self" / "cgroup").write_text("0::/pod/app\n")
    mount = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    (root / "proc" / "self" / "mountinfo").write_text(mount)
    for name, (quota, throttled) in quotas.items():
        group = root / "sys" / "fs" / "cgroup" / name
        group.mkdir(parents=True, exist_ok=True)
        (group / "cpu.max").write_text(f"{quota or 'max'} 100000\n")
        stat = f"usage_usec 5\nnr_periods 100\nnr_throttled {throttled}\nthrottled_usec 2500000\n"
        (group / "cpu.stat").write_text(stat)
    return Cgroups.find(FileRoot(root))


@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"pod/app": (50_000, 7), "pod": (200_000, 9)}, Throttling(100, 7, 2.5)),
        ({"pod/app": (0, 0), "pod": (200_000, 9)}, Throttling(100, 9, 2.5)),
        ({"pod/app": (200_000, 7), "pod": (50_000, 9)}, Throttling(100, 9, 2.5)),
        ({"pod/app": (0, 7)}, Throttling()),
    ],
    ids=["own", "a parent's alone", "a parent's is tighter", "none"],
)
def test_the_tightest_quota_is_watched(
    tmp_path: Path, quotas: dict[str, tuple[int, int]], expected: Throttling
) -> None:
    assert throttling(tree(tmp_path, quotas)) == expected
