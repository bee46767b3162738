"""The decisions: from a quarter of a CPU to 128, from 64 MiB to 512 GiB, and what is stated."""

from __future__ import annotations

import dataclasses
import itertools
import re
from dataclasses import replace
from typing import Any

import pytest

from django_prodserve.config.options import SourcedValue
from django_prodserve.config.resolve import resolve
from django_prodserve.errors import UsageError
from django_prodserve.machine.platforms import detect
from django_prodserve.plan import tls, worker_classes
from django_prodserve.plan.explain import explain
from django_prodserve.plan.gunicorn_settings import gunicorn_settings
from django_prodserve.plan.plan import PlanInputs, make_plan
from django_prodserve.plan.sizing import DatabaseLimit
from django_prodserve.scoreboard.growth_holds import in_words
from django_prodserve.tls.key_pairs import KeyPair
from django_prodserve.utils.units import GIB, MIB

from .facts import machine, plan, postgresql, project, wishes

PLENTY = 512 * GIB


@pytest.mark.parametrize(
    ("cpus", "memory", "stated", "workers", "threads"),
    [
        # threaded, io: one worker a CPU, at least two, fractions rounded up
        (0.25, PLENTY, {}, 2, 16),
        (0.5, PLENTY, {}, 2, 16),
        (1, PLENTY, {}, 2, 16),
        (1.5, PLENTY, {}, 2, 16),
        (2, PLENTY, {}, 2, 16),
        (2.5, PLENTY, {}, 3, 16),
        (4, PLENTY, {}, 4, 16),
        (8, PLENTY, {}, 8, 16),
        (16, PLENTY, {}, 16, 16),
        (32, PLENTY, {}, 32, 16),
        (64, PLENTY, {}, 32, 16),
        (128, PLENTY, {}, 32, 16),
        # threaded, cpu
        (0.25, PLENTY, {"profile": "cpu"}, 2, 4),
        (4, PLENTY, {"profile": "cpu"}, 4, 4),
        (128, PLENTY, {"profile": "cpu"}, 32, 4),
        # the classic formulas
        (1, PLENTY, {"worker_class": "sync"}, 3, 1),
        (2, PLENTY, {"worker_class": "sync"}, 5, 1),
        (1.5, PLENTY, {"worker_class": "sync"}, 5, 1),
        (8, PLENTY, {"worker_class": "sync"}, 17, 1),
        (64, PLENTY, {"worker_class": "sync"}, 32, 1),
        (1, PLENTY, {"worker_class": "sync", "profile": "cpu"}, 2, 1),
        (4, PLENTY, {"worker_class": "sync", "profile": "cpu"}, 4, 1),
        # memory
        (8, 64 * MIB, {}, 1, 16),
        (8, 128 * MIB, {}, 1, 16),
        (8, 192 * MIB, {}, 2, 16),
        (8, 256 * MIB, {}, 3, 16),
        (8, 512 * MIB, {}, 6, 16),
        (8, GIB, {}, 8, 16),
        (128, GIB, {"workers": "auto"}, 14, 16),
        (128, 512 * GIB, {}, 32, 16),
        (2, None, {}, 2, 16),
        # database connections
        (9, PLENTY, {"db_connections": 20}, 9, 2),
        (4, PLENTY, {"db_connections": 3}, 3, 1),
        (2, PLENTY, {"db_connections": 100}, 2, 16),
        (2, PLENTY, {"db_connections": 8}, 2, 4),
        (4, PLENTY, {"db_connections": 16, "threads": 8}, 2, 8),
        # stated
        (2, PLENTY, {"workers": 50}, 50, 16),
        (2, PLENTY, {"workers": "2n+1"}, 5, 16),
        (2, PLENTY, {"threads": 3}, 2, 3),
        (2, 64 * MIB, {"workers": 4, "threads": 2}, 4, 2),
    ],
)
def test_sizes(cpus: float, memory: int | None, stated: dict[str, Any], workers: int, threads: int) -> None:
    made = plan(machine(cpus, memory), **stated)
    assert (made.workers.value, made.threads.value) == (workers, threads)


