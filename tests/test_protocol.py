"""What supervisor and generation write to each other arrives, and what nobody knows is ignored."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.cli.control import _reload_failed
from django_prodserve.errors import Problem
from django_prodserve.supervisor.generation import GenerationProcess
from django_prodserve.supervisor.link import Supervised
from django_prodserve.supervisor.protocol import MessageKind, encode
from django_prodserve.supervisor.supervisor import Supervisor

FACTS = {
    "real": "/srv/shop-2",
    "links": {"/srv/shop": "/srv/shop-2"},
    "settings": "shop.settings",
    "binds": ["127.0.0.1:8000"],
    "workers": 3,
    "seconds_to_stop": 40.0,
}
RECORD = {"attempts": 0, "done": 0, "outcome": None, "ready": False, "generation": 1, "seconds_to_stop": 25.0}
SPEC = {
    "record": RECORD,
    "place": "",
    "notify": "",
    "watchdog": 0.0,
    "listeners": [],
    "log_format": "text",
    "boot_seconds": 300.0,
}
GIVEN = {
    "number": 1,
    "supervisor": os.getppid(),
    "place": "",
    "extra_workers": 0,
    "beats": 5.0,
    "listeners": [],
}


@pytest.fixture
def pair() -> Iterator[tuple[Supervisor, GenerationProcess, Supervised]]:
    """Return a supervisor, its first generation as it sees it, and that generation's end of the channel."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    first = {"pid": os.getpid(), "channel": ours.detach()}
    supervisor: Any = Supervisor({**SPEC, "record": {**RECORD}, "first": first})
    kept = Supervised({**GIVEN, "channel": theirs.detach()})
    yield supervisor, supervisor.booting, kept
    supervisor.booting = supervisor.booting or supervisor.serving
    supervisor.booting.end()
    kept.channel.close()


def hear(supervisor: Supervisor, child: GenerationProcess) -> list[MessageKind]:
    """Let the supervisor read and act; return the kinds that arrived."""
    messages = child.messages()
    for message in messages:
        supervisor._on_message(child, message)
    return [message["kind"] for message in messages]


def test_each_message_arrives(
    pair: tuple[Supervisor, GenerationProcess, Supervised], capfd: pytest.CaptureFixture[str]
) -> None:
    supervisor, child, kept = pair
    kept.failed("no such table")
    assert hear(supervisor, child) == [MessageKind.FAILED]
    assert child.reason == "no such table"
    assert child.problems == []
    kept.ready(FACTS)
    assert hear(supervisor, child) == [MessageKind.READY]
    assert supervisor.serving is child
    assert supervisor.record == {**RECORD, **FACTS, "ready": True}
    assert child.seconds_to_stop == 40.0
    kept.beat()
    kept.changed("shop/views.py")
    assert hear(supervisor, child) == [MessageKind.BEAT, MessageKind.CHANGED]
    assert supervisor.reload_wanted
    assert "shop/views.py changed: reloading" in capfd.readouterr().err
    kept.stopped_accepting()
    assert hear(supervisor, child) == [MessageKind.STOPPED_ACCEPTING]
    assert not kept.is_retired()
    child.channel.send(encode({"kind": MessageKind.RETIRE}))
    assert kept.is_retired()
    assert kept.is_retired()  # for good


def test_a_failed_reload_reaches_the_operator_as_its_problems(
    pair: tuple[Supervisor, GenerationProcess, Supervised],
) -> None:
    supervisor, child, kept = pair
    one = Problem("It broke.", "Correct it.", "urls.py, line 1", "project")
    two = Problem("No TLS.", "--certfile", code="W007", check="prodserve.W007")
    kept.failed("It broke.\n  urls.py, line 1\n  Correct it.", (one, two))
    hear(supervisor, child)
    supervisor.reload_started = time.monotonic()
    supervisor._fail_reload(child, child.reason, child.problems)
    outcome = json.loads(json.dumps(supervisor.record["outcome"]))
    first, second = _reload_failed(outcome, 1).problems
    assert first.message == "Reload failed; generation 1 keeps serving. It broke."
    assert (first.fix, first.where, first.code) == ("Correct it.", "urls.py, line 1", "reload-failed")
    assert second == two
    del outcome["problems"]  # of a process that died
    (died,) = _reload_failed(outcome, 1).problems
    assert (died.message, died.where) == (first.message, "urls.py, line 1\nCorrect it.")


@pytest.mark.parametrize("text", ["x", "\u2028"])
def test_the_longest_reason_fits_into_a_datagram(
    pair: tuple[Supervisor, GenerationProcess, Supervised], text: str
) -> None:
    supervisor, child, kept = pair
    long = text * 10_000
    kept.failed(long, [Problem(long, long, long)] * 9)
    assert hear(supervisor, child) == [MessageKind.FAILED]
    assert child.reason.startswith(text)


def test_a_state_does_not_hear_what_belongs_to_another(
    pair: tuple[Supervisor, GenerationProcess, Supervised],
) -> None:
    supervisor, child, kept = pair
    kept.changed("shop/views.py")
    kept.stopped_accepting()
    kept.beat()
    assert len(hear(supervisor, child)) == 3
    assert (supervisor.booting, supervisor.reload_wanted, supervisor.record) == (child, False, RECORD)


@pytest.mark.parametrize(
    "datagram", ["no JSON", "{}", "[]", "5", '"ready"', '{"kind": "renamed"}', '{"kind": []}']
)
def test_what_nobody_knows_is_ignored(
    pair: tuple[Supervisor, GenerationProcess, Supervised], datagram: str
) -> None:
    """A newer release may say more, on either side."""
    supervisor, child, kept = pair
    kept.channel.send(datagram.encode())
    kept.failed("known")
    assert hear(supervisor, child) == [MessageKind.FAILED]
    child.channel.send(datagram.encode())
    assert not kept.is_retired()


def test_a_message_without_its_fields_does_not_end_the_server(
    pair: tuple[Supervisor, GenerationProcess, Supervised], capfd: pytest.CaptureFixture[str]
) -> None:
    """A newer release may have renamed them."""
    supervisor, child, kept = pair
    kept.channel.send(b'{"kind": "failed"}')
    assert hear(supervisor, child) == [MessageKind.FAILED]
    assert "sent a message without 'reason': it is ignored" in capfd.readouterr().err
    kept.failed("later")
    assert hear(supervisor, child) == [MessageKind.FAILED]
    assert child.reason == "later"


def test_a_supervisor_loads_little() -> None:
    """It lives as long as the server: every module that it loads takes memory for good."""
    code = "import sys; sys.path.append(sys.argv[1]); import django_prodserve.supervisor.supervisor; "
    command = [sys.executable, "-I", "-S", "-c", f"{code}print(*sys.modules)", str(Path(__file__).parents[1])]
    loaded = set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert "django_prodserve.supervisor.protocol" in loaded
    assert not loaded & {"django", "dataclasses", "logging", "inspect", "hashlib", "tempfile", "psutil"}
