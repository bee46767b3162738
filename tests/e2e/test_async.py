"""Async views on the asyncio loop of real workers: beside threads, over streams, with clients that leave."""

from __future__ import annotations

import http.client
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .management import MANAGEMENT, ask
from .serving import Server, run, serving, until

Env = Callable[..., dict[str, str]]
LOOP = "prodserve-asyncio"
FRAMES = "django.middleware.clickjacking.XFrameOptionsMiddleware"
NOISE = "whitenoise.middleware.WhiteNoiseMiddleware"
BELOW = (
    "sessions.middleware.SessionMiddleware",
    "auth.middleware.AuthenticationMiddleware",
    "messages.middleware.MessageMiddleware",
)


@pytest.fixture
def project(env: Env) -> dict[str, str]:
    """A project with async views; one worker, so that what a view notes is seen by the next request."""
    return env(ROOT_URLCONF="shop.async_urls", WSGI_APPLICATION=None)


class Stream:
    """A request whose response is read as it arrives."""

    def __init__(self, server: Server, path: str) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        self.connection.request("GET", path)
        self.response = self.connection.getresponse()
        self.read, self.readline = self.response.read, self.response.readline

    def close(self) -> None:
        """Leave, whatever is still to come."""
        self.response.close()
        self.connection.close()


Open = Callable[[Server, str], Stream]


@pytest.fixture
def opened() -> Iterator[Callable[[Server, str], Stream]]:
    """Give a function that opens streams; all are closed at the end."""
    streams: list[Stream] = []

    def open_one(server: Server, path: str) -> Stream:
        streams.append(Stream(server, path))
        return streams[-1]

    yield open_one
    for stream in streams:
        stream.close()


def ended(server: Server) -> list[str]:
    found: list[str] = server.get("/async/ended/").json()
    return found


def test_async_views_run_on_the_loop_and_sync_views_beside_it(project: dict[str, str]) -> None:
    with serving("--workers", "1", "--threads", "2", "--access-log", "-", env=project) as server:
        assert server.get("/async/where/").json()["thread"] == LOOP
        assert server.get("/").text == "hello"
        own, called = server.get("/sync/where/").json()
        assert own != LOOP == called
        sent = server.get("/async/size/", "POST", body=b"x" * 300_000)
        assert sent.text == "300000"
        assert len(sent.headers["x-request-id"]) == 20

        # All of these wait until all have come: 2 threads could not hold them.
        with ThreadPoolExecutor(30) as clients:
            met = clients.map(lambda number: server.get("/async/meet/?count=30").status, range(30))
            assert [*met] == [200] * 30

        with ThreadPoolExecutor(16) as clients:
            codes = ["de", "fr", "nl", "es"] * 25
            said = clients.map(lambda code: server.get(f"/async/language/{code}/").text, codes)
            assert [*said] == codes

        assert server.get("/async/boom/").status == 500
        server.wait_for("RuntimeError: the view broke")
        server.wait_for(re.compile(r'"GET /async/boom/ HTTP/1\.1" 500 .* shop\.async_urls\.boom ').search)
        assert Path(__file__).parent.parent.joinpath("site/shop/async_urls.py").read_bytes() == (
            server.get("/async/file/").body
        )


def test_requests_on_one_connection_take_the_road_of_each(project: dict[str, str]) -> None:
    with (
        serving("--workers", "1", env=project) as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as client,
    ):
        paths = ["/async/hello/", "/", "/async/where/", "/async/hello/", "/"]
        client.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths))
        replies = client.makefile("rb")
        bodies = []
        for _ in paths:
            length = 0
            while (line := replies.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split()[1])
            bodies.append(replies.read(length))
        assert [*map(len, bodies)] == [5, 5, len(bodies[2]), 5, 5]
        assert LOOP.encode() in bodies[2]


def test_a_stream_arrives_event_by_event_and_ends_with_its_client(
    project: dict[str, str], opened: Open
) -> None:
    with serving("--workers", "1", "--threads", "1", *MANAGEMENT, env=project) as server:
        stream = opened(server, "/async/steps/?name=read")
        assert stream.readline() == b"data: 0\n"
        assert server.get("/async/step/").text == "1"  # the next event is sent only now
        stream.readline()
        assert stream.readline() == b"data: 1\n"
        assert ended(server) == []
        stream.close()
        until(lambda: ended(server) == ["read"])

        assert server.get("/async/events/?count=21&pause=0.1").text.endswith("data: 20\n\n")
        seconds = re.search(r"request_duration_seconds_sum\S* (\S+)", ask(server, "/metrics").text)
        assert seconds is not None
        assert float(seconds[1]) < 2  # the stream counts with the time to its beginning

        streams = [opened(server, f"/async/steps/?name={number}") for number in range(50)]
        assert all(stream.readline() == b"data: 0\n" for stream in streams)
        assert server.get("/").text == "hello"  # the only thread is free
        assert ask(server, "/status.json").json()["workers"][0]["async"] == 50
        assert 'prodserve_async_requests{worker="0"} 50.0' in ask(server, "/metrics").text
        here = ("--bind", server.address.removeprefix("http://"))  # other tests serve this directory, too
        assert ", 50 async, " in run("manage.py", "prodserve", "status", *here, env=project).stdout
        dumped = run("manage.py", "prodserve", "dump", *here, env=project).stdout
        assert "50 async requests on the asyncio loop; the oldest 16 are\nGET /async/steps/ [" in dumped
        assert dumped.count("GET /async/steps/ [") == 16
        assert len(re.findall(r'async_urls\.py", line \d+, in pieces\n +await STEP\.wait\(\)', dumped)) == 16
        for stream in streams:
            stream.close()
        until(lambda: len(ended(server)) == 52)

        stream = opened(server, "/async/sync-steps/?name=adopted")
        assert stream.readline() == b"data: 0\n"
        assert server.get("/").text == "hello"  # the view has returned, and its thread is free
        server.get("/async/step/")
        stream.readline()
        assert stream.readline() == b"data: 1\n"
        stream.close()
        until(lambda: "adopted" in ended(server))

        waits = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        waits.request("GET", "/async/nap/?seconds=30&name=left")
        until(lambda: bool(server.get("/async/running/").json()))
        waits.close()
        until(lambda: "left" in ended(server))


