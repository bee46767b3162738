"""The promises of the worker, on a real server: streams, fairness, overload, limits, a lossless end."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from .serving import PATIENCE, Server, copy_site, run, serving, until

Env = Callable[..., dict[str, str]]


def connect(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)


def raw(server: Server, data: bytes = b"", *, receive_buffer: int = 0) -> socket.socket:
    """Return a connection that has sent these bytes."""
    client = socket.socket()
    client.settimeout(PATIENCE)
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.connect(("127.0.0.1", server.port))
    client.sendall(data)
    return client


def read_all(client: socket.socket) -> bytes:
    """Return everything until the server closes."""
    with client:
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from .serving import environment

    env = environment(tmp_path_factory.mktemp("worker"))
    assert run("manage.py", "migrate", "-v", "0", env=env).returncode == 0
    with serving(
        "--workers", "2", "--threads", "4", "--max-body", "2m", "--access-log", "-", env=env
    ) as made:
        yield made


def test_events_of_a_stream_arrive_one_by_one(server: Server) -> None:
    with closing(connect(server)) as connection:
        connection.request("GET", "/events/?count=3&pause=0.2")
        answer = connection.getresponse()
        began = time.monotonic()
        arrived = []
        while line := answer.readline():
            arrived.append((line, time.monotonic() - began))
        assert [line for line, _ in arrived] == [b"0\n", b"1\n", b"2\n"]
        assert arrived[-1][1] - arrived[0][1] >= 0.3


def test_a_stream_that_nobody_reads_leaves_threads_to_others(server: Server) -> None:
    """Each of these is larger than the server runs ahead, and more of them come than there are threads."""
    readers = [
        raw(
            server,
            b"GET /events/?count=400&size=65536 HTTP/1.1\r\nHost: localhost\r\n\r\n",
            receive_buffer=4096,
        )
        for _ in range(5)
    ]
    try:
        for _ in range(20):
            assert server.get("/").status == 200
    finally:
        for reader in readers:
            reader.close()


def test_a_large_answer_to_a_slow_reader_is_whole(server: Server) -> None:
    for path, size in (("/echo/?size=5000000", 5_000_000), ("/events/?count=100&size=50000", 5_000_000)):
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        client = raw(server, request.encode(), receive_buffer=4096)
        time.sleep(0.3)  # the answer is made, and waits
        head, _, body = read_all(client).partition(b"\r\n\r\n")
        chunked = b"Transfer-Encoding: chunked" in head
        assert len(body) == size if not chunked else len(re.sub(rb"[0-9A-F]+\r\n|\r\n", b"", body)) == size


def test_pipelined_requests_are_answered_in_their_order(server: Server) -> None:
    asked = b"".join(
        b"POST /echo/?n=%d HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" % n
        for n in range(20)
    )
    answers = read_all(raw(server, asked + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
    assert [int(n) for n in re.findall(rb'"query": "n=(\d+)"', answers)] == list(range(20))
    assert answers.endswith(b"hello")


def test_a_body_beyond_the_limit_is_refused(server: Server) -> None:
    assert server.get("/echo/", "POST", body=bytes(2 * 2**20)).json()["length"] == 2 * 2**20
    heads = [
        b"Content-Length: 2097153\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n200001\r\n" + bytes(2097153),
    ]
    for rest in heads:
        answer = read_all(raw(server, b"POST /echo/ HTTP/1.1\r\nHost: localhost\r\n" + rest))
        assert answer.startswith(b"HTTP/1.1 413 "), answer[:80]


def test_a_client_may_wait_until_its_body_is_wanted(server: Server) -> None:
    head = b"POST /echo/ HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\n"
    client = raw(server, head + b"Content-Length: 5\r\n\r\n")
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.sendall(b"hello")
    assert b'"length": 5' in read_all(client)


def static_link(server: Server) -> str:
    return re.findall(r'href="(/static/[^"]+\.css)"', server.get("/admin/login/").text)[0]


@pytest.mark.parametrize("accepted", ["", "gzip", "br", "gzip;q=0", "identity"])
def test_the_short_way_to_a_static_file_says_what_the_long_way_says(server: Server, accepted: str) -> None:
    link = static_link(server)
    headers = {"Accept-Encoding": accepted} if accepted else {}
    short, long = server.get(link, headers=headers), server.get(link, headers=headers | {"If-Range": '"no"'})
    for answer in (short, long):
        answer.headers.pop("date")
    assert short.headers.pop("x-request-id") != long.headers.pop("x-request-id")
    assert short.status == long.status == 200
    assert short.headers == long.headers
    assert short.body == long.body
    again = server.get(link, headers=headers | {"If-None-Match": short.headers["etag"]})
    assert again.status == 304
    assert server.get(link, "HEAD").status == 200
    assert server.get(link, "POST").status == 405


def test_every_request_has_its_access_line(server: Server) -> None:
    link = static_link(server)
    marks = [f"/?mark={time.monotonic_ns()}", f"{link}?mark={time.monotonic_ns()}"]
    for path in marks:
        server.get(path, headers={"User-Agent": 'a "quoted" agent', "Referer": "http://x/\\"})
    for path in marks:
        until(lambda path=path: path in server.output, lambda: server.output)  # type: ignore[misc]
        (line,) = [text for text in server.output.splitlines() if path in text]
        assert re.fullmatch(
            r'127\.0\.0\.1 - - \[[^]]+ \+0000\] "GET \S+ HTTP/1.1" 200 \d+ '
            r'"http://x/\\x5c" "a \\x22quoted\\x22 agent" '
            r"[0-9a-f]{20} (-|shop\.urls\.hello) [0-9.]+ms [0-9.]+ms",
            line,
        ), line


def test_connections_spread_over_workers_and_all_threads_are_used(env: Env) -> None:
    with (
        serving("--workers", "2", "--threads", "8", env=env()) as server,
        ThreadPoolExecutor(32) as clients,
    ):
        gate, seen_workers = threading.Barrier(32), set()

        def both_serve() -> bool:
            seen_workers.add(server.get("/slow/?seconds=0").text.split()[0])
            return len(seen_workers) == 2

        until(both_serve)

        def ask(_: int) -> Counter[str]:
            with closing(connect(server)) as connection:
                gate.wait(PATIENCE)
                seen: Counter[str] = Counter()
                for _ in range(8):
                    connection.request("GET", "/slow/?seconds=0.05")
                    seen[connection.getresponse().read().decode().split()[0]] += 1
                return seen

        began = time.monotonic()
        workers = [next(iter(seen)) for seen in clients.map(ask, range(32))]
        took = time.monotonic() - began
        spread = sorted(Counter(workers).values())
        assert len(spread) == 2, spread
        assert spread[0] >= 10, spread  # 16 on a machine with nothing else to do
        assert took < 8 * 32 / 320 * 3


TURNS = """
running = []
def compute(request):
    beside = len(running)
    running.append(None)
    until = time.thread_time() + 0.006  # the GIL changes hands every 5 ms; after 50 ms more run
    while time.thread_time() < until:
        pass
    running.pop()
    return HttpResponse(beside)
