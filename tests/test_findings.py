"""What the verdict says, in which words and tense, and what to do about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from django_prodserve.monitoring.findings import (
    REMEDIES,
    Finding,
    Observed,
    evaluate,
    finding,
)
from django_prodserve.monitoring.rates import Point, latest
from django_prodserve.monitoring.snapshot import with_advice
from django_prodserve.scoreboard.errors import RequestError
from django_prodserve.scoreboard.events import BAD, CRASHES, SEVERITY, WARN, Event
from django_prodserve.scoreboard.history import Sample
from django_prodserve.scoreboard.routes import NO_ROUTE, OTHERS, RouteTime
from django_prodserve.scoreboard.slot import BUCKETS
from django_prodserve.tls.expiry import Expiry

WORKER: dict[str, Any] = {
    **{"pid": 12, "state": "serving", "threads": 4, "busy": 0, "memory": 0, "oldest": None}
}
BUSY = {**WORKER, "busy": 4}
BIG = {**WORKER, "pid": 13, "memory": 60}
NOW = Point(time=1000.0, seconds=5.0, requests=10.0, classes=(0.0, 10.0, 0.0, 0.0, 0.0), refused=0.0)
MINUTE = replace(NOW, seconds=60.0)
EVIL = "/\x1b[2J<script>"
CLOCK = 50_602.0
"""14:03:22 UTC."""


DAY = 86400.0
SHOP = Expiry(("shop.example", "www.shop.example"), "/c.pem", 1_800_000_000.0)
FAILED = RequestError(CLOCK, 500, "GET", EVIL, "shop.urls.boom", "shop.Broken", "id")
SLOW, QUICK = RouteTime("shop.urls.slow", 20, 30.0, 4.0), RouteTime("shop.urls.index", 1000, 10.0, 0.1)


def errors(share: float) -> Point:
    """Return a minute of 1,200 responses, of which these are errors."""
    return replace(MINUTE, requests=20.0, classes=(0, 20 * (1 - share), 0, 0, 20 * share))


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, []),
        ({"workers": []}, [(BAD, "No worker serves requests")]),
        ({"certificates": [SHOP], "wall": SHOP.expires - 15 * DAY}, []),
        (
            {"certificates": [SHOP], "wall": SHOP.expires - 9 * DAY},
            [(WARN, "The certificate of shop.example (/c.pem) expires on 2027-01-15, in 9 days")],
        ),
        (
            {"certificates": [SHOP._replace(refused="no key")], "wall": SHOP.expires + 3 * DAY},
            [
                (BAD, "The certificate of shop.example (/c.pem) expired on 2027-01-15, 3 days ago: clients"),
                (WARN, "The new files of the certificate of shop.example are not used: no key"),
            ],
        ),
        ({"workers": [{**WORKER, "state": "retiring"}]}, [(BAD, "No worker serves requests")]),
        (
            {"workers": [BUSY], "now": replace(NOW, refused=2712.3)},
            [(BAD, "Overloaded: 2,712 requests/s are rejected with 503, 4 of 4 threads are busy")],
        ),
        (
            {"workers": [BUSY], "events": [Event(CLOCK, "overload", "x")], "wall": CLOCK + 300},
            [(BAD, "Overloaded since 14:03:22 UTC: 0 requests/s")],
        ),
        (
            {
                "events": [
                    Event(1.0, "overload", "x"),
                    Event(CLOCK, "overload over", "Overload over after 9 s"),
                ],
                "wall": CLOCK + 59,
            },
            [(WARN, "14:03:22 UTC: Overload over after 9 s")],
        ),
        ({"events": [Event(CLOCK, "overload over", "x")], "wall": CLOCK + 60}, []),
        (
            {"minute": replace(MINUTE, refused=0.5)},
            [(WARN, "30 requests rejected with 503 in the last minute")],
        ),
        (
            {"workers": [BUSY], "waiting": 2, "memory_used": 85},
            [
                (WARN, "All 4 threads are busy, and 2 requests wait"),
                (WARN, "85 B of 100 B memory are in use"),
            ],
        ),
        ({"workers": [BUSY], "waiting": 1}, [(WARN, "All 4 threads are busy, and 1 request waits")]),
        (
            {"workers": [WORKER, BIG], "memory_used": 80},
            [(WARN, "80 B of 100 B memory are in use; worker 13 uses 60 B")],
        ),
        (
            {"events": [Event(CLOCK, "memory", "Worker 12 uses 60 B; replacing it")], "wall": CLOCK + 59},
            [(WARN, "14:03:22 UTC: Worker 12 uses 60 B; replacing it")],
        ),
        ({"events": [Event(CLOCK, "memory", "x")], "wall": CLOCK + 60}, []),
        (
            {
                "events": [Event(CLOCK - 9, "memory", "old"), Event(CLOCK, "memory", "Worker 12 uses 60 B")],
                "wall": CLOCK + 3500,
            },
            [(WARN, "2 workers were replaced for their memory within the last hour, the last at 14:03:22")],
        ),
        (
            {"minute": replace(MINUTE, queued95=0.5), "memory_used": 95},
            [(BAD, "95 B of 100 B"), (WARN, "In the last minute, 1 request in 20 waited 0.5 s or longer")],
        ),
        (
            {"minute": errors(0.1)},
            [(BAD, "10 % of responses in the last minute are errors (5xx): 120 of 1,200")],
        ),
        (
            {"minute": errors(0.01)},
            [(WARN, "1 % of responses in the last minute are errors (5xx): 12 of 1,200")],
        ),
        ({"minute": errors(1 / 1200)}, [(WARN, "0.08 % of responses")]),
        (
            {"minute": errors(0.1), "errors": [FAILED], "wall": CLOCK + 59},
            [(BAD, "120 of 1,200; the last: shop.Broken in shop.urls.boom, GET /\\x1b[2J<script>")],
        ),
        (
            {"minute": errors(0.1), "errors": [FAILED._replace(route="", exception="")], "wall": CLOCK},
            [(BAD, "120 of 1,200; the last: 500, GET /")],
        ),
        ({"minute": errors(0.1), "errors": [FAILED], "wall": CLOCK + 60}, [(BAD, "120 of 1,200")]),
        (
            {"workers": [BUSY], "now": replace(NOW, refused=9.0), "routes": [SLOW, QUICK]},
            [(BAD, "4 of 4 threads are busy; 75 % of the time goes to the route shop.urls.slow (1.5 s a")],
        ),
        (
            {"workers": [BUSY], "waiting": 2, "routes": [SLOW, QUICK]},
            [(WARN, "and 2 requests wait; 75 % of the time goes to the route shop.urls.slow")],
        ),
        (
            {"minute": replace(MINUTE, queued95=0.5), "routes": [SLOW]},
            [(WARN, "0.5 s or longer for a thread; 100 % of the time goes to the route shop.urls.slow")],
        ),
        ({"minute": replace(MINUTE, requests=2 / 60, classes=(0, 0, 0, 0, 2 / 60))}, [(WARN, "100 % of")]),
        (
            {
                "events": [
                    Event(CLOCK - 100, "killed", "old"),
                    Event(CLOCK - 30, "boot", "first"),
                    Event(CLOCK, "hung", "Worker 3 hung"),
                    Event(CLOCK + 1, "slow", "x"),
                ],
                "wall": CLOCK + 20,
            },
            [(BAD, "14:03:22 UTC: Worker 3 hung (and 1 more in the last minute)")],
        ),
        (
            {"events": [Event(CLOCK, "throttled", "The CPU quota throttles")], "wall": CLOCK + 9000},
            [(WARN, "The CPU quota throttles since 14:03:22 UTC")],
        ),
        (
            {"events": [Event(CLOCK, "throttling over", "Enough again")], "wall": CLOCK + 9},
            [(WARN, "14:03:22 UTC: Enough again")],
        ),
        ({"events": [Event(CLOCK, "throttling over", "Enough again")], "wall": CLOCK + 90}, []),
        (
            {"workers": [{**WORKER, "oldest": {"method": "GET", "path": EVIL, "age": 44.2}}]},
            [(WARN, "A request has been running for 44 s: GET /\\x1b[2J<script>")],
        ),
        (
            {"failed_reload": "No module x\n  See:  shop/urls.py, line 9: import x\n  More: y"},
            [
                (
                    WARN,
                    "The last reload failed, and the release before it keeps serving: "
                    "No module x (shop/urls.py, line 9: import x)",
                )
            ],
        ),
        (
            {"failed_reload": "No module\nnamed x", "events": [Event(CLOCK, "reload failed", "")]},
            [
                (
                    WARN,
                    "The last reload failed (14:03:22 UTC), and the release before it keeps serving: ",
                )
            ],
        ),
    ],
)
def test_what_is_wrong_is_said_the_worst_first(
    facts: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    usual = {"wall": 1000.0, "workers": [WORKER], "now": NOW, "minute": MINUTE, "memory_limit": 100}
    found = evaluate(Observed(**{**usual, **facts}))
    assert [one.level for one in found] == [level for level, _ in expected]
    for one, (_, text) in zip(found, expected, strict=True):
        assert text in one.text
        assert (one.action, one.help) == REMEDIES[one.kind]


@pytest.mark.parametrize(
    "routes",
    [
        pytest.param([], id="none"),
        pytest.param([SLOW, SLOW._replace(route="another"), QUICK], id="none takes most of the time"),
        pytest.param([SLOW._replace(route=OTHERS)], id="those without a row"),
        pytest.param([SLOW._replace(route=NO_ROUTE)], id="those without a route"),
        pytest.param([SLOW._replace(seconds=0.0)], id="no time at all"),
    ],
)
def test_a_route_is_named_only_if_it_takes_most_of_the_time(routes: list[RouteTime]) -> None:
    seen = Observed(wall=1000.0, workers=[BUSY], now=NOW, minute=MINUTE, waiting=1, routes=routes)
    assert [one.text for one in evaluate(seen)] == ["All 4 threads are busy, and 1 request waits"]


def test_one_error_in_five_seconds_does_not_switch_the_verdict() -> None:
    """Five requests a second all night, of which one fails every five seconds."""

    def sample(second: int) -> Sample:
        return Sample(
            **{"time": 1000.0 + second, "clock": float(second), "board": 1, "refused": 0, "aborted": 0},
            **{"busy": 0, "waiting": 0, "memory": 0, "latency": (0,) * BUCKETS, "queued": (0,) * BUCKETS},
            classes=(0, 5 * second - second // 5, 0, 0, second // 5),
        )

    samples = [sample(second) for second in range(200)]
    verdicts = []
    for second in range(70, 200):
        minute = latest(samples[second - 64 : second + 1], 60.0)
        seen = Observed(wall=1000.0 + second, workers=[WORKER], now=NOW, minute=minute)
        verdicts.append([(finding.level, finding.kind) for finding in evaluate(seen)])
    assert verdicts == [[(WARN, "errors")]] * 130


def test_every_crash_has_a_remedy_and_every_remedy_is_one_sentence() -> None:
    assert {*CRASHES} <= REMEDIES.keys() & SEVERITY.keys()
    for remedy in REMEDIES.values():
        assert remedy.action.endswith(".")
        assert remedy.action.count(". ") == 0
        assert len(remedy.action.split()) <= 25
        assert remedy.help == remedy.help.strip() != ""


ADVICE = {"advice": "Consider --threads 32: requests wait", "advice_kind": "threads"}


@pytest.mark.parametrize(
    ("findings", "summary", "shown", "action"),
    [
        ([], ADVICE, ADVICE["advice"], ""),
        ([finding(WARN, "slow", "x")], ADVICE, ADVICE["advice"], REMEDIES["slow"].action),
        ([finding(WARN, "memory", "x")], ADVICE, "", REMEDIES["memory"].action),
        ([finding(WARN, "leak", "x")], ADVICE, "", REMEDIES["leak"].action),
        ([finding(WARN, "throttled", "x")], ADVICE, "", REMEDIES["throttled"].action),
        ([finding(BAD, "errors", "x")], ADVICE, "", REMEDIES["errors"].action),
        ([finding(WARN, "waiting", "x")], ADVICE, "", ADVICE["advice"]),
        ([finding(BAD, "overload", "x")], ADVICE, "", ADVICE["advice"]),
        (
            [finding(BAD, "overload", "x")],
            {"advice": "Consider --profile cpu: 2 threads are enough", "advice_kind": "profile cpu"},
            "",
            REMEDIES["overload"].action,
        ),
        ([finding(WARN, "waiting", "x")], {}, "", REMEDIES["waiting"].action),
    ],
)
def test_advice_never_contradicts_what_is_wrong(
    findings: list[Finding], summary: dict[str, str], shown: str, action: str
) -> None:
    found, advice = with_advice(findings, summary)
    assert advice == shown
    assert [one.action for one in found] == [action] * len(findings)
