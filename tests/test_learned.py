"""What a day of traffic shows, how it is kept, and what a plan makes of it."""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.arbiter.learner import TrafficLearner
from django_prodserve.machine.detect import Machine
from django_prodserve.monitoring.learning import (
    DAY_SECONDS,
    SPAN_SECONDS,
    ServedBy,
    conclude,
    is_news,
    recent,
    replaces,
)
from django_prodserve.plan.explain import explain, startup_lines
from django_prodserve.plan.plan import Plan, make_plan
from django_prodserve.plan.sizing import DatabaseLimit
from django_prodserve.project import learned_file
from django_prodserve.project.detect import Project
from django_prodserve.project.learned import Kept, Learned, TrafficSpan, from_text, to_text
from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.growth_holds import GROWTH_HOLDS
from django_prodserve.scoreboard.slot import SERVING, Slot
from django_prodserve.utils import private_directory, private_files, working_directory
from django_prodserve.utils.units import GIB, MIB

from .facts import machine, postgresql, project, wishes
from .facts import plan as plain_plan

NOW = 1_795_200_000.0  # 2026-11-20, 18:40 UTC


def learned(**facts: Any) -> Learned:
    known: dict[str, Any] = {
        "profile": "io",
        "threads": 24,
        "workers": 2,
        "requests": 84_000,
        "when": NOW,
        "source": "traffic",
        "cpus": 2.0,
        "memory": 8 * GIB,
    }
    return Learned(**{**known, **facts})


def span(**facts: Any) -> TrafficSpan:
    """Return a quarter of an hour in which two workers mostly wait."""
    known: dict[str, Any] = {
        "end": NOW,
        "seconds": SPAN_SECONDS,
        "requests": 900,
        "samples": 300,
        "cpu": 3.0,
        "wait": 27.0,
        "used": 90.0,
        "latency": 900.0,
        "threads": {0: 600, 1: 900, 24: 300},
    }
    return TrafficSpan(**{**known, **facts})


def day(count: int = 96, **facts: Any) -> list[TrafficSpan]:
    return [span(end=NOW - (count - 1 - number) * SPAN_SECONDS, **facts) for number in range(count)]


def served_by(**facts: Any) -> ServedBy:
    known: dict[str, Any] = {
        "profile": "io",
        "workers": 2,
        "max_threads": 256,
        "cpus": 2.0,
        "memory": 8 * GIB,
    }
    return ServedBy(**{**known, **facts})


