"""What people write, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from django_prodserve.config import parsers
from django_prodserve.config.parse_errors import ParseError
from django_prodserve.utils import units
from django_prodserve.utils.units import GIB, MIB


@pytest.mark.parametrize(
    ("parse", "raw", "value"),
    [
        (parsers.management, "9000", "127.0.0.1:9000"),
        (parsers.management, 9000, "127.0.0.1:9000"),
        (parsers.management, ":9000", "127.0.0.1:9000"),
        (parsers.management, "0.0.0.0:9000", "0.0.0.0:9000"),
        (parsers.management, "*:9000", "0.0.0.0:9000"),
        (parsers.management, "unix:/run/m.sock", "unix:/run/m.sock"),
        (parsers.management, "off", None),
        (parsers.management, False, None),
        (parsers.duration, "30", 30),
        (parsers.duration, 30, 30),
        (parsers.duration, "30s", 30),
        (parsers.duration, "10m", 600),
        (parsers.duration, "2h", 7200),
        (parsers.duration, "1.5m", 90),
        (parsers.duration, "500ms", 0.5),
        (parsers.duration, "0", 0),
        (parsers.size, "512m", 512 * MIB),
        (parsers.size, "512M", 512 * MIB),
        (parsers.size, "1.5g", 1536 * MIB),
        (parsers.size, "256MiB", 256 * MIB),
        (parsers.size, "1 GB", GIB),
        (parsers.size, 536870912, 512 * MIB),
        (parsers.cpus, "1.5", 1.5),
        (parsers.cpus, "1500m", 1.5),
        (parsers.cpus, 2, 2),
        (parsers.cpus, "250m", 0.25),
        (parsers.umask, "007", 0o007),
        (parsers.umask, "0o077", 0o077),
        (parsers.umask, 0o022, 0o022),
        (parsers.boolean, "on", True),
        (parsers.boolean, "No", False),
        (parsers.boolean, True, True),
        (parsers.words, "loopback, 10.0.0.0/8", ("loopback", "10.0.0.0/8")),
        (parsers.words, ["*"], ("*",)),
        (parsers.roads, "a:b=threads, /c/=loop", ("a:b=threads", "/c/=loop")),
        (parsers.roads, {"a:b": "threads", "/c/": "loop"}, ("a:b=threads", "/c/=loop")),
        (parsers.roads, {}, ()),
        (parsers.thread_range, 16, parsers.ThreadRange(16, 16)),
        (parsers.thread_range, "16..64", parsers.ThreadRange(16, 64)),
        (parsers.warmup, "/about/", "/about/"),
        (parsers.warmup, "off", "off"),
        (parsers.worker_class, "gthread", "gthread"),
        (parsers.worker_class, "prodserve", "prodserve"),
        (parsers.worker_class, "gunicorn.workers.gthread.ThreadWorker", "gthread"),
        (parsers.worker_class, "sync", "sync"),
        (parsers.worker_class, "gunicorn.workers.gasgi.ASGIWorker", "asgi"),
        (parsers.worker_class, "uvicorn.workers.UvicornWorker", "uvicorn"),
        (parsers.worker_class, "uvicorn_worker.UvicornWorker", "uvicorn"),
        (parsers.worker_class, "gunicorn.workers.UvicornWorker", "uvicorn"),
        (parsers.worker_count, "auto", None),
        (parsers.addresses, "8001", (":8001",)),
        (parsers.addresses, 8001, (":8001",)),
        (parsers.addresses, ":8001", ("0.0.0.0:8001",)),
        (parsers.addresses, "*:8001", ("0.0.0.0:8001",)),
        (parsers.addresses, "localhost:8001", ("localhost:8001",)),
        (parsers.addresses, "[::1]:8001", ("[::1]:8001",)),
        (parsers.addresses, "http://127.0.0.1:8001/", ("127.0.0.1:8001",)),
        (parsers.addresses, "unix:/run/a.sock", ("unix:/run/a.sock",)),
        (parsers.addresses, "unix:///run/a.sock", ("unix:/run/a.sock",)),
        (parsers.addresses, "/run/a.sock", ("unix:/run/a.sock",)),
        (parsers.addresses, "fd://3", ("fd://3",)),
        (parsers.addresses, ["127.0.0.1:1", "unix:/x"], ("127.0.0.1:1", "unix:/x")),
        (parsers.addresses, "127.0.0.1:1,127.0.0.1:2", ("127.0.0.1:1", "127.0.0.1:2")),
    ],
)
def test_it_is_understood(parse: Any, raw: Any, value: Any) -> None:
    assert parse(raw) == value


@pytest.mark.parametrize(
    ("parse", "raw"),
    [
        *[(parsers.duration, raw) for raw in ("", "-1", "soon", "5 parsecs", "1e3", None, True, "nan")],
        *[(parsers.size, raw) for raw in ("", "lots", "12q", "1k", "-5m", None, False, "0")],
        *[(parsers.cpus, raw) for raw in ("", "0", "0m", "-1", "many", "1,5", None, True)],
        *[(parsers.positive, raw) for raw in ("", "0", "-3", "two", "1.5", None, True, 2.5, "٣")],
        *[(parsers.count, raw) for raw in ("-1", "x", "9" * 30)],
        *[(parsers.umask, raw) for raw in ("9", "-7", "7777", True, 0o7777)],
        *[(parsers.boolean, raw) for raw in ("", "maybe", 2, None)],
        *[(parsers.worker_count, raw) for raw in ("two", "0", "2n+", "n*n", "-n", "", "2m+1")],
        *[(parsers.worker_class, raw) for raw in ("fast", "a.UvicornWorker", "gevent", "")],
        *[
            (parsers.addresses, raw)
            for raw in (
                "",
                "localhost",
                "1.2.3.4",
                "::1",
                "host:port",
                "1.2.3.4:99999",
                "unix:",
                "fd://x",
                None,
                [],
            )
        ],
        *[(parsers.warmup, raw) for raw in ("about", "", None)],
        *[(parsers.roads, raw) for raw in ("", "a", "a=lop", "=loop", {"a": "sync"}, {"a": None}, 5)],
        *[(parsers.thread_range, raw) for raw in ("64..16", "16..", "..4", "0..4", "1...3", True, "")],
        *[(parsers.words, raw) for raw in ("", ",", [], [1])],
        *[(parsers.path, raw) for raw in ("", "a\0b", 5)],
    ],
)
def test_it_is_refused(parse: Any, raw: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        parse(raw)


@pytest.mark.parametrize(
    ("formula", "cpus", "workers"),
    [
        ("2n+1", 2, 5),
        ("2n+1", 0.5, 3),
        ("n", 4, 4),
        ("2*n", 1.5, 4),
        ("n-1", 1, 1),
        ("1.5n", 3, 4),
        ("7", 64, 7),
    ],
)
def test_a_formula_counts_whole_cpus_rounded_up(formula: str, cpus: float, workers: int) -> None:
    count = parsers.worker_count(formula)
    assert count is not None
    assert count.workers(cpus) == workers


@pytest.mark.parametrize(
    "raw", ["gevent", "eventlet", "tornado", "daphne", "hypercorn.workers.AsyncioWorker", "my.ASGIWorker"]
)
def test_a_tutorials_worker_class_gets_a_sentence_of_its_own(raw: str) -> None:
    with pytest.raises(ParseError) as told:
        parsers.worker_class(raw)
    assert told.value.fix.startswith("Remove the option")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (units.format_size(512 * MIB), "512 MiB"),
        (units.format_size(1.5 * GIB), "1.5 GiB"),
        (units.format_size(700), "700 B"),
        (units.format_size(2048 * GIB), "2 TiB"),
        (units.format_count(27812.4), "27,812"),
        (units.format_count(9.96), "10"),
        (units.format_count(3.44), "3.4"),
        (units.format_count(0.0834), "0.08"),
        (units.format_count(0.0001), "0.01"),
        (units.format_count(0), "0"),
        (units.format_share(0.5), "50 %"),
        (units.format_clock(50602.9), "14:03:22 UTC"),
        (units.format_duration(30), "30 s"),
        (units.format_duration(0.5), "0.5 s"),
        (units.format_duration(600), "10 min"),
        (units.format_duration(7200), "2 h"),
        (units.format_cpus(1), "1 CPU"),
        (units.format_cpus(0.25), "0.25 CPUs"),
    ],
)
def test_amounts_are_written_for_people(text: str, expected: str) -> None:
    assert text == expected
