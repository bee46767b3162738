"""A client in a hurry does not notice those that take their time, whatever they take it for."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from .raw import Broken, Talk
from .serving import PATIENCE, Server, environment, serving, until
from .slow import crowd, hurry, kinds

CLIENTS = 60
SECONDS = 1.5  # a server that lends threads to them stalls at once, and for good
KINDS = kinds()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("slow")
    with serving("--workers", "2", "--threads", "4", env=environment(folder)) as running:
        running.workers(2)
        yield running


@pytest.mark.parametrize("kind", KINDS)
def test_a_fast_client_beside_slow_ones(server: Server, kind: str) -> None:
    address = ("127.0.0.1", server.port)
    with crowd(address, KINDS[kind], CLIENTS) as clients:
        seen = hurry(address, SECONDS)
        assert clients.opened >= CLIENTS
    assert seen.failures == []
    assert len(seen.times) >= 6
    assert seen.percentile(0.95) < 1.0, f"{sorted(seen.times)[-5:]}, {clients.ends}"


# The worker's deadlines, short: what is tested is that each ends what it should, with the answer it should.
SHORT = """
import runpy, sys
from django_prodserve.http import limits
limits.HEAD_SECONDS, limits.STALL_SECONDS, limits.LINGER_SECONDS = 1.0, 1.0, 0.5
sys.argv[0] = "manage.py"
runpy.run_path("manage.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ("prodserve", "--bind", "127.0.0.1:0", "--workers", "1", "--threads", "2", "--keep-alive", "1")
    environ = environment(tmp_path_factory.mktemp("impatient"))
    with serving(*flags, env=environ, command=("-c", SHORT), bind=()) as running:
        yield running


HEAD = b"POST /echo/ HTTP/1.1\r\nHost: localhost\r\n"


@pytest.mark.parametrize(
    ("sent", "trickle"),
    [
        pytest.param(HEAD, b"", id="half a head"),
        pytest.param(HEAD + b"A: ", b"a", id="a head that never ends"),
        pytest.param(HEAD + b"Content-Length: 1000\r\n\r\nhello", b"", id="half a body"),
        pytest.param(HEAD + b"Content-Length: 1000\r\n\r\n", b"a", id="a body below the least rate"),
        pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhe", b"", id="half a chunk"),
    ],
)
def test_a_request_that_does_not_come_to_its_end_is_answered_with_408(
    impatient: Server, sent: bytes, trickle: bytes
) -> None:
    began = time.monotonic()
    with Talk(("127.0.0.1", impatient.port)) as talk:
        talk.send(sent)
        while not arrives(talk, 0.1):
            assert time.monotonic() - began < PATIENCE
            talk.send(trickle)
        answer = talk.answer()
        assert answer is not None
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert talk.answer() is None
    assert time.monotonic() - began > 0.9


def arrives(talk: Talk, seconds: float) -> bool:
    return bool(select.select([talk.socket], [], [], seconds)[0])


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"], ids=["new", "kept alive"]
)
def test_a_silent_connection_is_closed_without_a_word(impatient: Server, sent: bytes) -> None:
    with Talk(("127.0.0.1", impatient.port)) as talk:
        if sent:
            talk.send(sent)
            answer = talk.answer()
            assert answer is not None
            assert answer.status == 200
        assert talk.answer() is None


def test_a_slow_body_above_the_least_rate_arrives(impatient: Server) -> None:
    with Talk(("127.0.0.1", impatient.port)) as talk:
        talk.send(HEAD + b"Content-Length: 3000\r\nConnection: close\r\n\r\n")
        for _ in range(30):  # 3 s, three times the time in which a body must move
            assert not arrives(talk, 0.1)
            talk.send(b"x" * 100)
        answer = talk.answer()
        assert answer is not None
        assert answer.json()["length"] == 3000


def test_a_reader_that_has_stopped_is_cut_off(impatient: Server) -> None:
    size = 5 * 2**20
    [worker] = impatient.workers(1)
    with Talk(("127.0.0.1", impatient.port)) as talk:
        talk.send(b"GET /echo/?size=%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % size)
        assert arrives(talk, PATIENCE)
        client = talk.socket.getsockname()
        until(
            lambda: all(
                net_connection.raddr != client
                for net_connection in psutil.Process(worker).net_connections("tcp4")
            )
        )
        with pytest.raises((Broken, ConnectionResetError)):
            talk.answer()


def test_a_client_that_never_closes_is_left_after_a_while(impatient: Server) -> None:
    [worker] = impatient.workers(1)
    with Talk(("127.0.0.1", impatient.port)) as talk:
        talk.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nA : refused\r\n\r\n")
        answer = talk.answer()
        assert answer is not None
        assert answer.status == 400
        client = talk.socket.getsockname()
        until(
            lambda: all(
                net_connection.raddr != client
                for net_connection in psutil.Process(worker).net_connections("tcp4")
            )
        )