class TestADay:
    def test_it_shows_profile_and_threads(self) -> None:
        assert conclude(day(), served_by()) == learned(requests=96 * 900)

    @pytest.mark.parametrize(
        ("count", "requests", "enough"),
        [(15, 10_000, False), (16, 700, True), (16, 500, False), (79, 100, False), (80, 13, True)],
    )
    def test_enough_is_a_day_or_many_requests_in_hours(self, count: int, requests: int, enough: bool) -> None:
        assert (conclude(day(count, requests=requests), served_by()) is not None) == enough

    def test_spans_in_which_something_went_wrong_do_not_count(self) -> None:
        wrong = span(threads={200: 1800}, requests=9000, contradiction="requests were refused")
        found = conclude([wrong, *day()], served_by())
        assert found is not None
        assert (found.threads, found.requests) == (24, 96 * 900)
        assert conclude([*day(), wrong], served_by()) is None
        assert conclude(day(contradiction="requests were refused"), served_by()) is None

    def test_only_busy_hours_decide_on_the_threads(self) -> None:
        night = day(72, requests=100, threads={1: 1800})
        rush = [span(threads={3: 1000, 40: 750, 60: 50})] * 24
        found = conclude([*night, *rush], served_by())
        assert found is not None
        assert found.threads == 40

    def test_a_rate_of_seconds_is_not_the_highest(self) -> None:
        found = conclude([*day(), span(seconds=3.0, requests=500, threads={2: 6})], served_by())
        assert found is not None
        assert found.threads == 24

    def test_no_fewer_threads_than_the_profile_starts_with_and_no_more_than_the_plan_allows(self) -> None:
        few, many = conclude(day(threads={1: 9}), served_by()), conclude(day(), served_by(max_threads=20))
        assert few is not None
        assert many is not None
        assert (few.threads, many.threads) == (16, 20)

    @pytest.mark.parametrize(
        ("present", "facts", "profile"),
        [
            pytest.param("io", {"cpu": 27.0, "wait": 3.0, "used": 800.0}, "cpu", id="they compute"),
            pytest.param("cpu", {}, "io", id="they wait"),
            pytest.param("io", {"cpu": 27.0, "wait": 3.0}, "io", id="those of busy minutes wait"),
            pytest.param("io", {"samples": 5, "used": 800.0}, "cpu", id="no request runs alone"),
            pytest.param("io", {"cpu": 16.0, "wait": 14.0, "used": 500.0}, "io", id="io stays"),
            pytest.param("cpu", {"cpu": 14.0, "wait": 16.0, "used": 500.0}, "cpu", id="cpu stays"),
            pytest.param("cpu", {"latency": 0.0, "used": 0.0, "samples": 0}, "io", id="no time at all"),
        ],
    )
    def test_the_profile_follows_what_requests_do(
        self, present: str, facts: dict[str, Any], profile: str
    ) -> None:
        found = conclude(day(**facts), served_by(profile=present))
        assert found is not None
        assert found.profile == profile

    def test_a_quiet_day_replaces_a_busy_one_after_a_week(self) -> None:
        old, week = learned(requests=100_000), 7 * DAY_SECONDS
        assert replaces(learned(requests=50_000), old)
        assert not replaces(learned(requests=49_999), old)
        assert not replaces(learned(requests=10, when=NOW + week - 1), old)
        assert replaces(learned(requests=10, when=NOW + week), old)
        assert replaces(learned(requests=10), learned(source="tune"))
        assert replaces(learned(requests=10), learned(cpus=4.0))
        assert replaces(learned(), None)

    def test_small_changes_are_no_news(self) -> None:
        assert is_news(learned(), None)
        assert is_news(learned(profile="cpu"), learned())
        assert is_news(learned(threads=31), learned())
        assert not is_news(learned(threads=30), learned())

    def test_older_spans_and_those_of_a_wrong_clock_are_forgotten(self) -> None:
        old, new = span(end=NOW - DAY_SECONDS), span(end=NOW)
        assert recent([old, new, span(end=NOW + 1)], NOW) == [new]


