"""What a project takes in memory: read, computed, kept from one start to the next."""

from __future__ import annotations

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from django_prodserve.errors import ProdserveError
from django_prodserve.machine.proc_memory import MemoryReading, read_memory
from django_prodserve.plan.sizing import Sizing
from django_prodserve.project import footprint_cache
from django_prodserve.project.footprint import Footprint, footprint
from django_prodserve.utils import private_files
from django_prodserve.utils.fork import ChildError, run_in_fork
from django_prodserve.utils.units import MIB

from .facts import machine, plan

ROLLUP = """55d0c0000000-7ffd00000000 ---p 00000000 00:00 0    [rollup]
Rss:               60000 kB
Pss:               40000 kB
Pss_Dirty:         30000 kB
Private_Clean:      1000 kB
Private_Dirty:      3000 kB
Swap:                  0 kB
"""
WAY = (True, "/prodserve-warm-up")


def found(master: int = 41, worker: int = 16, **facts: Any) -> Footprint:
    known = {"how": "PSS", "when": 1_800_000_000.0}
    return Footprint(master=master * MIB, worker=worker * MIB, **{**known, **facts})


class TestReading:
    def test_the_kernel_tells_shares(self, tmp_path: Path) -> None:
        (tmp_path / "smaps_rollup").write_text(ROLLUP)
        assert read_memory(tmp_path) == MemoryReading(40000 * 1024, 4000 * 1024)

    @pytest.mark.parametrize("text", ["", "Pss: many kB\n", "Pss: 1 kB\n"])
    def test_where_it_does_not_the_whole_counts(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "smaps_rollup").write_text(text)
        reading = read_memory(tmp_path)
        assert reading.private is None
        assert reading.size > 10 * MIB

    def test_without_the_file_too(self, tmp_path: Path) -> None:
        assert read_memory(tmp_path).private is None


@pytest.mark.parametrize(
    ("trial", "preloaded", "worker"),
    [
        pytest.param(3, True, 15, id="a trial's own memory grows five times"),
        pytest.param(15, True, 20, id="a heavy page: no more than half of the master is copied"),
        pytest.param(25, False, 45, id="without preload all of it is the worker's own"),
    ],
)
def test_what_a_worker_will_take(trial: int, preloaded: bool, worker: int) -> None:
    master = MemoryReading(40 * MIB, 39 * MIB)
    made = footprint(master, MemoryReading(22 * MIB, trial * MIB), preloaded=preloaded)
    assert (made.master, made.worker, made.how) == (40 * MIB, worker * MIB, "PSS")


def test_by_rss_each_worker_counts_as_a_whole_and_the_plan_says_so() -> None:
    made = footprint(MemoryReading(40 * MIB, None), MemoryReading(42 * MIB, None), preloaded=True)
    assert (made.master, made.worker, made.how) == (40 * MIB, 42 * MIB, "RSS")
    sizing = Sizing(cpus=2, memory=512 * MIB, profile="io", worker_class="gthread", footprint=made)
    assert "RSS, as PSS cannot be read here" in sizing.master_memory().why


