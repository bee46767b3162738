"""Send requests for a while: with wrk where it is installed, otherwise with threads."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from views import View

SCRIPT = Path(__file__).parent / "wrk.lua"
TIMEOUT = 10  # seconds for one response
OPTIONS = [f"--timeout={TIMEOUT}s", f"--script={SCRIPT}"]


@dataclass
class Load:
    """What a client saw; times in ms."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    max: float


def client(seconds: float) -> str:
    """Return which client measures: wrk knows whole seconds only."""
    return "wrk" if shutil.which("wrk") and seconds == int(seconds) else "python"


def put(view: View, path: str, port: int, connections: int, seconds: float) -> Load:
    """Load a view with the client that fits."""
    send = wrk if client(seconds) == "wrk" else threads
    return send(view, path, port, connections, seconds)


def wrk(view: View, path: str, port: int, connections: int, seconds: float) -> Load:
    environ = {"BENCH_METHOD": view.method, "BENCH_BODY": str(view.body), "BENCH_CLOSE": str(int(view.close))}
    said = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", *OPTIONS, f"http://127.0.0.1:{port}{path}"],
        env=os.environ | environ,
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 3 * TIMEOUT,
    ).stdout
    return Load(**json.loads(said.strip().splitlines()[-1]))


@dataclass
class Client(threading.Thread):
    """One connection that asks, reads to the end of the body, and asks again."""

    view: View
    path: str
    port: int
    deadline: float
    times: list[float] = field(default_factory=list)
    errors: int = 0

    __hash__ = threading.Thread.__hash__

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)
        with contextlib.closing(connection):
            while time.perf_counter() < self.deadline and self.errors < 100:
                began = time.perf_counter()
                try:
                    self.errors += self.ask(connection) != 200
                except (OSError, http.client.HTTPException):
                    self.errors += 1
                    connection.close()
                self.times.append(time.perf_counter() - began)

    def ask(self, connection: http.client.HTTPConnection) -> int:
        headers = {"Connection": "close"} if self.view.close else {}
        body = b"x" * self.view.body or None
        connection.request(self.view.method, self.path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status


def threads(view: View, path: str, port: int, connections: int, seconds: float) -> Load:
    began = time.perf_counter()
    clients = [Client(view, path, port, began + seconds) for _ in range(connections)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    took = time.perf_counter() - began
    times = sorted(1000 * seconds for client in clients for seconds in client.times)
    last = len(times) - 1
    errors = sum(client.errors for client in clients)
    return Load(len(times), took, errors, times[last // 2], times[last * 99 // 100], times[last])