class TestText:
    def test_it_names_its_source(self) -> None:
        assert str(learned()) == "learned from 84,000 requests on 2026-11-20"
        tuned = learned(source="tune", requests=1)
        assert str(tuned) == "learned by prodserve tune from 1 request on 2026-11-20"

    def test_the_file_holds_all(self) -> None:
        spans = (span(), span(contradiction="requests were refused"))
        assert from_text(to_text(learned(max_threads=64), spans), NOW) == Kept(learned(max_threads=64), spans)
        assert from_text(to_text(None, []), NOW) == Kept()

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            "null",
            '{"format": 1}',
            '{"format": 1, "learned": [], "spans": []}',
            "\udc80",
            "9" * 9,
        ],
    )
    def test_a_damaged_file_is_reported(self, text: str) -> None:
        assert from_text(text, NOW) == Kept(problem="is damaged")

    @pytest.mark.parametrize(
        "facts",
        [
            {"profile": "gpu"},
            {"threads": 0},
            {"threads": 2.5},
            {"threads": True},
            {"threads": "16"},
            {"max_threads": 8},
            {"workers": 0},
            {"requests": 0},
            {"source": "guess"},
            {"cpus": 0},
            {"memory": -1},
            {"when": float("nan")},
            {"when": None},
            {"more": 1},
        ],
    )
    def test_values_that_nobody_wrote_are_damage(self, facts: dict[str, Any]) -> None:
        document = json.loads(to_text(learned(), []))
        document["learned"] |= facts
        assert from_text(json.dumps(document), NOW).problem == "is damaged"

    @pytest.mark.parametrize(
        "facts", [{"seconds": -1}, {"threads": 3}, {"threads": [["a", 1]]}, {"end": "x"}, {"requests": None}]
    )
    def test_so_are_spans(self, facts: dict[str, Any]) -> None:
        document = json.loads(to_text(learned(), [span()]))
        document["spans"][0] |= facts
        assert from_text(json.dumps(document), NOW).problem == "is damaged"

    def test_another_format_and_the_future_are_not_used(self) -> None:
        text = to_text(learned(), []).replace('"format": 1', '"format": 2')
        assert from_text(text, NOW).problem == "has format 2, and this version of prodserve reads 1"
        early = from_text(to_text(learned(), []), NOW - DAY_SECONDS)
        assert early.problem == "is dated 2026-11-20, and today is 2026-11-19"
        far = from_text(to_text(learned(when=1e300), []), NOW)
        assert far.problem == "is dated far in the future, and today is 2026-11-20"

    def test_what_is_still_missing_is_shown(self) -> None:
        assert Kept().why_nothing == "nothing learned yet"
        assert Kept(spans=(span(contradiction="x"),)).why_nothing == "nothing learned yet"
        assert Kept(spans=(span(),)).why_nothing == "nothing learned yet: 900 requests in 15 min"
        assert Kept(spans=(span(),) * 8).why_nothing == "nothing learned yet: 7,200 requests in 2 h"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path / "XDG_CACHE_HOME" / "django-prodserve" / "learned"


