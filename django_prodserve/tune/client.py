"""The load client of ``prodserve tune``: a program of its own, for Linux. Standard library alone.

    python -I -S client.py < specification.json > result.json

It keeps a number of connections busy with GET requests: each sends the next request as soon as it has the
response of the last. It runs in one thread over epoll, because it shares the CPUs with the server. So it also
measures its own CPU time, and that of the server's processes, over the same seconds.
"""

from __future__ import annotations

import heapq
import json
import os
import re
import select
import socket
import sys
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from typing import Any

READ = 262_144
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)")
CHUNKED = re.compile(rb"\r\ntransfer-encoding:[^\r]*chunked")
CLOSES = re.compile(rb"\r\nconnection: *close")
PAUSE = 0.1
"""Seconds until the next request of a connection after a 5xx or an error: refused requests must not spin."""
TICK = 0.1


class Response:
    """Reads one response, wherever its bytes are split."""

    __slots__ = ("_body", "_buffer", "_left", "closes", "ends_by_close", "status")

    def __init__(self) -> None:
        self.status, self.closes, self.ends_by_close = 0, False, False
        self._buffer = bytearray()
        self._left = 0
        self._body = b""
        """How the body ends: ``length``, ``chunks`` or ``close``; empty before the headers are complete."""

    def feed(self, data: bytes) -> bool:
        """Take more bytes; return whether the response is complete."""
        if self._body == b"length":
            self._left -= len(data)
            return self._left <= 0
        if self._body == b"close":
            return False
        self._buffer += data
        if not self._body and not self._read_head():
            return False
        if self._body == b"length":
            return self._left <= 0
        return self._body == b"chunks" and self._read_chunks()

    def _read_head(self) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self._buffer[: end + 2]).lower()
        del self._buffer[: end + 4]
        self.status = int(head[9:12])
        if self.status < 200:
            return self._read_head()
        self.closes = CLOSES.search(head) is not None
        length = LENGTH.search(head)
        if CHUNKED.search(head):
            self._body = b"chunks"
        elif length or self.status in (204, 304):
            self._body, self._left = b"length", (int(length[1]) if length else 0) - len(self._buffer)
        else:
            self._body, self.closes, self.ends_by_close = b"close", True, True
        return True

    def _read_chunks(self) -> bool:
        while (end := self._buffer.find(b"\r\n")) >= 0:
            size = int(self._buffer[:end].partition(b";")[0], 16)
            if len(self._buffer) < end + 4 + size:
                return False
            del self._buffer[: end + 4 + size]
            if not size:
                return True
        return False


class Clocks:
    """The CPU seconds of the server's processes, of this one, and of the CPUs that this one may use."""

    def __init__(self, pids: list[int]) -> None:
        self.server = sum(_cpu_of(pid) for pid in pids)
        self.client = time.process_time()
        self.machine = _busy_seconds()

    def since(self, before: Clocks) -> dict[str, float]:
        """Return the seconds since then."""
        return {name: getattr(self, name) - getattr(before, name) for name in ("server", "client", "machine")}


def _cpu_of(pid: int) -> float:
    """Return the CPU seconds of any process, in nanoseconds: /proc has them in hundredths of a second.

    clock_getcpuclockid(3) makes this number of a process: MAKE_PROCESS_CPUCLOCK with CPUCLOCK_SCHED.
    """
    return time.clock_gettime((~pid << 3) | 2)


def _busy_seconds() -> float:
    """Return for how long the CPUs of this process worked, for whomever; proc(5)'s stat."""
    mine = {f"cpu{number}" for number in os.sched_getaffinity(0)}
    ticks = 0
    with suppress(OSError), open("/proc/stat") as lines:
        for line in lines:
            name, *fields = line.split()
            if name in mine:
                user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
                ticks += user + nice + system + irq + softirq + steal
    return ticks / os.sysconf("SC_CLK_TCK")


class Connection:
    """One client: a socket, and the request that it waits for."""

    __slots__ = ("response", "sock", "started", "target")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.response, self.started, self.target = Response(), 0.0, 0