@pytest.mark.parametrize(
    ("facts", "stated", "name", "words"),
    [
        ({"cpus": 4}, {}, "workers", "one for each usable CPU"),
        ({"cpus": 1.5}, {}, "workers", "rounded up"),
        ({"cpus": 1}, {}, "workers", "at least 2"),
        ({"cpus": 64}, {}, "workers", "at most 32"),
        ({"cpus": 8, "memory": 256 * MIB}, {}, "workers", "memory holds 3"),
        ({"cpus": 8}, {"db_connections": 3}, "workers", "3 database connections"),
        ({"cpus": 9}, {"db_connections": 20}, "threads", "20 database connections / 9 workers"),
        ({}, {"workers": "2n+1"}, "workers", "2n+1 with n = 2"),
        ({}, {"worker_class": "sync"}, "workers", "2n+1 for n = 2"),
        ({}, {"worker_class": "sync"}, "threads", "one request at a time"),
        ({}, {"profile": "cpu"}, "threads", "profile cpu"),
        ({}, {}, "bind", "this machine only"),
        ({"container": "/.dockerenv exists"}, {}, "bind", "container"),
        ({}, {"max_requests": 100}, "max_requests_jitter", "as wide as"),
        ({}, {}, "trusted_hops", "not a trusted proxy"),
        ({}, {"trusted_proxies": "*"}, "trusted_hops", "right-most"),
    ],
)
def test_the_cap_that_decided_names_itself(
    facts: dict[str, Any], stated: dict[str, Any], name: str, words: str
) -> None:
    assert words in getattr(plan(machine(**facts), **stated), name).why


@pytest.mark.parametrize(
    ("facts", "stated", "words"),
    [
        ({}, {"workers": 50}, "2 is recommended"),
        ({"memory": 512 * MIB}, {"workers": 8}, "6 is recommended"),
        ({"memory": 512 * MIB}, {"workers": 8}, "OOM killer"),
        ({"memory": 128 * MIB}, {}, "Only one worker fits into 128 MiB; two need 186 MiB"),
        ({"memory": 64 * MIB}, {}, "One worker needs about 102 MiB, there are 64 MiB"),
        ({}, {"db_connections": 10, "workers": 2, "threads": 16}, "5 threads are recommended"),
        ({"cpus": 64, "container": "yes"}, {}, "64 CPUs are visible but this container has no CPU limit"),
        ({"limits_visible": False, "container": "yes"}, {}, "limits may be missing"),
    ],
)
def test_what_will_hurt_is_said_with_the_figure_that_fits(
    facts: dict[str, Any], stated: dict[str, Any], words: str
) -> None:
    warnings = plan(machine(**facts), **stated).warnings
    assert any(words in str(warning) for warning in warnings), warnings
    assert all(warning.fix for warning in warnings)


@pytest.mark.parametrize("stated", [{}, {"workers": 3}, {"workers": "2n+1"}, {"threads": 32}])
def test_a_sound_plan_does_not_warn(stated: dict[str, Any]) -> None:
    assert plan(**stated).warnings == ()


def test_a_container_without_a_cpu_limit_is_planned_as_eight() -> None:
    seen = machine(
        64.0, PLENTY, container="/.dockerenv exists", cpu_weight="its CPU request seems to be 0.25"
    )
    made = plan(seen)
    assert made.cpus.value == 8
    assert made.workers.value == 8
    assert "its CPU request" in made.cpus.why
    assert plan(seen, cpus="64").workers.value == 32
    assert plan(dataclasses.replace(seen, container=None)).workers.value == 32


def test_several_databases_share_the_connections() -> None:
    two = project(databases=(postgresql(), postgresql("reports")))
    made = plan(machine(2, PLENTY), two, db_connections=16)
    assert made.threads.value == 4
    assert "up to 16 connections" in made.database.value + made.database.why


ROADS = "3 async routes on the asyncio loop; 1 sync route in threads"


@pytest.mark.parametrize(
    ("cpus", "stated", "sizes"),
    [
        (2, {}, (2, 16, 16)),
        (2, {"threads": 4}, (2, 4, 4)),
        (2, {"db_connections": 100}, (2, 16, 16)),
        (2, {"db_connections": 40}, (2, 10, 10)),
        (2, {"db_connections": 22}, (2, 6, 5)),
        (4, {"db_connections": 6}, (3, 1, 1)),
        (2, {"db_connections": 40, "threads": 12}, (2, 12, 8)),
        (8, {"db_connections": 40, "threads": 12}, (3, 12, 1)),
        (2, {"asgi": "off"}, (2, 16, 0)),
    ],
)
def test_leased_threads_are_counted_where_views_are_async(
    cpus: float, stated: dict[str, Any], sizes: tuple[int, int, int]
) -> None:
    site = project(databases=(postgresql(),))
    before = plan(machine(cpus, PLENTY), site, **stated)
    made = before.with_road_table("" if before.asgi.value == "off" else ROADS)
    assert (made.workers.value, made.threads.value, made.leases.value) == sizes
    most = sizes[0] * (made.max_threads.value + sizes[2])
    assert f"up to {most} connections" in made.database.why
    assert made.db_connections.value is None or most <= made.db_connections.value
    assert made.warnings == ()
    assert before.leases.value == 0
    assert f"up to {before.workers.value * before.max_threads.value} connections" in before.database.why