class TestFile:
    def test_it_comes_back_and_others_cannot_leave_one_for_us(self, place: Path) -> None:
        assert learned_file.read(NOW) == Kept()
        learned_file.write(learned(), [span()])
        learned_file.write(learned(threads=30))
        assert learned_file.read(NOW) == Kept(learned(threads=30), (span(),))
        assert [path.stat().st_mode & 0o777 for path in place.iterdir()] == [0o600]
        (file,) = place.iterdir()
        file.write_text("{")
        assert learned_file.read(NOW) == Kept(problem=f"{file} is damaged")
        place.chmod(0o777)
        assert learned_file.read(NOW) == Kept()

    def test_a_start_reports_that_nothing_can_be_kept(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").touch()
        for module in (private_files, private_directory):
            monkeypatch.setattr(module, "bases", lambda: [tmp_path / "file"])
        made = plan(learned_file.read(NOW))
        assert made.apply_advice.why == f"not used: {learned_file.UNWRITABLE}"
        with pytest.raises(OSError, match="others may write to it"):
            learned_file.write(learned())

    def test_a_new_release_starts_with_it(
        self, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A release is a directory of its own, and ``current`` leads to the one that serves."""
        found = []
        link = tmp_path / "current"
        for number in (1, 2):
            release = tmp_path / "releases" / str(number)
            release.mkdir(parents=True)
            link.unlink(missing_ok=True)
            link.symlink_to(release)
            monkeypatch.chdir(release)
            monkeypatch.delenv("PWD", raising=False)
            monkeypatch.setattr(working_directory._State, "start", None)
            monkeypatch.setattr(working_directory._State, "here", None)
            found.append(learned_file.read(NOW).learned)
            learned_file.write(learned(threads=16 + number), [])
        assert found == [None, learned(threads=17)]
        monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "other.settings")
        assert learned_file.read(NOW) == Kept()


def plan(
    kept: Kept | None, seen: Machine | None = None, served: Project | None = None, **stated: Any
) -> Plan:
    before = plain_plan(seen, served).inputs
    options = wishes(**{"apply_advice": True, **stated})
    return make_plan(dataclasses.replace(before, options=options, kept=kept))


class TestPlan:
    def test_it_starts_with_what_was_learned_and_names_the_source(self) -> None:
        made = plan(Kept(learned(profile="cpu", threads=6)))
        words = "learned from 84,000 requests on 2026-11-20"
        for decision, value in ((made.profile, "cpu"), (made.threads, 6)):
            assert (decision.value, decision.why, decision.source) == (value, words, "learned")
        assert made.apply_advice.value is True
        assert made.apply_advice.why == words
        shown = explain(made, width=200)
        assert f"{words} [learned]" in shown
        assert shown.index("Set explicitly") < shown.index("apply-advice") < shown.index("Machine")
        assert shown.index("Processes") < shown.index("profile ")
        assert f"advice    {words}" in list(startup_lines(made, "none", "6.0"))

    def test_off_by_default_nothing_is_used(self) -> None:
        made = plan(None)
        off = plan(None, apply_advice=False)
        assert (off.threads, off.profile) == (made.threads, made.profile)
        assert off.apply_advice.value is False
        assert not any(line.startswith("advice") for line in startup_lines(off, "none", "6.0"))

    def test_more_threads_at_the_start_and_the_same_maximum(self) -> None:
        usual, made = plan(Kept()), plan(Kept(learned()))
        assert (usual.threads.value, made.threads.value) == (16, 24)
        assert made.max_threads.value == usual.max_threads.value > 24
        assert "more than 24 only while requests wait" in made.max_threads.why
        assert made.workers == usual.workers
        assert usual.apply_advice.why == "nothing learned yet"

    def test_another_number_of_workers_shares_the_threads(self) -> None:
        made = plan(Kept(learned(threads=25, max_threads=50)), workers="4")
        assert (made.threads.value, made.max_threads.value) == (13, 25)

    def test_a_maximum_that_was_measured_holds(self) -> None:
        made = plan(Kept(learned(threads=8, max_threads=12, source="tune")))
        assert (made.threads.value, made.max_threads.value) == (8, 12)
        assert made.max_threads.why == "learned by prodserve tune from 84,000 requests on 2026-11-20"
        assert not made.has_few_threads

    def test_explicit_options_win_and_the_plan_names_them(self) -> None:
        found = Kept(learned(profile="cpu", threads=6))
        made = plan(found, profile="io", threads="20")
        assert (made.profile.value, made.threads.value, made.max_threads.value) == ("io", 20, 20)
        assert made.apply_advice.why.endswith("; set explicitly: --profile and --threads")
        assert plan(found, threads="20").profile.value == "cpu"
        assert plan(found, profile="io").threads.value == 6

    def test_budgets_cap_it(self) -> None:
        served = project(databases=(postgresql(),))
        by_option = plan(Kept(learned(threads=60)), served=served, db_connections="40")
        assert (by_option.threads.value, by_option.max_threads.value) == (20, 20)
        assert by_option.threads.why.startswith("40 database connections / 2 workers; 60 were learned from")
        by_database = plan(Kept(learned(threads=60)), served=served).with_db_limit(
            DatabaseLimit("default", 97, 1)
        )
        assert by_database.threads.value == by_database.max_threads.value == 24
        nobody_asked = plan(Kept(learned()), served=served).threads
        assert nobody_asked.value == 16
        assert nobody_asked.why.startswith(
            "a start asks the database how many connections it allows; 24 were"
        )
        small = learned(threads=200, memory=256 * MIB)
        by_memory = plan(Kept(small), machine(2.0, 256 * MIB))
        usual = plan(Kept(), machine(2.0, 256 * MIB))
        assert by_memory.workers == usual.workers
        assert by_memory.threads.value == by_memory.max_threads.value == usual.max_threads.value < 40
        assert by_memory.threads.why.startswith("memory: ")

    @pytest.mark.parametrize(
        ("kept", "stated", "why"),
        [
            (Kept(problem="/x.json is damaged"), {}, "not used: /x.json is damaged"),
            (
                Kept(learned(cpus=4.0)),
                {},
                "not used: learned from 84,000 requests on 2026-11-20, but with 4 CPUs, 8 GiB; "
                "here are 2 CPUs, 8 GiB",
            ),
            (
                Kept(learned(memory=None)),
                {},
                "not used: learned from 84,000 requests on 2026-11-20, but with 2 CPUs, unknown memory; here "
                "are 2 CPUs, 8 GiB",
            ),
            (Kept(learned()), {"worker_class": "gthread"}, "gthread workers do not measure requests"),
        ],
    )
    def test_what_does_not_hold_here_is_not_used(self, kept: Kept, stated: dict[str, Any], why: str) -> None:
        made = plan(kept, **stated)
        assert made.apply_advice.why == why
        assert made.threads.value == made.inputs.options.profile.count("io") * 16
        assert made.threads.source == made.max_threads.source == "computed"

    def test_a_little_less_memory_is_the_same_machine(self) -> None:
        assert plan(Kept(learned(memory=8 * GIB - 100 * MIB))).threads.value == 24

    def test_a_start_shows_why_there_are_few_threads(self) -> None:
        made = plan(Kept(), db_connections="10")
        (line,) = [line for line in startup_lines(made, "none", "6.0") if line.startswith("workers")]
        assert "profile io (10 database connections / 2 workers)" in line
        (line,) = [line for line in startup_lines(plan(Kept()), "none", "6.0") if line.startswith("workers")]
        assert line.endswith("profile io; up to 256 threads")


@pytest.fixture
def board() -> Scoreboard:
    return Scoreboard.create(None, slots=4, rows=40, now=1.0)


class Traffic:
    """Two workers on a real scoreboard, and the arbiter's learner with a clock of our own."""

    def __init__(self, board: Scoreboard, log: logging.Logger, **stated: Any) -> None:
        self.slots = [board.claim() for _ in range(2)]
        for number, slot in enumerate(self.slots):
            slot.start(100 + number, 1, 16, now=1.0)
            slot.state = SERVING
            for row in range(40):
                slot.thread(row, row + 1)
        pool: Any = SimpleNamespace(active=lambda: [SimpleNamespace(slot=slot) for slot in self.slots])
        self.learner = TrafficLearner(board, pool, plan(Kept(), **stated), log)
        self.now, self.wall = 100.0, NOW
        self.lines: list[str] = []

    def second(self, *, busy: int = 0, ended: int = 0, status: int = 200, throttled: bool = False) -> None:
        """Let a second pass in which this many requests run in each worker, and some end."""
        for slot in self.slots:
            for row in range(busy):
                slot.request_started(row, self.now, "GET", "/", "")
            for _ in range(ended):
                slot.count_request(slot.rows[30], self.now, status, self.now - 1.0, 0.0, "GET")
                slot.sample(30, 0.1, 0.9, 0.0)
            slot.cpu_share = 0.1 * ended
        self.now, self.wall = self.now + 1.0, self.wall + 1.0
        if line := self.learner.tick(self.now, self.wall, throttled=throttled):
            self.lines.append(line)
        for slot in self.slots:
            self.idle(slot)

    def idle(self, slot: Slot) -> None:
        for row in slot.rows:
            slot.seconds[row] = 0.0

    def quarter(self, **facts: Any) -> None:
        for _ in range(int(SPAN_SECONDS)):
            self.second(**facts)


@pytest.fixture
def traffic(board: Scoreboard, place: Path) -> Traffic:
    return Traffic(board, logging.getLogger("learner"))


class TestLearner:
    def test_four_busy_hours_on_a_real_scoreboard_are_learned(self, traffic: Traffic) -> None:
        """Seconds pass as fast as they can be counted."""
        for _ in range(15):
            traffic.quarter(busy=21, ended=1)
        kept = learned_file.read(traffic.wall)
        assert kept.learned is None
        assert kept.why_nothing == "nothing learned yet: 25,202 requests in 3.5 h"
        traffic.quarter(busy=21, ended=1)
        traffic.second()
        kept = learned_file.read(traffic.wall)
        assert kept.learned is not None
        assert (kept.learned.profile, kept.learned.threads, kept.learned.source) == ("io", 21, "traffic")
        assert (kept.learned.cpus, kept.learned.memory, kept.learned.workers) == (2.0, 8 * GIB, 2)
        assert kept.learned.requests > 28_000
        assert len(traffic.lines) == 1
        assert traffic.lines[0].startswith(
            "The next start begins with profile io and 21 threads in each worker: learned from 28,"
        )
        first = kept.spans[0]
        assert first.used == pytest.approx(2 * 0.1 * SPAN_SECONDS, rel=0.01)
        assert (first.latency, first.cpu) == (pytest.approx(1800, rel=0.01), pytest.approx(180, rel=0.01))
        assert plan(learned_file.read(traffic.wall)).threads.value == 21

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            ("throttled", "the CPU quota throttled the server"),
            ("slower", "requests took longer than usual"),
            ("refused", "requests were refused"),
            ("failed", "too many requests failed"),
        ],
    )
    def test_a_contradicting_moment_shows_nothing(self, traffic: Traffic, fault: str, reason: str) -> None:
        traffic.second(ended=1)
        traffic.second(ended=1, throttled=fault == "throttled")
        if fault == "slower":
            traffic.slots[1].growth_hold = [*GROWTH_HOLDS].index("slower")
        traffic.second(ended=1, status=500 if fault == "failed" else 200)
        traffic.slots[1].growth_hold = 0
        traffic.slots[0].refused += fault == "refused"
        for _ in range(7):
            traffic.second(ended=1)
        traffic.learner.end(traffic.now, traffic.wall)
        assert [found.contradiction for found in learned_file.read(traffic.wall).spans] == [reason]

    def test_the_end_of_a_generation_keeps_what_it_has_seen(self, traffic: Traffic) -> None:
        learned_file.write(None, [dataclasses.replace(each, requests=13) for each in day(80)])
        for _ in range(10):
            traffic.second(ended=1)
        line = traffic.learner.end(traffic.now, traffic.wall)
        assert line.endswith("learned from 1,060 requests on 2026-11-20")
        assert traffic.learner.end(traffic.now, traffic.wall) == ""

    def test_what_tune_has_found_holds_for_a_day_of_traffic(self, traffic: Traffic) -> None:
        tuned = learned(source="tune", threads=64, when=NOW - 60.0)
        learned_file.write(tuned, day())
        traffic.quarter(busy=21, ended=1)
        traffic.second()
        assert learned_file.read(traffic.wall).learned == tuned
        for _ in range(15):
            traffic.quarter(busy=21, ended=1)
        found = learned_file.read(traffic.wall).learned
        assert found is not None
        assert (found.source, found.threads) == ("traffic", 21)

    def test_without_the_option_nothing_is_written(self, board: Scoreboard, place: Path) -> None:
        for stated in ({"apply_advice": False}, {"worker_class": "gthread"}):
            quiet = Traffic(board, logging.getLogger("learner"), **stated)
            quiet.quarter(ended=1)
            quiet.second()
            quiet.learner.end(quiet.now, quiet.wall)
        assert not place.exists()

    def test_where_nothing_can_be_written_there_is_one_warning(
        self, traffic: Traffic, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(private_files, "bases", lambda: [Path("/proc/nowhere")])
        for _ in range(3):
            traffic.quarter()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert caplog.messages[0].startswith("Cannot keep what the traffic shows: ")
        assert traffic.lines == []

    def test_a_second_costs_next_to_nothing(self, traffic: Traffic) -> None:
        taken = []
        for _ in range(20):
            began = time.process_time()
            for _ in range(10):
                traffic.learner.tick(traffic.now, traffic.wall, throttled=False)
            taken.append((time.process_time() - began) / 10)
        assert min(taken) < 0.002  # 0.00002 on a quiet machine, once a second
