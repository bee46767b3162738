"""What ``status`` and ``status --watch`` make of a snapshot, at several widths."""

from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.cli.lines import loop_words, verdict, wrapped
from django_prodserve.cli.status import format_text
from django_prodserve.cli.watch import render
from django_prodserve.monitoring.findings import REMEDIES, finding
from django_prodserve.monitoring.snapshot import busiest_routes
from django_prodserve.scoreboard.events import BAD, WARN
from django_prodserve.scoreboard.routes import RouteTime
from django_prodserve.tls.expiry import Expiry

LONG = "A request has run for 12 s: GET /reports/yearly/ which is a sentence that no narrow terminal holds"
WORKER = {
    **{
        "pid": 4711,
        "state": "serving",
        "age": 60.0,
        "threads": 16,
        "concurrency_limit": 16,
        "busy": 1,
        "async": 0,
        "loop": None,
        "websockets": 0,
    },
    **{
        "queue": 0,
        "connections": 2,
        "requests": 9876,
        "memory": 64 << 20,
        "cpu": 1.0,
        "share": 0.5,
        "cpu_share": 0.5,
        "max_threads": 16,
        "growth_hold": "",
    },
    "oldest": None,
}
RATES = {
    **{"requests": 57.0, "classes": (0.0, 57.0, 0.0, 0.0, 0.0), "refused": 2500.0, "p50": 0.01, "p95": 0.02},
    **{"p99": 0.03, "queued95": 2.0, "busy": 16, "waiting": 4, "memory": 64 << 20},
}


def known(**facts: Any) -> dict[str, Any]:
    return {
        **{"pid": 4700, "bind": ["127.0.0.1:8000"], "generation": 7, "uptime": 23.0, "workers": [WORKER]},
        **{
            "server_uptime": 4 * 86400.0,
            "rates": RATES,
            "findings": [],
            "restarts": {},
            "processes": [],
            "events": [],
        },
        **{"requests": 0, "statuses": {}, "refused": 0, "aborted": 0, "memory_limit": None, "advice": ""},
        **{"routes": []},
        **facts,
    }


def screen(width: int, **facts: Any) -> list[str]:
    points = [RATES, {**RATES, "refused": 0.0}]
    return [line for _, line in render(known(**facts), points, "12:00:00Z", width, 40)]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_findings_and_advice_are_wrapped_never_cut(width: int) -> None:
    found = {"level": "bad", "text": LONG, "action": "Do what helps.", "help": "slow"}
    lines = screen(width, findings=[found], advice=LONG)
    assert max(map(len, lines)) <= width
    whole = " ".join(" ".join(lines).split())
    assert f"!! {LONG} Do what helps. More: prodserve help slow" in whole
    assert f"advice {LONG}" in whole


def test_a_narrow_terminal_has_fewer_columns_of_whole_words() -> None:
    tables = {width: next(line for line in screen(width) if line.startswith("worker ")) for width in (80, 60)}
    assert tables[80].split() == [
        "worker",
        "state",
        "busy",
        "limit",
        "wait",
        "CPU",
        "memory",
        "conns",
        "requests",
    ]
    assert tables[60].split() == ["worker", "state", "busy", "wait", "CPU", "memory"]
    assert any(line.startswith("4711 ") for line in screen(60))


def test_refused_requests_are_in_the_rate() -> None:
    lines = screen(80)
    assert any(line.startswith("requests  2,557/s ") and "rejected 2,500" in line for line in lines)
    assert any(line.startswith("req/s ") and line.endswith("up to 2,557/s") for line in lines)


def test_little_memory_is_an_empty_bar() -> None:
    (memory,) = [line for line in screen(80, memory_limit=24 << 30) if line.startswith("memory ")]
    assert "[....................] 64 MiB of 24 GiB" in memory


def test_status_begins_with_the_verdict_and_what_to_do_and_names_both_ages() -> None:
    findings = [
        finding(BAD, "memory", "Memory is short")._asdict(),
        finding(WARN, "slow", "It runs")._asdict(),
    ]
    lines = [*format_text(known(findings=findings), 0.0)]
    assert lines[:4] == [
        ("bad", "!! Memory is short"),
        ("", f"   {REMEDIES['memory'].action} More: prodserve help memory"),
        ("warn", "!  It runs"),
        ("", f"   {REMEDIES['slow'].action} More: prodserve help slow"),
    ]
    assert lines[4][1] == "server    pid 4700 on 127.0.0.1:8000, up 4 days"
    assert lines[5][1] == "release   generation 7, loaded 23 s ago"
    assert next(format_text(known(), 0.0)) == ("ok", "Serving normally")
    assert [verdict(findings), verdict(findings[1:]), verdict([])] == ["bad", "warn", "ok"]


