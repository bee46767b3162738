"""Send streams of requests from one loop in a process of its own, and say what became of each.

A stream is open (``rate`` a second, whatever the server does: times count from when a request was due) or
closed (``connections`` that ask again as soon as they were answered). Responses are read to their end.
Given as JSON to ``python traffic.py``; each request comes back as [due, seconds, status], 0 where the
connection failed before the end of an answer and -1 where none came.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

FAILED, UNANSWERED = 0, -1
PATIENCE = 10.0  # seconds that the last requests may still take
MOST = 4000  # connections of a stream; a request that finds none has failed


@dataclass
class Stream:
    """Requests of one kind, or of several in turn."""

    path: str
    seconds: float
    start: float = 0.0
    rate: float = 0.0
    connections: int = 0
    fresh: bool = False  # a new connection each
    name: str = ""
    patience: float = PATIENCE
    others: Sequence[str] = ()  # paths that take turns with the first, whatever each of them takes


@dataclass
class Seen:
    """What became of a stream's requests."""

    rows: list[tuple[float, float, int]]
    bodies: dict[str, int]  # short bodies, counted
    opened: dict[str, int]  # the bodies that each connection was answered with first, counted

    def times(self, status: int = 200) -> list[float]:
        return sorted(seconds for _, seconds, row in self.rows if row == status)

    def count(self, *statuses: int) -> int:
        return sum(row in statuses for _, _, row in self.rows)

    @property
    def failures(self) -> int:
        return sum(row < 200 or 500 <= row != 503 for _, _, row in self.rows)


def percentile(times: Sequence[float], share: float) -> float:
    """Return a percentile of sorted times in ms, and nothing sensible of none."""
    return 1000 * times[min(int(len(times) * share), len(times) - 1)] if times else float("nan")


def send(port: int, *streams: Stream) -> list[Seen]:
    """Send from a process of its own, on the last CPU, until every stream has ended."""
    asked = json.dumps({"port": port, "streams": [asdict(stream) for stream in streams]})
    ends = max(stream.start + stream.seconds + stream.patience for stream in streams)
    done = subprocess.run(
        [sys.executable, __file__], input=asked, capture_output=True, text=True, timeout=ends + 30, check=True
    )
    return [Seen(**load) for load in json.loads(done.stdout)]


@dataclass
class Running:
    """A stream and where it stands."""

    stream: Stream
    requests: Iterator[bytes]
    idle: deque[Connection] = field(default_factory=deque)
    open: int = 0
    sent: int = 0
    rows: list[tuple[float, float, int]] = field(default_factory=list)
    bodies: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)


class Connection:
    """A connection, and the request that runs on it."""

    __slots__ = ("answers", "buffer", "due", "needed", "request", "running", "socket", "status", "waits")

    def __init__(self, running: Running, port: int) -> None:
        self.running = running
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.waits = self.socket.connect_ex(("127.0.0.1", port)) == errno.EINPROGRESS
        self.buffer = bytearray()
        self.needed = -1  # bytes of the whole answer, -1 before its head is here, -2 while chunks come
        self.status = self.answers = 0
        self.due = 0.0
        self.request = b""

    def ask(self, due: float) -> None:
        self.due, self.needed, self.status = due, -1, 0
        self.buffer.clear()
        self.request = next(self.running.requests)
        if not self.waits:
            self.socket.send(self.request)

    def read(self) -> bool | None:
        """Read what came: True once an answer is whole, None at the end of the stream."""
        try:
            data = self.socket.recv(262144)
        except BlockingIOError:
            return False
        except OSError:
            return None
        if not data:
            return None
        self.buffer += data
        if self.needed == -1:
            self._read_head()
        if self.needed == -2:
            return self.buffer.endswith(b"0\r\n\r\n")
        return 0 <= self.needed <= len(self.buffer)

    def _read_head(self) -> None:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        self.status = int(head[9:12])
        at = head.find(b"content-length:")
        if at >= 0:
            self.needed = end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
        else:
            self.needed = -2 if b"transfer-encoding: chunked" in head else end + 4

    @property
    def closes(self) -> bool:
        return b"connection: close" in bytes(self.buffer[:600]).lower()

    def body(self) -> str:
        return bytes(self.buffer).partition(b"\r\n\r\n")[2][:40].decode("latin-1")


