"""``prodserve tune``: paths, logs, the client's reading of responses, the model and the report."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings
from django.urls import include, path, re_path

from django_prodserve.config.options import Options, SourcedValue
from django_prodserve.config.private_server import VARIABLE, PrivateServer
from django_prodserve.errors import UsageError
from django_prodserve.plan.capacity import CONNECTIONS, CPU, THREADS
from django_prodserve.tune import access_log, action, page, prediction, report, routes
from django_prodserve.tune.choices import Choice, Choices
from django_prodserve.tune.client import Response
from django_prodserve.tune.costs import COMPUTES, DATABASE, MIXED, WAITS, Mix, PathCost
from django_prodserve.tune.measure import Quiet, order_of
from django_prodserve.tune.prediction import Budget, UnderLoad
from django_prodserve.tune.result import Recommendation, Run, Skipped, TuneResult
from django_prodserve.tune.server import command


def cost(**facts: Any) -> PathCost:
    given = {"path": "/", "share": 1.0, "cpu": 0.005, "wait": 0.0}
    return PathCost(**{"seconds": 0.005, **given, **facts})


def budget(**facts: Any) -> Budget:
    return Budget(
        **{"cpus": 2.0, "workers": 2, "threads": 16, "max_threads": 256, "threads_by": THREADS} | facts
    )


# What the operator asks for.


@pytest.mark.parametrize(
    ("words", "flags", "says"),
    [
        (["shop/"], {}, "Write /shop/"),
        (["http://localhost:8000/shop/"], {}, "Write the path: /shop/"),
        (["8000"], {}, "'8000' is not a path"),
        (["/a b"], {}, "without spaces"),
        (["/\u00fc"], {}, "as %XX"),
        ([], {"seconds": "x"}, "--seconds is 'x', but must be a number of seconds."),
        ([], {"seconds": "5"}, "--seconds 5 is too short: the measurement needs 10 s."),
        (["/"], {"from": "access.log"}, "cannot be used together"),
    ],
)
def test_what_is_written_wrongly_is_named(words: list[str], flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=re.escape(says)):
        Choices.parse(words, flags)


def test_everything_wrong_is_named_together() -> None:
    with pytest.raises(UsageError) as caught:
        Choices.parse(["a", "b"], {"seconds": "1"})
    assert len(caught.value.problems) == 3


def test_a_path_counts_once() -> None:
    assert Choices.parse(["/a", "/b?x=1", "/a"], {"seconds": "2m"}) == Choices(
        paths=("/a", "/b?x=1"), seconds=120.0
    )


# A log.

OURS = (
    '10.0.0.1 - - [20/Nov/2026:10:00:00 +0000] "GET /item/{}?page=2 HTTP/1.1" 200 51 "-" "Mozilla/5.0 (X)" '
    "0f shop:item 12.3ms 0.1ms"
)
COMBINED = '10.0.0.1 - bob [20/Nov/2026:10:00:00 +0100] "{} {} HTTP/1.1" {} 5120 "-" "Mozilla/5.0"'


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (OURS.format(7), ("GET", "/item/7?page=2", 200, "shop:item")),
        (COMBINED.format("GET", "/", 200), ("GET", "/", 200, "")),
        ("web-1  | " + COMBINED.format("POST", "/a", 302), ("POST", "/a", 302, "")),
        ("GET /shop/ 200 12.3 ms", ("GET", "/shop/", 200, "")),
        (
            '{"method": "GET", "path": "/a", "query": "b=1", "status": 200, "route": "x"}',
            ("GET", "/a?b=1", 200, "x"),
        ),
        (
            '2026 app[web.1]: {"method": "GET", "path": "/a", "query": null, "status": 204}',
            ("GET", "/a", 204, ""),
        ),
        (COMBINED.format("GET", "http://shop.example/a?b", 200), ("GET", "/a?b", 200, "")),
    ],
)
def test_a_line_of_a_log_names_a_request(line: str, entry: tuple[Any, ...]) -> None:
    assert access_log.parse(line) == entry


@pytest.mark.parametrize(
    "line", ["", "ready in 1.2 s", "{", '{"a": 1}', '"GET * HTTP/1.1" 200', "GET / is slow"]
)
def test_other_lines_name_none(line: str) -> None:
    assert access_log.parse(line) is None


def test_requests_of_a_route_count_together() -> None:
    lines = [OURS.format(number) for number in (1, 1, 2)]
    lines += [COMBINED.format("GET", target, 200) for target in ("/shop/?a=1", "/shop/?a=2", "/shop/?a=2")]
    lines += [COMBINED.format("POST", "/shop/", 200), COMBINED.format("GET", "/gone", 404), "no request"]
    found = access_log.read(lines)
    assert (found.lines, found.requests, found.others) == (9, 8, 2)
    assert found.choices(20) == [
        Choice(targets=("/item/1?page=2", "/item/2?page=2"), share=0.5),
        Choice(targets=("/shop/?a=2", "/shop/?a=1"), share=0.5),
    ]
    assert [choice.share for choice in found.choices(1)] == [1.0]


def test_a_redacted_query_is_not_sent() -> None:
    found = access_log.read([COMBINED.format("GET", "/a?token=[redacted]", 200)])
    assert found.choices(1)[0].targets == ("/a",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "cannot be read: No such file or directory."),
        ("", "it is empty"),
        ("hello\nworld\n", "no line of 2 is in a known format"),
        (COMBINED.format("POST", "/", 200), "none of its 1 requests is a GET with a 2xx"),
    ],
)
def test_a_log_that_does_not_help_is_named(tmp_path: Path, text: str | None, says: str) -> None:
    log = tmp_path / "access.log"
    if text is not None:
        log.write_text(text)
    with pytest.raises(UsageError, match=re.escape(says)):
        action._named(Choices(log=str(log)))


# The URLconf.


def view(request: Any) -> None: ...


urlpatterns = [
    path("", view),
    path("shop/", include([path("", view), path("<int:number>/", view), path("cart/", view)])),
    re_path(r"^old/page\.html$", view),
    re_path(r"^(?P<year>\d+)/$", view),
    re_path(r"^feed/?$", view),
]


@override_settings(ROOT_URLCONF=__name__)
def test_routes_without_arguments_come_from_the_urlconf() -> None:
    assert routes.without_arguments() == ["/", "/shop/", "/shop/cart/", "/old/page.html"]


# The client.

CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n"
)
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"


@pytest.mark.parametrize("data", [CHUNKED, LENGTH, b"HTTP/1.1 204 No Content\r\nServer: x\r\n\r\n"])
def test_a_response_is_complete_at_its_last_byte(data: bytes) -> None:
    for size in (1, 3, len(data)):
        response = Response()
        parts = [data[start : start + size] for start in range(0, len(data), size)]
        assert [response.feed(part) for part in parts] == [False] * (len(parts) - 1) + [True]
        assert response.status in (200, 204)


def test_a_response_ends_its_connection_if_it_says_so() -> None:
    closing, keeping, open_ended = Response(), Response(), Response()
    assert closing.feed(LENGTH)
    assert keeping.feed(CHUNKED)
    assert not open_ended.feed(b"HTTP/1.0 200 OK\r\n\r\nall until the end")
    assert [each.closes for each in (closing, keeping, open_ended)] == [True, False, True]
    assert open_ended.ends_by_close


def test_what_is_not_http_is_an_error() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        Response().feed(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


def test_paths_are_sent_by_their_shares() -> None:
    targets, order = order_of([Choice(targets=("/a", "/b"), share=0.75), Choice(targets=("/c",), share=0.25)])
    assert targets == ["/a", "/b", "/c"]
    shares = [order.count(number) / len(order) for number in range(3)]
    assert shares == pytest.approx([0.375, 0.375, 0.25], abs=0.01)


# The model.


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"cpu": 0.005, "wait": 0.0}, COMPUTES),
        ({"cpu": 0.001, "wait": 0.0001}, COMPUTES),
        ({"cpu": 0.0006, "wait": 0.05}, WAITS),
        ({"cpu": 0.0006, "wait": 1.0}, WAITS),
        ({"cpu": 0.0039, "wait": 0.0, "query_seconds": 0.0005, "queries": 4}, DATABASE),
        ({"cpu": 0.002, "wait": 0.008, "query_seconds": 0.007, "queries": 2}, DATABASE),
        ({"cpu": 0.004, "wait": 0.004, "query_seconds": 0.0002, "queries": 1}, MIXED),
        ({"cpu": 0.0, "wait": 0.0}, WAITS),
    ],
)
def test_the_kind_of_a_path_follows_its_time(facts: dict[str, float], kind: str) -> None:
    assert cost(**facts).kind == kind


def test_a_mix_counts_each_path_by_its_share() -> None:
    mix = Mix.of([cost(share=0.75, cpu=0.004), cost(share=0.25, cpu=0.0, wait=0.1, thread=False)])
    assert (mix.cpu, mix.wait, mix.thread) == pytest.approx((0.003, 0.025, 0.003))
    assert mix.spread > 1
    assert Mix.of([cost()]).spread == 0


def load(**facts: float) -> UnderLoad:
    return UnderLoad(mix=Mix.of([cost(**facts)]))


def test_the_cpu_limits_what_computes_and_the_load_client_takes_a_part() -> None:
    assert prediction.predict(load(), budget().means()) == (pytest.approx(380), CPU)
    shared = replace(load(), client=0.005)
    assert prediction.predict(shared, budget().means()).rate == pytest.approx(190)
    assert prediction.predict(replace(load(), usable=0.7), budget().means()).rate == pytest.approx(280)


def test_threads_limit_what_only_waits() -> None:
    waits = load(cpu=0.0006, wait=1.0)
    assert prediction.predict(waits, budget().means()) == (pytest.approx(512, rel=0.01), THREADS)
    few = budget(max_threads=20, threads_by=CONNECTIONS)
    assert prediction.predict(waits, few.means()) == (pytest.approx(40, rel=0.01), CONNECTIONS)


@pytest.mark.parametrize(
    ("facts", "bounds", "threads"),
    [
        ({"cpu": 0.005}, {"threads": 4}, (4, 256)),
        ({"cpu": 0.001, "wait": 0.05}, {}, (63, 256)),
        ({"cpu": 0.0006, "wait": 1.0}, {}, (256, 256)),
        ({"cpu": 0.0006, "wait": 1.0}, {"max_threads": 20}, (20, 20)),
        ({"cpu": 0.0, "wait": 1.0, "thread": False}, {}, (16, 256)),
    ],
)
def test_a_worker_starts_with_the_threads_that_keep_the_cpus_busy(
    facts: dict[str, Any], bounds: dict[str, Any], threads: tuple[int, int]
) -> None:
    assert prediction.recommended_threads(Mix.of([cost(**facts)]), budget(**bounds)) == threads


@pytest.mark.parametrize(
    "facts", [{"cpu": 0.005}, {"cpu": 0.001, "wait": 0.05}, {"cpu": 0.0006, "wait": 1.0}]
)
def test_three_numbers_of_clients_are_below_at_and_beyond_the_maximum(facts: dict[str, float]) -> None:
    given = load(**facts)
    most = prediction.predict(given, budget().means())
    numbers = prediction.concurrencies(given.mix, budget(), most)
    assert 1 <= numbers[0] < numbers[1] < numbers[2] <= prediction.MAX_CLIENTS
    rates = [prediction.closed_loop(given.mix, budget().means(), most, number)[0] for number in numbers]
    assert rates == sorted(rates)
    assert rates[0] <= 0.75 * most.rate
    assert 0.9 * most.rate <= rates[2] <= most.rate * 1.001


def test_one_client_gets_what_a_request_takes_alone() -> None:
    given = load(cpu=0.002, wait=0.008)
    means = budget().means()
    most = prediction.predict(given, means)
    rate, latency = prediction.closed_loop(given.mix, means, most, 1)
    assert (rate, latency) == (pytest.approx(100), pytest.approx(0.010))


@pytest.mark.parametrize(("wait", "profile"), [(0.001, "cpu"), (0.01, "io")])
def test_the_profile_follows_the_share_of_computing(wait: float, profile: str) -> None:
    assert prediction.profile(Mix.of([cost(wait=wait)])) == profile


# Whether anything can be concluded.


def test_other_programs_make_a_measurement_worthless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1, 2, 3})
    assert Quiet(4.0, [0.1, 0.3]).trouble == ""
    assert Quiet(2.0, [1.5]).trouble == ""  # of four CPUs, two are enough
    assert Quiet(4.0, [0.1, 1.5]).trouble == "other programs use 0.8 of 4 CPUs, and the measurement needs 4"


def test_cpus_that_change_their_speed_do_too() -> None:
    assert Quiet(2.0).compare([0.005, 0.0055]) == ""
    assert Quiet(2.0).compare([0.005, 0.007]).startswith("the CPU time of a request differed by 40 %")


# The private server.


def test_the_private_server_has_no_effect_outside() -> None:
    asked = Options(
        bind=("0.0.0.0:80",),
        certfile=("cert.pem",),
        migrate=True,
        management_bind="0.0.0.0:9000",
        access_log="-",
        keep_alive=5.0,
        sources={"keep_alive": "--keep-alive", "bind": "--bind"},
        gunicorn={
            "pidfile": SourcedValue("x.pid", "--config"),
            "limit_concurrency": SourcedValue(3, "--config"),
        },
    )
    private = PrivateServer(bind="fd://7", queries="/tmp/q", threads=(8, 64))
    assert PrivateServer.from_environment(private.as_variable()) == replace(private, threads=[8, 64])
    given = private.options(asked)
    assert (given.bind, given.certfile, given.management_bind) == (("fd://7",), (), None)
    assert (given.migrate, given.supervisor, given.access_log) == (False, False, None)
    assert (given.keep_alive, str(given.threads)) == (5.0, "8..64")
    assert given.source("bind") == "prodserve tune"
    assert [*given.gunicorn] == ["limit_concurrency"]
    assert PrivateServer.from_environment({VARIABLE + "X": "1"}) is None


def test_the_private_server_gets_the_options_of_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.orig_argv", ["python", "manage.py", "prodserve", "tune", "/", "--workers", "3"])
    flags = {
        "settings": "shop.live",
        "workers": "3",
        "static": False,
        "certfile": ["a", "b"],
        "bind": ["8000"],
        "names": ["/"],
        "skip_checks": True,
    }
    words = command(flags)
    assert words[1:3] == ["manage.py", "prodserve"]
    assert words[3:] == [
        *("--settings", "shop.live", "--skip-checks", "--workers", "3"),
        *("--certfile", "a", "--certfile", "b", "--no-static"),
    ]


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        ("", False),
        ("localhost", False),
        ("/run/postgresql", False),
        ("127.0.0.1", False),
        ("db.example", True),
    ],
)
def test_a_database_on_another_host_gets_no_load_unasked(host: str, is_refused: bool) -> None:
    others = action.other_hosts({"default": {"ENGINE": "django.db.backends.postgresql", "HOST": host}})
    assert bool(others) == is_refused
    action.refuse_other_hosts(others, Choices(may_load_others=True))
    if is_refused:
        with pytest.raises(UsageError, match=re.escape("on another host: default is on db.example")):
            action.refuse_other_hosts(others, Choices())


# The report.


def result(**facts: Any) -> TuneResult:
    run = Run(
        clients=8,
        predicted_rate=380.0,
        predicted_latency=0.021,
        rate=371.2,
        mean=0.021,
        p50=0.02,
        p95=0.03,
        p99=0.04,
        failed=0.0,
        cpus=1.9,
        client_cpus=0.05,
        other_cpus=0.01,
    )
    recommended = Recommendation(
        profile="cpu",
        workers=2,
        threads=4,
        max_threads=256,
        held_by="",
        connections=0,
        memory=70 * 2**20,
        flags="--profile cpu",
    )
    given: dict[str, Any] = {
        "when": 1_790_000_000.0,
        "seconds": 21.4,
        "requests": 5244,
        "settings": "shop.settings",
        "python": "3.13.0",
        "cpus": 2.0,
        "planned_cpus": 0.5,
        "paths": (
            cost(path="/</script>", queries=1, query_seconds=0.001),
            cost(path="/b", cpu=0.001, wait=1.0),
        ),
        "skipped": (Skipped(path="/admin/", why="302 Found to /login/"),),
        "mix": Mix.of([cost()]),
        "predicted": 378.0,
        "short": CPU,
        "runs": (run,),
        "curve": ((1, 200.0, 0.005), (8, 378.0, 0.021)),
        "expected": 380.0,
        "expected_per_replica": 95.0,
        "recommended": recommended,
        "busy": "",
    }
    return TuneResult(**given | facts)


def test_the_report_names_what_to_do() -> None:
    text = report.as_text(result())
    for words in (
        "5,244 requests in 21 s, settings shop.settings",
        "Not measured: /admin/ (302 Found to /login/)",
        "1 query, 1.0 ms",
        "about 380 requests/s on this machine (2 CPUs); each replica with 0.5 CPUs serves about 95/s",
        "378/s with the load client on the same CPUs, measured 371/s",
        "4 in each worker, up to 256 while requests only wait",
        "--profile cpu",
        "70 MiB after the load",
    ):
        assert words in text
    assert "Nothing can be concluded" not in text


def test_the_report_names_a_prediction_that_failed_and_a_busy_machine() -> None:
    text = report.as_text(result(predicted=600.0, busy="other programs use 1.0 of 2 CPUs"))
    assert "but measured 371/s, 38 % less" in text
    assert "Nothing can be concluded: other programs use 1.0 of 2 CPUs." in text


def test_json_has_everything() -> None:
    found = json.loads(report.as_json(result()))
    assert found["paths"][1]["kind"] == WAITS
    assert (found["measured"], found["conclusive"]) == (371.2, True)
    assert found["recommended"]["threads"] == 4


def test_the_page_needs_nothing_else_and_no_path_ends_its_script(tmp_path: Path) -> None:
    target = page.prepare(str(tmp_path / "tune.html"), force=False)
    assert target is not None
    page.write(target, result(), force=False)
    text = target.read_text()
    assert not re.search(r"""(?:src|href)=["']""", text)
    assert "uPlot" in text
    assert "{{" not in text
    data = text.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["paths"][0]["path"] == "/</script>"


def test_the_page_replaces_no_file_unasked(tmp_path: Path) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        page.prepare(str(there), force=False)
    with pytest.raises(UsageError, match="cannot be written: File exists"):
        page.write(there, result(), force=False)
    assert there.read_text() == "mine"
    page.write(there, result(), force=True)
    assert there.read_text() != "mine"
    with pytest.raises(UsageError, match="is a directory"):
        page.prepare(str(tmp_path), force=True)
    with pytest.raises(UsageError, match="there is no directory"):
        page.prepare(str(tmp_path / "no" / "x.html"), force=False)