def test_status_says_until_when_certificates_are_valid() -> None:
    found = [Expiry((f"shop{number}.example",), "/c.pem", number * 86400.0).as_dict() for number in (3, 40)]
    lines = [line for _, line in format_text(known(certificates=found), 0.0)]
    at = lines.index("tls       shop3.example expires on 1970-01-04, in 3 days")
    assert lines[at + 1] == "          shop40.example expires on 1970-02-10, in 40 days"


@pytest.mark.parametrize(("age", "is_told"), [(0.2, False), (3.0, True)])
def test_status_names_the_command_that_shows_a_slow_requests_stack(age: float, is_told: bool) -> None:
    oldest = {"method": "GET", "path": "/slow/", "id": "7", "age": age}
    lines = [line for _, line in format_text(known(workers=[{**WORKER, "oldest": oldest}]), 0.0)]
    assert any("GET /slow/" in line for line in lines)
    assert ("stacks    prodserve dump shows what these requests do" in lines) is is_told


def test_status_shows_the_three_routes_that_take_the_most_time() -> None:
    found = [RouteTime("shop.urls.slow", 1234, 2468.0, 31.0), RouteTime("admin:index", 1, 0.012, 0.012)]
    routes = busiest_routes([*found, *(RouteTime(f"shop:{name}", 3, 0.0, 0.0) for name in "abc")])
    lines = [line for _, line in format_text(known(routes=routes), 0.0) if " of the time, " in line]
    assert lines == [
        "routes    shop.urls.slow: 100 % of the time, 1,234 requests, mean 2.0 s, max 31.0 s",
        "          admin:index: 0.01 % of the time, 1 request, mean 12 ms, max 12 ms",
        "          shop:a: 0 % of the time, 3 requests, mean 0.0 ms, max 0.0 ms",
    ]


def test_the_screen_has_the_routes_where_there_is_room() -> None:
    routes = busiest_routes([RouteTime("shop.urls.slow", 3, 6.0, 3.0)])
    assert any(
        line.startswith("routes    shop.urls.slow: 100 % of the time, 3")
        for line in screen(80, routes=routes)
    )
    lines = [line for _, line in render(known(routes=routes), [RATES], "12:00:00Z", 80, 24)]
    assert not any(line.startswith("routes ") for line in lines)


def test_what_to_do_is_wrapped_below_its_finding() -> None:
    parts = wrapped("   " + "word " * 40, 60)
    assert all(part.startswith("   word") for part in parts)


def test_status_shows_the_last_five_events_and_nothing_that_a_terminal_obeys() -> None:
    events = [{"time": 60.0 * number, "kind": "slow", "text": f"GET /{number}\x1b[2J"} for number in range(9)]
    lines = [line for _, line in format_text(known(events=events), 600.0)]
    assert lines[-5] == "events    00:08:00Z, 2 min ago, slow: GET /8?[2J"
    assert lines[-1] == "          00:04:00Z, 6 min ago, slow: GET /4?[2J"


def test_lines_are_wrapped_on_a_terminal_alone() -> None:
    assert wrapped("worker    " + "word " * 40, 0) == ["worker    " + "word " * 40]
    parts = wrapped("worker    " + "word " * 40, 60)
    assert all(part.startswith(" " * 10 + "word") for part in parts[1:])


LOOP = {"lag": 0.0021, "blocked": 1, "leases": 16, "leases_busy": 16, "leases_waiting": 4}


def test_the_asyncio_loop_of_a_worker_has_a_line() -> None:
    busy = {**WORKER, "async": 1234, "loop": LOOP}
    words = "1,234 async requests, lag 2.1 ms, leased threads 16/16, 4 wait for one, blocked 1 time"
    assert loop_words(busy) == words
    assert any(
        line == f"          asyncio loop: {words}" for _, line in format_text(known(workers=[busy]), 0.0)
    )
    assert any(words in " ".join(screen(width, workers=[busy])) for width in (100, 120))
    assert loop_words({**WORKER, "websockets": 3, "loop": {**LOOP, "blocked": 0}}).startswith("lag 2.1 ms, ")
    idle = {**LOOP, "blocked": 0, "leases_busy": 0, "leases_waiting": 0}
    assert loop_words({**WORKER, "loop": idle}) == loop_words(WORKER) == ""