@pytest.mark.parametrize(
    ("stated", "roads", "sizes", "reason"),
    [
        ({}, "", (2, 16, 0), "up to 34 connections (workers x (threads + 1) x databases)"),
        ({}, ROADS, (2, 16, 16), "up to 66 connections (workers x (threads + leases + 1) x databases)"),
        ({"db_connections": 20}, "", (2, 9, 0), "up to 20 connections"),
        ({"db_connections": 20}, ROADS, (2, 5, 4), "up to 20 connections"),
        ({"db_connections": 5}, ROADS, (1, 2, 2), "up to 5 connections"),
        ({"db_connections": 20, "worker_class": "gthread"}, "", (2, 10, 0), "up to 20 connections"),
    ],
)
def test_the_thread_that_waits_keeps_a_connection_too(
    stated: dict[str, Any], roads: str, sizes: tuple[int, int, int], reason: str
) -> None:
    kept = dataclasses.replace(postgresql(), max_age=60)
    made = plan(machine(2, PLENTY), project(databases=(kept,)), **stated).with_road_table(roads)
    assert (made.workers.value, made.threads.value, made.leases.value) == sizes
    assert reason in made.database.why
    assert f"up to {made.connections} " in made.database.why
    assert made.warnings == ()


def test_more_connections_than_allowed_are_told_with_each_kind_of_thread() -> None:
    kept = dataclasses.replace(postgresql(), max_age=None)
    made = plan(machine(2, PLENTY), project(databases=(kept,)), workers=2, threads=5, db_connections=10)
    (found,) = made.warnings
    assert "2 workers x (5 threads + 1 that waits) may open 12 database connections" in found.message
    assert "--threads 4" in found.fix


def test_a_project_without_async_views_has_the_same_plan_when_it_is_loaded() -> None:
    made = plan(db_connections=10)
    assert made.with_road_table("") is made


def test_where_views_run_is_the_reason_of_the_way() -> None:
    assert plan().with_road_table(ROADS).asgi.why == ROADS
    assert plan(asgi="hybrid").with_road_table(ROADS).asgi.source == "test"


def test_more_leased_threads_than_connections_are_told() -> None:
    (found,) = plan(workers=2, threads=5, db_connections=10).with_road_table(ROADS).warnings
    assert "2 workers x (5 threads + 1 leased) may open 12 database connections, 10 are" in found.message
    assert "--threads 3" in found.fix


@pytest.mark.parametrize(
    ("cpus", "memory", "profile", "worker_class"),
    list(
        itertools.product(
            [0.01, 0.25, 0.5, 1, 1.5, 2, 3.7, 8, 31, 33, 128],
            [None, 64 * MIB, 100 * MIB, 256 * MIB, 512 * MIB, GIB, 16 * GIB, 512 * GIB],
            ["io", "cpu"],
            ["gthread", "sync"],
        )
    ),
)
def test_every_plan_holds_the_promises(
    cpus: float, memory: int | None, profile: str, worker_class: str
) -> None:
    made = plan(machine(cpus, memory), profile=profile, worker_class=worker_class)
    assert 1 <= made.workers.value <= 32
    assert made.threads.value >= 1
    assert all(decision.why and decision.source for _, decision in made.decisions())
    needed = 46 * MIB + made.workers.value * 56 * MIB
    if memory is not None and made.workers.value > 1:
        assert needed <= memory * 0.85
    if memory is None or memory >= 256 * MIB:
        assert made.workers.value >= 2


def test_what_is_stated_wins_and_keeps_its_source() -> None:
    made = plan(workers=3, timeout="2m", cpus="1500m", memory="1g", bind="9000")
    assert made.workers.value == 3
    assert made.workers.source == "test"
    assert made.timeout.value == 120
    assert (made.cpus.value, made.memory.value) == (1.5, GIB)
    assert made.bind.value == ("127.0.0.1:9000",)
    assert made.backlog.source == "default"


