"""Clients of websockets and of event streams, in one loop of a process of its own.

Given as JSON to ``python sockets.py``. Each client repeats its exchange until the time is over: a message and
its echo, or a whole stream of events; at least one. Back come the seconds of each exchange and, for streams,
when the first event came and how long the others took one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

TIMEOUT = 30.0
BINARY, TEXT = 2, 1
LONGEST = 2**26


@dataclass
class Clients:
    """What each of ``count`` clients does for a while."""

    path: str
    count: int
    seconds: float
    size: int = 0  # bytes of a message; 0 for a stream of events


@dataclass
class Exchanges:
    """What the clients saw, in seconds."""

    times: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    failures: int = 0


def run(port: int, clients: Clients) -> Exchanges:
    """Run clients in a process of its own, on the last CPU."""
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps({"port": port, **asdict(clients)}),
        capture_output=True,
        text=True,
        timeout=clients.seconds + 2 * TIMEOUT,
        check=True,
    )
    return Exchanges(**json.loads(done.stdout))


def handshake(path: str) -> bytes:
    """Return the request that opens a websocket."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()


def frame(payload: bytes) -> bytes:
    """Return a whole binary message. A mask of zeros costs the client nothing, and a server the same."""
    size = len(payload)
    if size < 126:
        length = bytes([128 | size])
    elif size < 2**16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([128 | BINARY]) + length + b"\0\0\0\0" + payload


async def message(reader: asyncio.StreamReader) -> bytes:
    """Read one whole message; one that ends the connection is an error."""
    parts = []
    while True:
        first, second = await reader.readexactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await reader.readexactly(2 if size == 126 else 8), "big")
        payload = await reader.readexactly(size)
        if first & 15 == 8:
            raise ConnectionError("closed by the server")
        if first & 15 > 8:  # a ping: servers send one every 20 s, which no exchange here lasts
            continue
        parts.append(payload)
        if first & 128:
            return b"".join(parts)


class Client:
    """One client."""

    def __init__(self, port: int, wanted: Clients, seen: Exchanges, until: float) -> None:
        self.port, self.wanted, self.seen, self.until = port, wanted, seen, until

    async def run(self) -> None:
        try:
            await (self.echo() if self.wanted.size else self.streams())
        except (OSError, EOFError, ValueError, asyncio.TimeoutError):  # IncompleteReadError is an EOFError
            self.seen.failures += 1

    async def echo(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=LONGEST)
        with contextlib.closing(writer):
            writer.write(handshake(self.wanted.path))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
            if b" 101 " not in head:
                raise ValueError(head)
            await asyncio.wait_for(message(reader), TIMEOUT)  # the pid
            data = b"x" * self.wanted.size
            asked = frame(data)
            while True:
                began = time.monotonic()
                writer.write(asked)
                answer = await asyncio.wait_for(message(reader), TIMEOUT)
                self.seen.times.append(time.monotonic() - began)
                if len(answer) != len(data):
                    raise ValueError(len(answer))
                if time.monotonic() > self.until:
                    return

    async def streams(self) -> None:
        """Read whole streams; each over a connection of its own, as browsers do."""
        while True:
            began = last = time.monotonic()
            events = 0
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            with contextlib.closing(writer):
                writer.write(f"GET {self.wanted.path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                if b" 200 " not in await asyncio.wait_for(reader.readline(), TIMEOUT):
                    raise ValueError("no stream")
                while (line := await asyncio.wait_for(reader.readline(), TIMEOUT)) != b"0\r\n":
                    if not line:
                        raise ConnectionError("no end of the stream")
                    if line.startswith(b"data:"):
                        now, events = time.monotonic(), events + 1
                        (self.seen.first if events == 1 else self.seen.gaps).append(now - last)
                        last = now
            self.seen.times.append(time.monotonic() - began)
            if time.monotonic() > self.until:
                return


@contextlib.contextmanager
def opened(port: int, request: bytes, count: int) -> Iterator[list[tuple[socket.socket, bytes]]]:
    """Hold connections that were all opened at once: each with what it was answered with first."""
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT))
        for each in sockets:
            each.sendall(request)
        yield [(each, first_body(each)) for each in sockets]
    finally:
        for each in sockets:
            each.close()


def first_body(connection: socket.socket) -> bytes:
    """Return the first bytes after the head of a response."""
    data = b""
    while not data.partition(b"\r\n\r\n")[2]:
        more = connection.recv(65536)
        if not more:
            raise ConnectionError("closed by the server")
        data += more
    return data.partition(b"\r\n\r\n")[2]


async def main() -> None:
    asked: dict[str, Any] = json.load(sys.stdin)
    port = asked.pop("port")
    wanted, seen = Clients(**asked), Exchanges()
    until = time.monotonic() + wanted.seconds
    await asyncio.gather(*(Client(port, wanted, seen, until).run() for _ in range(wanted.count)))
    json.dump(asdict(seen), sys.stdout)


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asyncio.run(main())