TRIAL = """
from django_prodserve.project.footprint import measure
ballast = bytearray(20 * 2**20)
def request():
    ballast[::4096] = b"x" * len(ballast[::4096])  # every page of it becomes the child's own
idle, busy = measure(lambda: None), measure(request)
assert not any(ballast[:4096])
print(idle.worker, busy.worker)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PSS is Linux")
def test_a_trial_fork_is_measured_with_what_it_touches() -> None:
    """In a small process of its own: this one holds whatever other tests and coverage have left."""
    environ = {name: text for name, text in os.environ.items() if not name.startswith("COVERAGE_")}
    command = [sys.executable, "-c", TRIAL]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    idle, busy = map(int, done.stdout.split())
    assert busy - idle >= 8 * MIB


@pytest.mark.parametrize(
    ("stated", "worker"),
    [
        ({}, 48),
        ({"threads": 4}, 24),
        ({"profile": "cpu"}, 24),
        ({"worker_class": "sync"}, 24),
        ({"threads": 40}, 96),
    ],
)
def test_threads_count_and_sums_are_rounded_up_to_eight(stated: dict[str, Any], worker: int) -> None:
    made = plan(machine(2), **stated).replan(found())
    assert (made.master_memory.value, made.worker_memory.value) == (48 * MIB, worker * MIB)


def test_a_measurement_decides_and_says_when_it_was_made() -> None:
    seen = machine(8, 256 * MIB)
    assert plan(seen).workers.value == 3
    made = plan(seen).replan(found(98, 38))
    assert made.workers.value == 1
    assert "memory holds 1 (measured 2027-01-15 08:00 UTC: master 104 MiB, 72 MiB each" in made.workers.why
    assert any("Only one worker fits into 256 MiB" in found.message for found in made.warnings)
    assert plan(seen, workers=4).replan(found(98, 38)).workers.value == 4
    assert plan(seen).replan(found(38, 3)).workers.value == 4


def test_a_second_plan_differs_by_the_measurement_alone() -> None:
    first = plan(machine(8, 256 * MIB), static="no", profile="cpu")
    second = first.replan(found(98, 38))
    assert first.workers.value != second.workers.value
    assert dataclasses.replace(second.inputs, footprint=None) == first.inputs
    sized = {"workers", "threads", "max_threads", "master_memory", "worker_memory", "database"}
    assert {name for name, decision in second.decisions() if decision != getattr(first, name)} <= sized
    assert second.replan(found(98, 38)) == second


class TestKept:
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
        return tmp_path / "cache" / "django-prodserve" / "footprints"

    @pytest.fixture
    def views(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A module of the project's that is loaded."""
        file = tmp_path / "views.py"
        file.write_text("one = 1\n")
        module = ModuleType("views_of_a_test")
        module.__file__ = str(file)
        monkeypatch.setitem(sys.modules, "views_of_a_test", module)
        return file

    def test_it_comes_back(self, views: Path, place: Path) -> None:
        assert footprint_cache.load(WAY) is None
        assert footprint_cache.store(found(), WAY)
        assert footprint_cache.load(WAY) == found()
        assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600]

    def test_other_code_is_not_it(self, views: Path, settings: Any) -> None:
        footprint_cache.store(found(), WAY)
        assert footprint_cache.load((False, "/prodserve-warm-up")) is None
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "more"]
        assert footprint_cache.load(WAY) is None
        settings.MIDDLEWARE = settings.MIDDLEWARE[:-1]
        assert footprint_cache.load(WAY)
        views.write_text("two = 22\n")
        assert footprint_cache.load(WAY) is None
        footprint_cache.store(found(), WAY)
        views.unlink()
        assert footprint_cache.load(WAY) is None

    def test_a_newly_installed_package_may_be_other_code(
        self, views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packages = tmp_path / "site-packages"
        packages.mkdir()
        monkeypatch.syspath_prepend(packages)
        footprint_cache.store(found(), WAY)
        assert footprint_cache.load(WAY)
        (packages / "new").mkdir()
        os.utime(packages, (1, 1))
        assert footprint_cache.load(WAY) is None

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"code": 1, "modules": 2}'])
    def test_a_damaged_file_is_no_measurement(self, views: Path, place: Path, text: str) -> None:
        footprint_cache.store(found(), WAY)
        next(place.iterdir()).write_text(text)
        assert footprint_cache.load(WAY) is None

    def test_others_cannot_leave_one_for_us(self, views: Path, place: Path) -> None:
        footprint_cache.store(found(), WAY)
        place.chmod(0o777)
        assert footprint_cache.load(WAY) is None

    def test_what_gone_projects_left_is_removed(self, views: Path, place: Path) -> None:
        place.mkdir(parents=True, mode=0o700)
        gone = place / "gone.json"
        gone.write_text("{}")
        os.utime(gone, (time.time() - 31 * 86400,) * 2)
        footprint_cache.store(found(), WAY)
        assert not gone.exists()
        assert len(list(place.iterdir())) == 1

    def test_where_nothing_can_be_written_nothing_is_kept(
        self, views: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(private_files, "bases", lambda: [Path("/proc/nowhere")])
        assert not footprint_cache.store(found(), WAY)

    def test_asking_costs_less_than_a_start_notices(self, views: Path) -> None:
        modules, taken = [__file__] * 3000, []
        for _ in range(5):
            started = time.process_time()
            footprint_cache.code(modules, WAY)
            taken.append(time.process_time() - started)
        assert min(taken) < 0.1  # 0.01 on a quiet machine


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("both")


def leave() -> None:
    sys.exit("no key")


def break_down() -> None:
    raise Unpicklable(1, 2)


class TestInAChild:
    def test_results_and_errors_come_back(self) -> None:
        assert run_in_fork(lambda: ["lines"] * 50_000) == ["lines"] * 50_000
        with pytest.raises(ProdserveError, match=r"broken\n  mend it"):
            run_in_fork(lambda: (_ for _ in ()).throw(ProdserveError("broken", "mend it")))

    @pytest.mark.parametrize(
        ("work", "said"),
        [
            (leave, "SystemExit"),
            (break_down, "Unpicklable"),
            (lambda: lambda: 1, "lambda"),
            (lambda: os.kill(os.getpid(), signal.SIGKILL), "status -9"),
        ],
    )
    def test_what_cannot_is_told(self, work: Any, said: str) -> None:
        with pytest.raises((ChildError, AttributeError, pickle.PicklingError), match=said):
            run_in_fork(work)

    def test_processes_that_it_leaves_end_with_it(self) -> None:
        """They have the pipe, too, so that its end is not that of the answer."""
        receiving, sending = os.pipe()

        def work() -> int:
            pid = os.fork()
            if not pid:
                signal.pause()
            return pid

        assert run_in_fork(work, patience=10) > 0
        os.close(sending)
        assert os.read(receiving, 1) == b""  # the last holder is gone
        os.close(receiving)

    def test_patience_ends(self) -> None:
        with pytest.raises(ChildError, match=r"more than 0\.1 s"):
            run_in_fork(signal.pause, patience=0.1)
        with pytest.raises(ChildProcessError):
            os.waitpid(-1, os.WNOHANG)
