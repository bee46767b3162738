"""No request pays for its log: readers that stop or go, disks that are full, processes that are killed."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from .namespaces import mounted
from .serving import PATIENCE, SITE, serving, until

pytestmark = pytest.mark.slow

JSON = {"PRODSERVE_LOG_FORMAT": "json"}


@dataclass
class Piped:
    """A server whose standard output is a pipe that the test reads, or does not."""

    process: subprocess.Popen[bytes]
    reader: int
    errors: Path
    address: tuple[str, int]

    def ask(self, count: int, path: str = "/", status: int = 200) -> None:
        """Send requests over kept connections, each answered at once."""
        head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: {'x' * 150}\r\n\r\n".encode()
        with contextlib.ExitStack() as stack:
            client = stack.enter_context(socket.create_connection(self.address, PATIENCE))
            for _ in range(count):
                client.sendall(head)
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += client.recv(4096)
                    assert answer, "closed"
                assert f"HTTP/1.1 {status} ".encode() in answer
                length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                left = length - len(answer.partition(b"\r\n\r\n")[2])
                while left > 0:
                    left -= len(client.recv(left))
                if b"\r\nConnection: close\r\n" in answer:  # another worker has less to do
                    client = stack.enter_context(socket.create_connection(self.address, PATIENCE))

    def read(self) -> list[dict[str, Any]]:
        """Return all lines that come until the last writer has gone."""
        found = b""
        while data := os.read(self.reader, 2**16):
            found += data
        return [json.loads(line) for line in found.splitlines()]

    def workers(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if not child.children()
        ]


@contextlib.contextmanager
def piped(*flags: str, env: dict[str, str], tmp_path: Path, together: bool = False) -> Iterator[Piped]:
    """Serve with the access log on a pipe; errors go to a file, or the same way."""
    reader, writer = os.pipe()
    errors = tmp_path / "errors"
    with socket.create_server(("127.0.0.1", 0)) as listener, errors.open("wb") as file:
        process = subprocess.Popen(
            [
                *(sys.executable, "manage.py", "prodserve", "--bind", f"fd://{listener.fileno()}"),
                *("--access-log", "-", *flags),
            ],
            cwd=SITE,
            env={**env, **JSON},
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=writer if together else file,
            pass_fds=[listener.fileno()],
        )
        os.close(writer)
        server = Piped(process, reader, errors, listener.getsockname())
        family: list[psutil.Process] = []
        try:
            server.ask(1)
            yield server
        finally:
            if process.poll() is None:
                family = psutil.Process(process.pid).children(recursive=True)
                process.kill()
            process.wait(PATIENCE)
            for child in family:
                with contextlib.suppress(psutil.Error):
                    child.kill()
            with contextlib.suppress(OSError):
                os.close(reader)


def end(server: Piped) -> None:
    server.process.terminate()
    assert server.process.wait(PATIENCE) == 0


@pytest.mark.parametrize("together", [False, True], ids=["errors apart", "one pipe"])
def test_a_reader_that_stops_costs_lines_and_no_request(env: Any, tmp_path: Path, together: bool) -> None:
    flags = ("--workers", "2")
    with piped(*flags, env=env(), tmp_path=tmp_path, together=together) as server:
        pids = {worker.pid for worker in server.workers()}
        with ThreadPoolExecutor(4) as clients:
            for done in [clients.submit(server.ask, 3000) for _ in range(4)]:
                done.result()
        server.ask(5, "/boom/", 500)
        server.ask(100)
        if not together:
            until(lambda: "its reader has stopped. Requests are served; " in server.errors.read_text())
        with ThreadPoolExecutor(1) as reading:
            rest = reading.submit(server.read)
            until(lambda: {worker.pid for worker in server.workers()} == pids)  # nobody was replaced
            time.sleep(1.5)  # one more look: what was kept has left
            server.ask(3, "/?later")
            end(server)
            found = rest.result(PATIENCE)
    lines = [line for line in found if line["logger"] == "gunicorn.access"]
    assert [line["query"] for line in lines].count("later") == 3
    assert 1000 < len(lines) < 12_100
    assert not [line for line in found if "exception" in line and "view broke" not in line["exception"]]
    if together:
        assert any("lines are lost" in line.get("message", "") for line in found)


def test_a_reader_that_has_gone_costs_lines_and_no_request(env: Any, tmp_path: Path) -> None:
    with piped("--workers", "1", env=env(), tmp_path=tmp_path) as server:
        os.close(server.reader)
        server.ask(300)
        until(lambda: "Broken pipe. Requests are served; " in server.errors.read_text())
        server.ask(300)
        end(server)
        told = [json.loads(line) for line in server.errors.read_text().splitlines()]
    broken = [line for line in told if "Broken pipe" in line["message"]]
    # Each process tells it once: the arbiter, too, where the reader went before the line that it is ready.
    assert 1 <= len(broken) == len({line["pid"] for line in broken}) <= 2
    assert {line["level"] for line in broken} == {"error"}


@pytest.mark.parametrize("kind", ["prodserve", "gthread"])
def test_a_full_disk_is_told_once_and_hurts_nobody(env: Any, kind: str) -> None:
    flags = ("--worker-class", kind, "--workers", "1", "--access-log", "/dev/full")
    with serving(*flags, env=env()) as server:
        for _ in range(200):
            assert server.get("/").status == 200
        server.wait_for("The access log /dev/full cannot be written: No space left on device. ")
        assert server.get("/").status == 200
        assert server.stop() == 0
        assert server.output.count("No space left on device") == 1


def test_a_disk_with_room_again_gets_all_that_was_kept(env: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    small = f"mount -t tmpfs -o size=256k none {disk}"
    command = (*mounted(small, f"head -c 240k /dev/zero > {disk}/ballast"), "manage.py", "prodserve")
    flags = ("--workers", "1", "--access-log", f"{disk}/access.log")
    with serving(*flags, command=command, env=env()) as server:
        for number in range(300):
            assert server.get(f"/?number={number}&pad={'x' * 100}").status == 200
        server.wait_for("No space left on device. Requests are served; no lines are lost")
        within = Path(f"/proc/{server.process.pid}/root{disk}")
        assert (within / "access.log").read_text().count("number=") < 100
        (within / "ballast").unlink()
        until(lambda: (within / "access.log").read_text().count("number=") == 300)
        numbers = re.findall(r"\?number=(\d+)&pad=x{100} HTTP/1.1", (within / "access.log").read_text())
        assert sorted(map(int, numbers)) == [*range(300)]  # neighbours may end in another order


def test_nothing_is_lost_on_a_clean_stop(env: Any, tmp_path: Path) -> None:
    with piped("--workers", "2", env=env(), tmp_path=tmp_path) as server:
        with ThreadPoolExecutor(4) as clients:
            for done in [clients.submit(server.ask, 101, "/?counted") for _ in range(4)]:
                done.result()
        server.process.terminate()
        found = server.read()
        assert server.process.wait(PATIENCE) == 0
    assert sum(line.get("query") == "counted" for line in found) == 404


def test_a_killed_worker_takes_a_second_of_lines_along_at_most(env: Any, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with serving("--workers", "1", "--access-log", str(log), env=env()) as server:
        for _ in range(50):
            assert server.get("/?before").status == 200
        asked = time.monotonic()
        until(lambda: log.read_text().count("?before") == 50)
        assert time.monotonic() - asked < 10  # a second, on a quiet machine
        os.kill(server.workers(1)[0], signal.SIGKILL)
        server.wait_for("SIGKILL")
        assert server.get("/?after").status == 200
        assert server.stop() == 0
    assert (log.read_text().count("?before"), log.read_text().count("?after")) == (50, 1)