urlpatterns += [path("compute/", compute)]
"""


def test_requests_that_only_compute_take_turns(env: Env, tmp_path: Any) -> None:
    site = copy_site(tmp_path, TURNS)
    with (
        serving("--workers", "1", "--threads", "8", env=env(), cwd=site) as server,
        ThreadPoolExecutor(8) as clients,
    ):
        beside: deque[int] = deque(maxlen=50)
        enough = threading.Event()

        def ask() -> None:
            with closing(connect(server)) as connection:
                while not enough.is_set():
                    connection.request("GET", "/compute/")
                    beside.append(int(connection.getresponse().read()))

        asking = [clients.submit(ask) for _ in range(8)]
        try:
            until(lambda: len(beside) == 50)
            until(lambda: max(beside) <= 2, lambda: str(beside))
        finally:
            enough.set()
        assert [future.result() for future in asking] == [None] * 8


def test_kept_connections_find_their_way_to_a_worker_that_is_idle(env: Env) -> None:
    with (
        serving("--workers", "1", "--threads", "2", env=env()) as server,
        ThreadPoolExecutor(8) as clients,
    ):
        latest: dict[int, str] = {}
        enough = threading.Event()

        def ask(number: int) -> int:
            count = 0
            with closing(connect(server)) as connection:
                while not enough.is_set():
                    connection.request("GET", "/slow/?seconds=0.05")
                    answer = connection.getresponse()
                    assert answer.status == 200
                    latest[number] = answer.read().decode().split()[0]
                    count += 1
            return count

        asking = [clients.submit(ask, number) for number in range(8)]
        try:
            until(lambda: len(latest) == 8)
            assert len(set(latest.values())) == 1
            server.process.send_signal(signal.SIGTTIN)
            until(lambda: sorted(Counter(latest.values()).values()) in ([3, 5], [4, 4]), lambda: str(latest))
        finally:
            enough.set()
        assert all(future.result() for future in asking)


def test_an_overload_is_refused_at_once_and_is_over_at_once(env: Env) -> None:
    """A queue that stands for longer than the timeout, with views that wait; probes by a client beside it."""
    flags = ("--workers", "1", "--threads", "2", "--queue-timeout", "0.2")
    with serving(*flags, env=env()) as server, ThreadPoolExecutor(60) as clients:
        end = time.monotonic() + 4

        def ask(_: int) -> list[tuple[float, int, str]]:
            seen = []
            with closing(connect(server)) as connection:
                while time.monotonic() < end:
                    began = time.monotonic()
                    connection.request("GET", "/slow/?seconds=0.05")
                    answer = connection.getresponse()
                    answer.read()
                    seen.append(
                        (time.monotonic() - began, answer.status, answer.getheader("Retry-After", ""))
                    )
                    time.sleep(0.05)
            return seen

        rows = [row for seen in clients.map(ask, range(60)) for row in seen]
        refused = sorted(seconds for seconds, status, _ in rows if status == 503)
        assert {status for _, status, _ in rows} == {200, 503}
        assert all(retry == "1" for _, status, retry in rows if status == 503)
        assert refused[len(refused) // 2] < 0.2, refused
        assert sum(status == 200 for _, status, _ in rows) > 60  # 160 at most
        until(lambda: server.get("/").status == 200)


def test_what_is_accepted_is_answered_when_a_worker_ends(env: Env) -> None:
    """Kept connections, requests that run, connections that nobody has taken yet: TERM loses none of them."""
    with serving("--workers", "2", "--threads", "2", env=env()) as server, ThreadPoolExecutor(16) as clients:
        failures: list[str] = []
        started = threading.Barrier(9)

        def ask(_: int) -> int:
            answered = 0
            connection = connect(server)
            while True:
                try:
                    connection.request("GET", "/slow/?seconds=0.1")
                except ConnectionRefusedError:
                    return answered
                try:
                    answer = connection.getresponse()
                    answer.read()
                except OSError as error:
                    failures.append(repr(error))
                    return answered
                if answered == 0:
                    started.wait(PATIENCE)
                answered += 1
                if answer.getheader("Connection") == "close":
                    connection.close()

        results = [clients.submit(ask, n) for n in range(8)]
        started.wait(PATIENCE)
        server.process.send_signal(signal.SIGTERM)
        assert all(result.result(PATIENCE) > 0 for result in results)
        assert server.process.wait(PATIENCE) == 0
        assert failures == []


STALL = """