class Traffic:
    """The loop."""

    def __init__(self, port: int, streams: Sequence[Stream]) -> None:
        self.port = port
        self.selector = selectors.DefaultSelector()
        self.running = [Running(stream, itertools.cycle(self._requests(stream))) for stream in streams]
        self.waiting: set[Connection] = set()
        self.due: list[tuple[float, int, Running]] = []
        self.order = itertools.count()

    @staticmethod
    def _requests(stream: Stream) -> list[bytes]:
        fields = "Connection: close\r\n" if stream.fresh else ""
        paths = (stream.path, *stream.others)
        return [f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n".encode() for path in paths]

    def run(self) -> list[Running]:
        self.began = time.monotonic()
        for running in self.running:
            for _ in range(running.stream.connections or 1):
                heapq.heappush(self.due, (self.began + running.stream.start, next(self.order), running))
        end = max(
            self.began + one.stream.start + one.stream.seconds + one.stream.patience for one in self.running
        )
        while (self.due or self.waiting) and time.monotonic() < end:
            now = time.monotonic()
            while self.due and self.due[0][0] <= now:
                due, _, running = heapq.heappop(self.due)
                self._start(running, due)
            if not (self.due or self.waiting):
                break
            until = self.due[0][0] if self.due else end
            for key, _ in self.selector.select(max(0.0, min(until, end) - time.monotonic())):
                self._event(key.data, key.events)
        for connection in self.waiting:
            self._note(connection, UNANSWERED)
        return self.running

    def _start(self, running: Running, due: float) -> None:
        """Send what is due, and note when the next one is."""
        stream = running.stream
        running.sent += 1
        if stream.rate:
            following = self.began + stream.start + running.sent / stream.rate
            if following < self.began + stream.start + stream.seconds:
                heapq.heappush(self.due, (following, next(self.order), running))
        elif due >= self.began + stream.start + stream.seconds:
            return
        connection = self._connection(running)
        if connection is None:
            running.rows.append((due - self.began, 0.0, FAILED))
            return
        self.waiting.add(connection)
        try:
            connection.ask(due)
        except OSError:
            self._lost(connection)

    def _connection(self, running: Running) -> Connection | None:
        if running.idle:
            return running.idle.pop()
        if running.open >= MOST:
            return None
        connection = Connection(running, self.port)
        running.open += 1
        events = selectors.EVENT_WRITE if connection.waits else selectors.EVENT_READ
        self.selector.register(connection.socket, events, connection)
        return connection

    def _event(self, connection: Connection, events: int) -> None:
        if connection.waits:
            connection.waits = False
            self.selector.modify(connection.socket, selectors.EVENT_READ, connection)
            try:
                connection.socket.send(connection.request)
            except OSError:
                self._lost(connection)
            return
        whole = connection.read()
        if whole is None:
            self._lost(connection)
        elif whole and connection in self.waiting:
            self._answered(connection)

    def _answered(self, connection: Connection) -> None:
        running, now = connection.running, time.monotonic()
        self._note(connection, connection.status)
        body = connection.body()
        running.bodies[body] += 1
        if not connection.answers:
            running.opened[body] += 1
        connection.answers += 1
        self.waiting.discard(connection)
        if running.stream.fresh or connection.closes:
            self._close(connection)
        else:
            running.idle.append(connection)
        self._again(running, now)

    def _again(self, running: Running, now: float) -> None:
        if running.stream.connections:
            heapq.heappush(self.due, (now, next(self.order), running))

    def _lost(self, connection: Connection) -> None:
        """The connection has ended: an answer without a length is whole, a waiting request has failed."""
        running = connection.running
        self._close(connection)
        if connection in self.waiting:
            self.waiting.discard(connection)
            self._note(connection, FAILED)
            self._again(running, time.monotonic() + 0.05)
        else:
            with contextlib.suppress(ValueError):
                running.idle.remove(connection)

    def _close(self, connection: Connection) -> None:
        self.selector.unregister(connection.socket)
        connection.socket.close()
        connection.running.open -= 1

    def _note(self, connection: Connection, status: int) -> None:
        row = (connection.due - self.began, time.monotonic() - connection.due, status)
        connection.running.rows.append(row)


def main() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asked: dict[str, Any] = json.load(sys.stdin)
    traffic = Traffic(asked["port"], [Stream(**stream) for stream in asked["streams"]])
    found = [
        {"rows": one.rows, "bodies": dict(one.bodies.most_common(50)), "opened": dict(one.opened)}
        for one in traffic.run()
    ]
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