def test_a_client_that_does_not_read_delays_nobody(project: dict[str, str], opened: Open) -> None:
    with serving("--workers", "1", "--threads", "1", env=project) as server:
        slow = opened(server, "/async/events/?count=2000&size=20000&name=slow")
        assert server.get("/async/hello/").text == "hello"
        assert server.get("/").text == "hello"
        body = slow.read()
        assert len(body) == 2000 * 20000
        assert ended(server) == ["slow"]


def test_a_request_that_takes_too_long_is_cancelled(project: dict[str, str], opened: Open) -> None:
    with serving("--workers", "1", "--timeout", "1", env=project) as server:
        stream = opened(server, "/async/steps/")
        assert stream.readline() == b"data: 0\n"
        late = server.get("/async/nap/?seconds=30&name=late")
        assert late.status == 504
        assert ended(server) == ["late"]
        server.wait_for("Request timed out after 1 s, interrupting it: GET /async/nap/")
        server.wait_for("async_urls.py")  # where the task waited
        server.get("/async/step/")
        stream.readline()
        assert stream.readline() == b"data: 1\n"  # an event stream may wait as long as it likes


def test_what_blocks_the_loop_is_named_while_sync_views_are_served(project: dict[str, str]) -> None:
    with serving("--workers", "1", env=project) as server:
        blocking = threading.Thread(target=server.get, args=("/async/block/?seconds=3",))
        blocking.start()
        line = server.wait_for("blocks the asyncio loop")
        assert blocking.is_alive()
        assert server.get("/").text == "hello"
        assert blocking.is_alive()
        assert re.search(r"GET /async/block/ \(id \w+\) blocks .*async_urls\.py, line \d+ \(block\)", line)
        blocking.join()
        assert server.get("/async/hello/").text == "hello"


def test_a_stop_ends_streams_and_lets_requests_finish(project: dict[str, str], opened: Open) -> None:
    with serving("--workers", "1", env=project) as server:
        stream = opened(server, "/async/steps/?name=stream")
        assert stream.readline() == b"data: 0\n"
        naps: list[int] = []
        request = threading.Thread(
            target=lambda: naps.append(server.get("/async/nap/?seconds=2&name=nap").status)
        )
        request.start()
        until(lambda: bool(server.get("/async/running/").json()))
        server.process.send_signal(signal.SIGTERM)
        assert stream.read() == b"\n"  # complete: the last chunk has come
        request.join()
        assert naps == [200]
        server.process.wait(timeout=30)


def test_a_stop_tells_those_that_would_be_cut(project: dict[str, str]) -> None:
    with serving("--workers", "1", "--graceful-timeout", "3", env=project) as server:
        answers: list[int] = []
        poll = threading.Thread(
            target=lambda: answers.append(server.get("/async/nap/?seconds=30&name=poll").status)
        )
        poll.start()
        until(lambda: bool(server.get("/async/running/").json()))
        server.process.send_signal(signal.SIGTERM)
        server.wait_for(re.compile(r"Stopping: [12] requests?").search)  # the one that asked may be one, too
        poll.join()
        assert answers == [503]
        server.process.wait(timeout=30)


def test_djangos_own_handler_serves_where_ours_is_off(project: dict[str, str], opened: Open) -> None:
    with serving("--workers", "1", "--speedups", "off", env=project) as server:
        assert "Django's own handler: --speedups off" in server.output
        assert server.get("/async/size/", "POST", body=b"x" * 200_000).text == "200000"
        assert server.get("/async/where/").json()["thread"] == LOOP
        stream = opened(server, "/async/steps/?name=left")
        assert stream.readline() == b"data: 0\n"
        stream.close()
        until(lambda: ended(server) == ["left"])


def test_behind_whitenoise_async_views_hold_no_thread_either(env: Env) -> None:
    above = ["django.middleware.security.SecurityMiddleware", FRAMES, NOISE]
    below = [f"django.contrib.{name}" for name in BELOW]
    settings = env(ROOT_URLCONF="shop.async_urls", WSGI_APPLICATION=None, MIDDLEWARE=[*above, *below])
    with serving("--workers", "1", "--threads", "2", env=settings) as server:
        with ThreadPoolExecutor(30) as clients:
            met = clients.map(lambda number: server.get("/async/meet/?count=30").status, range(30))
            assert [*met] == [200] * 30
        assert server.get("/static/admin/css/base.css").status == 200
        assert server.get("/").text == "hello"


def test_hooks_of_gunicorn_see_each_request(env: Env) -> None:
    settings = env(
        ROOT_URLCONF="shop.async_urls",
        WSGI_APPLICATION=None,
        PRODSERVE={"GUNICORN": {"pre_request": "shop.hooks.pre_request"}},
    )
    with serving("--workers", "1", env=settings) as server:
        assert "all views run in threads: Gunicorn's pre_request must see each request" in server.output
        assert server.get("/async/where/").json()["thread"] != LOOP
        server.wait_for("saw /async/where/")


def test_a_wrapper_around_django_sees_each_request(env: Env) -> None:
    with serving("--workers", "1", env=env(ROOT_URLCONF="shop.async_urls")) as server:
        assert "all views run in threads: shop.wsgi.application" in server.output
        assert server.get("/async/where/").json()["thread"] != LOOP
