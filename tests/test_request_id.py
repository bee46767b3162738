"""Whose word counts for a request's id, and how the spellings of X-Request-Start are read."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from django_prodserve.logs.environ_keys import ID, QUEUE
from django_prodserve.middleware.request_id import ID_GENERATOR, RequestIDs, seconds_since

NOW = 1_800_000_000.5
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        pytest.param("t=1800000000.25", 0.25, id="nginx: seconds"),
        pytest.param("1800000000250", 0.25, id="Heroku: milliseconds"),
        pytest.param("t=1800000000250000", 0.25, id="Apache: microseconds"),
        pytest.param("1800000000250000000", 0.25, id="nanoseconds"),
        pytest.param("t=1, t=1800000000.25", 0.25, id="the nearest proxy's"),
        pytest.param("t=1800000001", 0.0, id="a clock that is ahead"),
        pytest.param("t=1700000000", None, id="years ago"),
        pytest.param("-5", None, id="negative"),
        pytest.param("soon", None, id="no number"),
        pytest.param("9" * 400, None, id="endless"),
        pytest.param("", None, id="empty"),
    ],
)
def test_the_start_of_a_request_is_read_in_its_usual_spellings(text: str, seconds: float | None) -> None:
    assert seconds_since(text, NOW) == (None if seconds is None else pytest.approx(seconds, abs=1e-4))


def identify(peer: str = "127.0.0.1", **headers: str) -> dict[str, Any]:
    environ = {"REMOTE_ADDR": peer, **{f"HTTP_{name}": value for name, value in headers.items()}}
    RequestIDs(lambda environ: environ.get("REMOTE_ADDR") == "127.0.0.1")(environ)
    return environ


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"X_REQUEST_ID": "a1-B2.c3"}, "a1-B2.c3"),
        ({"TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
        ({"X_REQUEST_ID": "a1", "TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01"}, "a1"),
        ({"X_REQUEST_ID": 'a"', "TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01"}, TRACE),
    ],
)
def test_a_trusted_peer_names_the_request(headers: dict[str, str], name: str) -> None:
    assert identify(**headers)[ID] == name
    assert identify("203.0.113.9", **headers)[ID].startswith(ID_GENERATOR.prefix)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X_REQUEST_ID": "a" * 65},
        {"X_REQUEST_ID": "a\nb"},
        {"X_REQUEST_ID": "a b"},
        {"X_REQUEST_ID": "a\n"},
        {"TRACEPARENT": f"00-{'0' * 32}-00f067aa0ba902b7-01"},
        {"TRACEPARENT": f"ff-{TRACE}-00f067aa0ba902b7-01"},
    ],
)
def test_what_is_no_id_is_not_taken(headers: dict[str, str]) -> None:
    assert identify(**headers)[ID].startswith(ID_GENERATOR.prefix)


def test_only_a_trusted_peer_says_how_long_a_request_waited() -> None:
    assert QUEUE in identify(X_REQUEST_START=f"t={time.time()}")
    assert QUEUE not in identify("203.0.113.9", X_REQUEST_START=f"t={time.time()}")


def test_a_forked_process_makes_ids_of_its_own() -> None:
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(writer, ID_GENERATOR.next().encode())
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        childs = pipe.read()
    assert len(childs) == 20
    assert not childs.startswith(ID_GENERATOR.prefix)
