"""An overload leaves two lines and two events, whoever refuses and for however long."""

from __future__ import annotations

import re
import threading
from typing import Any

import pytest

from .management import MANAGEMENT, ask
from .serving import Server, at_work, serving, until

pytestmark = pytest.mark.slow


def told(server: Server) -> list[dict[str, Any]]:
    """Return the events of an overload."""
    events = ask(server, "/status.json").json()["events"]
    return [event for event in events if event["kind"].startswith("overload")]


def test_an_overload_is_said_once_for_all_workers_when_it_begins_and_when_it_is_over(env: Any) -> None:
    flags = (*MANAGEMENT, "--workers", "2", "--threads", "1", "--queue-timeout", "0.1")
    refused: list[int] = []

    def hurry(over: threading.Event) -> None:
        while not over.is_set():
            if server.get("/slow/?seconds=0.2").status == 503:
                refused.append(1)
                over.wait(0.1)

    with serving(*flags, env=env()) as server:
        with at_work(hurry, 30):
            begun = server.wait_for("[WARNING] Overloaded: ")
            until(lambda: len(told(server)) == 1)
            until(lambda: len(refused) > 300)  # seconds of it
            assert [event["level"] for event in told(server)] == ["bad"]
        ended = server.wait_for("[WARNING] Overload over after ")
        until(lambda: len(told(server)) == 2)
        assert server.stop() == 0
        assert len([line for line in server.output.splitlines() if "[WARNING] Overload" in line]) == 2, (
            server.output
        )
    found = re.search(
        r"rejecting new requests with 503 \(queue wait ([\d.]+) s, ([\d]+)/2 threads busy\)", begun
    )
    assert found is not None, begun
    assert float(found[1]) > 0.1
    assert f": {len(refused):,} requests rejected" in ended