def stall(request):
    \"\"\"Keep every other thread from running, as a C extension may.\"\"\"
    import ctypes

    ctypes.PyDLL(None).usleep(2_500_000)
    return HttpResponse()


urlpatterns.append(path("stall/", stall))
"""


def test_a_request_that_is_here_when_its_connection_is_to_be_closed_is_answered(
    env: Env, tmp_path: Any
) -> None:
    """The worker runs again after the deadline of connections whose next request came before it."""
    site = copy_site(tmp_path, STALL)
    flags = ("--workers", "1", "--threads", "2", "--keep-alive", "2")
    with serving(*flags, env=env(), cwd=site) as server, ExitStack() as stack:
        clients = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE) for _ in range(20)]
        for client in clients:
            stack.callback(client.close)
            client.request("GET", "/")
            assert client.getresponse().read() == b"hello"
        with ThreadPoolExecutor(1) as other:
            stalled = other.submit(server.get, "/stall/")
            time.sleep(0.5)  # it stands still by now, or the requests are answered at once
            for client in clients:
                client.request("GET", "/")
            assert [client.getresponse().status for client in clients] == [200] * len(clients)
            assert stalled.result().status == 200


def test_a_worker_that_is_killed_takes_only_its_own_requests_with_it(env: Env) -> None:
    with serving("--workers", "2", "--threads", "4", env=env()) as server:
        victim = server.workers(2)[0]
        answered = failed = 0
        deadline = time.monotonic() + 3
        killed = False
        while time.monotonic() < deadline:
            try:
                answered += server.get("/").status == 200
            except OSError:
                failed += 1
            if answered == 20 and not killed:
                os.kill(victim, signal.SIGKILL)
                killed = True
        assert killed
        assert failed <= 1
        assert answered > 50
        until(lambda: victim not in server.workers() and len(server.workers()) == 2)


def test_a_crowd_of_idle_connections_costs_nothing(env: Env) -> None:
    with serving("--workers", "1", "--threads", "2", env=env()) as server:
        worker = psutil.Process(server.workers(1)[0])
        idle = [raw(server) for _ in range(500)]
        try:
            until(lambda: worker.num_fds() > 500)
            before = sum(worker.cpu_times()[:2])
            time.sleep(1.0)
            assert sum(worker.cpu_times()[:2]) - before < 0.3
            assert server.get("/").status == 200
            assert worker.num_threads() <= 5
        finally:
            for connection in idle:
                connection.close()
        until(lambda: worker.num_fds() < 100)


def test_where_descriptors_run_out_the_server_serves_on(env: Env) -> None:
    start = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64));" + MANAGE
    command = ["-c", start, "prodserve"]
    with serving("--workers", "1", "--threads", "2", env=env(), command=command) as server:
        crowd = [raw(server) for _ in range(80)]
        for connection in crowd:
            connection.close()
        until(server.answers)
        assert "Traceback" not in server.output


MANAGE = (
    "import os, sys; sys.path.insert(0, '.');"
    "os.environ.setdefault('DJANGO_SETTINGS_MODULE', 'shop.settings');"
    "from django.core.management import execute_from_command_line;"
    "execute_from_command_line(['manage.py', *sys.argv[1:]])"
)


def test_it_serves_where_there_is_no_epoll(env: Env) -> None:
    """As on macOS: with poll, which is another way through poller.py."""
    command = ["-c", "import select; del select.epoll;" + MANAGE, "prodserve"]
    with (
        serving("--workers", "2", "--threads", "2", env=env(), command=command) as server,
        ThreadPoolExecutor(8) as clients,
    ):

        def ask(_: int) -> bytes:
            with closing(connect(server)) as connection:
                for path in ("/", "/slow/?seconds=0.02", "/echo/?size=300000", "/stream/"):
                    connection.request("POST" if "echo" in path else "GET", path, body=bytes(100_000))
                    body = connection.getresponse().read()
                return body

        assert len({*clients.map(ask, range(16))}) == 1


def test_a_fault_of_the_application_costs_one_request(env: Env) -> None:
    with serving("--workers", "1", "--threads", "2", env=env()) as server:
        for path in ("/raw/?fault=raise", "/raw/?fault=header", "/raw/?fault=exit"):
            assert server.get(path).status == 500, path
        for path in ("/raw/?fault=short", "/raw/?fault=later"):
            with pytest.raises((http.client.IncompleteRead, ConnectionError)):
                server.get(path)
        assert server.get("/").status == 200
        assert "the view broke" in server.output


@pytest.mark.skipif(sys.platform != "linux", reason="/dev/full is Linux's")
def test_bodies_go_to_a_file_and_a_full_disk_is_said(env: Env, tmp_path: Any) -> None:
    start = "from django_prodserve.http import limits as l; l.DISK_RESERVE, l.DISK_RESERVE_SHARE = 2**60, 1;"
    start += MANAGE
    with serving("--workers", "1", env=env(), command=["-c", start, "prodserve"]) as server:
        assert server.get("/echo/", "POST", body=bytes(60_000)).status == 200
        assert server.get("/echo/", "POST", body=bytes(600_000)).status == 503
        assert server.get("/echo/?size=5000000").status == 200  # what Django has made stays in memory
        assert "A request body was refused: TMPDIR has " in server.output


def test_a_default_timeout_of_the_projects_holds_up_nobody(env: Any, tmp_path: Path) -> None:
    """With it, CPython waits in recv for so long, whatever the flag says; here a silent client came first."""
    site = copy_site(tmp_path)
    settings = site / "shop" / "settings.py"
    settings.write_text(settings.read_text() + "import socket\nsocket.setdefaulttimeout(20)\n")
    with ExitStack() as stack:
        server = stack.enter_context(serving("--workers", "1", env=env(), cwd=site))
        stack.enter_context(socket.create_connection(("127.0.0.1", server.port), PATIENCE))
        began = time.monotonic()
        assert server.get("/").status == 200
        assert time.monotonic() - began < 10