@pytest.mark.parametrize(
    ("container", "stated", "source", "bind"),
    [
        (None, None, "test", ("127.0.0.1:8000",)),
        ("yes", None, "test", ("0.0.0.0:8000",)),
        (None, "9000", "--bind", ("127.0.0.1:9000",)),
        ("yes", "9000", "--bind", ("0.0.0.0:9000",)),
        (None, ":9000", "--bind", ("0.0.0.0:9000",)),
        ("yes", "127.0.0.1:9000", "--bind", ("127.0.0.1:9000",)),
        (None, ":5000", "PORT", ("0.0.0.0:5000",)),
        (None, "unix:/run/a.sock", "--bind", ("unix:/run/a.sock",)),
    ],
)
def test_only_containers_and_platforms_bind_publicly_by_themselves(
    container: str | None, stated: str | None, source: str, bind: tuple[str, ...]
) -> None:
    options = wishes(source, bind=stated) if stated else wishes()
    seen = machine(container=container)
    made = make_plan(PlanInputs(machine=seen, platform=detect({}), project=project(), options=options))
    assert made.bind.value == bind


def test_a_gunicorn_conf_that_lies_about_is_mentioned() -> None:
    assert any("--config" in found.fix for found in plan(project_=project(gunicorn_conf=True)).warnings)


def test_the_concurrency_limit_is_that_of_our_own_workers() -> None:
    assert plan().concurrency_limit.value == "auto"
    stated = plan(concurrency_limit="off").concurrency_limit
    assert (stated.value, stated.source) == ("off", "test")
    foreign = plan(concurrency_limit="auto", worker_class="gthread").concurrency_limit
    assert foreign.value == "off"
    assert foreign.why.startswith("gthread workers")


def test_macos_does_not_preload() -> None:
    assert plan(fork_safe=False).preload.value is False
    assert plan(fork_safe=False, preload=True).preload.value is True


def test_the_management_address_is_told_where_others_reach_it_or_nobody_answers() -> None:
    assert plan(management_bind="127.0.0.1:9000").warnings == ()
    assert plan(management_bind="127.0.0.1:9000").addresses == ("127.0.0.1:8000", "127.0.0.1:9000")
    (open_to_others,) = plan(management_bind="0.0.0.0:9000").warnings
    assert "has no password" in open_to_others.message
    silent = plan(management_bind="127.0.0.1:9000", worker_class="gthread")
    assert silent.management_bind.value is None
    assert silent.addresses == ("127.0.0.1:8000",)
    assert any("this is gthread" in found.message for found in silent.warnings)


@pytest.mark.parametrize("name", worker_classes.LOST)
def test_another_asgi_server_is_explained_by_what_it_cannot_keep(name: str) -> None:
    made = plan(worker_class=name)
    assert made.asgi.value == made.concurrency_limit.value == "off"
    [told] = made.warnings
    assert (told.topic, "the default worker runs async views and websockets itself" in told.fix) == (
        "worker-class",
        True,
    )
    text = explain(made, width=200)
    for line in worker_classes.LOST[name]:
        assert f"{name} workers: {line}" in text
    assert gunicorn_settings(made)["worker_class"] == worker_classes.IMPORTED[name]
    assert gunicorn_settings(made).get("http_parser") == {"asgi": "python"}.get(name)


PAIR = {"certfile": "a.pem,b.pem", "keyfile": "a.key,b.key"}


def test_the_default_worker_serves_tls_and_shows_what_it_costs() -> None:
    assert plan().tls.value == "off"
    made = plan(**PAIR)
    assert made.worker_class.value == "prodserve"
    assert (made.tls.value, made.tls.why) == ("1.2, 1.3", tls.COST)
    assert [str(pair) for pair in made.certificates] == ["a.pem and a.key", "b.pem and b.key"]
    settings = gunicorn_settings(made)
    assert (settings["certfile"], settings["keyfile"]) == ("a.pem", "a.key")
    assert "certfile" not in gunicorn_settings(plan())


def test_gunicorns_threads_warn_of_handshakes_and_of_the_certificates_they_do_not_have() -> None:
    made = plan(**PAIR, worker_class="gthread", workers=2, threads=3)
    stall, single = (found.message for found in made.warnings)
    assert stall == "gthread workers wait for the TLS handshake of each client: 6 that stall stop the site."
    assert single == "gthread workers have one certificate: all clients get a.pem."
    assert made.tls.why == "as Gunicorn's gthread workers do it"