class Load:
    """All connections, and the results."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.address = (spec["host"], spec["port"])
        self.requests = [text.encode("latin-1") for text in spec["requests"]]
        self.order, self.next = spec["order"], count()
        self.warm, self.seconds, self.timeout = spec["warm"], spec["seconds"], spec["timeout"]
        self.most, self.drain = spec["most"], spec["drain"]
        self.pids = spec["pids"]
        self.connections = [Connection() for _ in range(spec["connections"])]
        self.epoll = select.epoll()
        self.by_number: dict[int, Connection] = {}
        self.paused: list[tuple[float, int, Connection]] = []
        self.ended: list[tuple[float, float, int, int]] = []
        """Start, end, target and status of each request; status 0 for one without an answer."""
        self.errors: Counter[str] = Counter()
        self.is_over = False

    def run(self) -> dict[str, Any]:
        began = time.monotonic()
        first, last = began + self.warm, began + self.warm + self.seconds
        for connection in self.connections:
            self.send(connection, began)
        before = after = None
        next_tick = began
        while True:
            now = time.monotonic()
            if before is None and now >= first:
                first, before = now, Clocks(self.pids)
                last = first + self.seconds
            if after is None and (now >= last or self._has_all()):
                last, after = now, Clocks(self.pids)
                # A single client ends with its request; of many, the last requests end under the same load.
                self.is_over = len(self.connections) == 1
            if after is not None and (not self.waits_since(last) or now - last > self.drain):
                break
            if now >= next_tick:
                next_tick = now + TICK
                self.give_up(now)
            while self.paused and self.paused[0][0] <= now:
                self.send(heapq.heappop(self.paused)[2], now)
            for number, _ in self.epoll.poll(TICK / 4):
                self.receive(self.by_number[number])
        assert before is not None
        assert after is not None
        return self.results(first, last, after.since(before))

    def _has_all(self) -> bool:
        return bool(self.most) and len(self.ended) >= self.most

    def waits_since(self, when: float) -> bool:
        """Return whether a request that began before then has no answer yet."""
        return any(0 < connection.started < when for connection in self.by_number.values())

    def send(self, connection: Connection, now: float) -> None:
        """Send the next request of a connection; connect first if it has no socket."""
        if self.is_over:
            return
        connection.target = self.order[next(self.next) % len(self.order)]
        connection.response = Response()
        try:
            if connection.sock is None:
                self.connect(connection)
            assert connection.sock is not None
            connection.started = time.monotonic()
            connection.sock.sendall(self.requests[connection.target])
        except OSError as error:
            connection.started = connection.started or now
            self.failed(connection, type(error).__name__)

    def connect(self, connection: Connection) -> None:
        sock = socket.create_connection(self.address, timeout=self.timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection.sock = sock
        self.by_number[sock.fileno()] = connection
        self.epoll.register(sock.fileno(), select.EPOLLIN)

    def receive(self, connection: Connection) -> None:
        assert connection.sock is not None
        response = connection.response
        try:
            data = connection.sock.recv(READ)
        except BlockingIOError:
            return
        except OSError as error:
            self.failed(connection, type(error).__name__)
            return
        if not data:
            if connection.started and response.ends_by_close:
                self.close(connection)
                self.answered(connection)
            elif connection.started:
                self.failed(connection, "closed")
            else:
                self.close(connection)
            return
        try:
            is_complete = response.feed(data)
        except ValueError:
            self.failed(connection, "not HTTP")
            return
        if is_complete:
            if response.closes:
                self.close(connection)
            self.answered(connection)

    def answered(self, connection: Connection) -> None:
        now, status = time.monotonic(), connection.response.status
        self.ended.append((connection.started, now, connection.target, status))
        connection.started = 0.0
        if status >= 500:
            self.pause(connection, now)
        else:
            self.send(connection, now)

    def failed(self, connection: Connection, kind: str) -> None:
        """Count a request without an answer; connect again after a pause."""
        now = time.monotonic()
        self.errors[kind] += 1
        self.ended.append((connection.started, now, connection.target, 0))
        connection.started = 0.0
        self.close(connection)
        self.pause(connection, now)

    def pause(self, connection: Connection, now: float) -> None:
        heapq.heappush(self.paused, (now + PAUSE, next(self.next), connection))

    def close(self, connection: Connection) -> None:
        if connection.sock is not None:
            del self.by_number[connection.sock.fileno()]
            connection.sock.close()
            connection.sock = None

    def give_up(self, now: float) -> None:
        """End requests that take longer than the timeout."""
        for connection in [*self.by_number.values()]:
            if connection.started and now - connection.started > self.timeout:
                self.failed(connection, "timeout")

    def results(self, first: float, last: float, cpu: dict[str, float]) -> dict[str, Any]:
        """Return what happened between two moments.

        A request counts by the share of its time that is between them. Requests of 1 s end in
        waves. A count of those that ended in 4 s would be a quarter too high or too low.
        """
        span = max(last - first, 1e-9)
        done, statuses, latencies = 0.0, Counter[str](), list[float]()
        for start, end, _, status in self.ended:
            inside = min(end, last) - max(start, first)
            if inside <= 0:
                continue
            statuses[str(status)] += 1
            if 200 <= status < 300:
                done += inside / max(end - start, 1e-9)
                if end <= last or end - start > span / 2:
                    latencies.append(end - start)
        latencies.sort()
        return {
            "seconds": span,
            "requests": done,
            "rate": done / span,
            "statuses": statuses,
            "errors": self.errors,
            "mean": sum(latencies) / len(latencies) if latencies else 0.0,
            **{f"p{share}": _quantile(latencies, share / 100) for share in (50, 95, 99)},
            "cpu": cpu,
        }


def _quantile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def main() -> None:
    """Run the load that standard input specifies."""
    load = Load(json.load(sys.stdin))
    try:
        result = load.run()
    except ProcessLookupError:
        result = {"gone": True}
    except OSError as error:  # EINVAL: the clock of a process that has ended
        result = {"gone": True, "error": str(error)}
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt, BrokenPipeError):
        main()