def test_http2_is_served_by_threads_that_are_asked_for() -> None:
    passed = {"http_protocols": SourcedValue("h2,h1", "PRODSERVE['GUNICORN']['http_protocols']")}
    stated = {"worker_class": SourcedValue("gthread", "--worker-class")}
    with pytest.raises(UsageError, match="asks for HTTP/2, which the worker class prodserve does not speak"):
        resolve([], gunicorn=passed)
    options = resolve([stated], gunicorn=passed)
    inputs = replace(plan(workers=2, threads=3).inputs, options=replace(options, workers=2, threads=3))
    (told,) = make_plan(inputs).warnings
    assert "the streams of a connection run one after another" in told.message
    assert re.search(r"Each connection holds a thread: \d+ connections stop the site", told.message)


def test_settings_of_tls_without_an_effect_are_named() -> None:
    passed = {
        name: SourcedValue(value, name)
        for name, value in {
            "do_handshake_on_connect": True,
            "suppress_ragged_eofs": False,
            "ssl_version": 5,
            "ciphers": "ECDHE",
        }.items()
    }
    options = resolve([{"certfile": SourcedValue("a", "test")}], gunicorn=passed)
    made = make_plan(replace(plan().inputs, options=options))
    assert [note.partition(" ")[0] for note in made.notes] == [*tls.WITHOUT_EFFECT]
    assert make_plan(replace(plan().inputs, options=resolve([], gunicorn=passed))).notes == ()


def test_each_certificate_needs_its_key() -> None:
    message = "test names 2 and test 1: each certificate needs its own key."
    with pytest.raises(UsageError, match=message):
        plan(certfile="a,b", keyfile="c")
    assert plan(certfile=["a", "b"]).certificates == (KeyPair("a"), KeyPair("b"))


@pytest.mark.parametrize(
    ("allowed", "used", "max_age", "threads", "most"),
    [
        (97, 3, 60, 16, 23),
        (97, 3, 0, 16, 24),
        (37, 2, 60, 7, 8),  # two generations of a reload keep 2 x 2 x 8 connections
        (37, 2, 0, 14, 14),
        (97, 90, 0, 16, 16),
        (1000, 3, 60, 16, 249),
    ],
)
def test_what_a_database_allows_sets_the_number_of_threads(
    allowed: int, used: int, max_age: int, threads: int, most: int
) -> None:
    database = dataclasses.replace(postgresql(), max_age=max_age)
    made = plan(machine(2, PLENTY), project(databases=(database,)))
    assert (made.threads.value, made.max_threads.value) == (16, 16)
    assert "a start asks the database" in made.max_threads.why
    asked = made.with_db_limit(DatabaseLimit("default", allowed, used))
    assert (asked.threads.value, asked.max_threads.value) == (threads, most)
    if threads < 16:
        assert f"database default allows {allowed} connections, {used} were in use" in asked.threads.why


def test_what_sets_the_maximum_of_threads_is_said_with_its_numbers() -> None:
    database = project(databases=(postgresql(),))
    asked = plan(machine(2, PLENTY), database).with_db_limit(DatabaseLimit("default", 97, 3))
    pooled = dataclasses.replace(postgresql(), max_age=0, pool_size=20)
    found = [
        plan(machine(2, PLENTY), database, db_connections="40"),
        asked,
        plan(machine(2, PLENTY), project(databases=(pooled,))),
        plan(machine(2, 512 * MIB)),
        plan(machine(2, PLENTY), threads="8..20"),
        plan(machine(2, PLENTY)),
    ]
    assert [made.threads_limit for made in found] == [
        "database connections: 40 of 40",
        "database connections: 48 of 48",
        "database connections: 20 of 20 in the pool",
        "memory: room for 170 threads",
        "test: 20 threads in each worker",
        "256 threads in each worker",
    ]
    assert in_words(2, found[0].threads_limit) == "the maximum (database connections: 40 of 40)"
    assert in_words(1, found[0].threads_limit) == "no more while the CPU is busy"


def test_the_maximum_of_threads_and_its_reason() -> None:
    assert plan(machine(2, PLENTY)).max_threads.value == 256
    assert plan(machine(2, 512 * MIB)).max_threads.value == 85
    assert "memory" in plan(machine(2, 512 * MIB)).max_threads.why
    assert plan(machine(2, PLENTY), threads="8").max_threads.value == 8
    assert plan(machine(2, PLENTY), threads="8..20").max_threads.value == 20
    pooled = dataclasses.replace(postgresql(), max_age=0, pool_size=20)
    assert plan(machine(2, PLENTY), project(databases=(pooled,))).max_threads.value == 20
    assert plan(machine(2, PLENTY), worker_class="gthread").max_threads.value == 16
