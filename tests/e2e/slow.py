"""Clients that take their time, many of one kind at once, driven by one loop on one thread.

Whoever is cut off comes again, so that the crowd stays as large as it was.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from .raw import Address, Broken, Talk

HEAD = b"GET %s HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST %s HTTP/1.1\r\nHost: localhost\r\n"
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets
SMALL = 8192  # bytes of a slow reader's receive buffer: most of an answer stays with the server


@dataclass(frozen=True)
class Kind:
    """What one client does: opens, then every ``interval`` seconds sends or reads a little."""

    opening: bytes
    trickle: bytes = b""  # sent byte by byte, over and over
    interval: float = 1.0
    reads: int = 0  # bytes each time; 0 reads what comes
    ends: bool = False  # says that it sends nothing more
    resets: bool = False  # resets instead of waiting any longer


def kinds(path: str = "/", echo: str = "/echo/", large: str = "/echo/?size=5242880") -> dict[str, Kind]:
    """Return every kind, for a server with these addresses: the last one answers with 5 MiB."""
    get, post, get_large = HEAD % path.encode(), POST % echo.encode(), HEAD % large.encode()
    return {
        "heads at 1 byte/s": Kind(get + b"X-Slow: ", b"a"),
        "request lines at 1 byte/s": Kind(b"G", b"ET /a" + b"a" * 1000),
        "bodies at 1 byte/s": Kind(post + b"Content-Length: 100000\r\n\r\n", b"a"),
        "chunks at 1 byte/s": Kind(post + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
        "readers at 10 KB/s": Kind(get_large + b"Connection: close\r\n\r\n", interval=0.1, reads=1000),
        "pipelines that nobody reads": Kind((get_large + b"\r\n") * 5, interval=1.0, reads=1),
        "silent": Kind(b""),
        "idle after an answer": Kind(get + b"\r\n"),
        "never closing": Kind(get + b"Connection: close\r\n\r\n"),
        "half-closed": Kind(get + b"\r\n", ends=True),
        "half a head, half-closed": Kind(get, ends=True),
        "resetting in a head": Kind(get, resets=True),
        "resetting in a body": Kind(post + b"Content-Length: 10\r\n\r\nhello", resets=True),
        "resetting in an answer": Kind(get_large + b"\r\n", reads=1000, resets=True),
    }


@dataclass
class Client:
    """One slow client's connection."""

    kind: Kind
    socket: socket.socket
    got: bytes = b""  # the beginning of what came
    position: int = 0  # in the trickle
    ended: bool = False  # the server has closed; a client that never closes does not care


@dataclass
class Crowd:
    """Clients of one kind; ``ends`` counts how their connections ended."""

    address: Address
    kind: Kind
    count: int
    ends: Counter[str] = field(default_factory=Counter)
    opened: int = 0

    def __post_init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Client]] = []
        self._order = itertools.count()
        self._clients: set[Client] = set()
        self._stop = threading.Event()
        self._ready = threading.Event()

    def run(self) -> None:
        """Live until told to stop: this is the whole loop."""
        try:
            for _ in range(self.count):
                self._open()
            self._ready.set()
            while not self._stop.is_set():
                for key, _ in self._selector.select(timeout=0.02):
                    self._arrived(key.data)
                while self._timers and self._timers[0][0] <= time.monotonic():
                    self._act(heapq.heappop(self._timers)[2])
        finally:
            self._ready.set()
            for client in self._clients:
                client.socket.close()
            self._selector.close()

    def settle(self, patience: float) -> float:
        """Wait until every slow reader has had something of its answer; return how many seconds that took."""
        began = time.monotonic()
        while time.monotonic() < began + patience and not all(client.got for client in list(self._clients)):
            time.sleep(0.02)
        return time.monotonic() - began

    def _open(self) -> None:
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        client = Client(self.kind, socket.socket(family, socket.SOCK_STREAM))
        self._clients.add(client)
        if self.kind.reads:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        client.socket.settimeout(2)
        try:
            client.socket.connect(self.address)
            client.socket.sendall(self.kind.opening)
            if self.kind.ends:
                client.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(client, type(error).__name__)
            return
        self.opened += 1
        client.socket.setblocking(False)
        if not self.kind.reads:
            self._selector.register(client.socket, selectors.EVENT_READ, client)
        self._later(client, (self.opened % 16 + 1) / 16)  # not all at the same moment

    def _later(self, client: Client, share: float = 1.0) -> None:
        due = time.monotonic() + share * self.kind.interval
        heapq.heappush(self._timers, (due, next(self._order), client))

    def _arrived(self, client: Client) -> None:
        if self._receive(client, 65536) or self._stays(client):
            return
        self._end(client)

    def _stays(self, client: Client) -> bool:
        """Say whether a client that was answered keeps its side open whatever the server does."""
        if not client.got or self.kind.trickle:
            return False
        if not client.ended:
            client.ended = True
            self._selector.unregister(client.socket)
        return True

    def _receive(self, client: Client, count: int) -> bool:
        try:
            data = client.socket.recv(count)
        except BlockingIOError:
            return True
        except OSError:
            return False
        client.got = (client.got + data)[:200]
        return bool(data)

    def _act(self, client: Client) -> None:
        if client not in self._clients:
            return
        if self.kind.resets:
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._end(client, "own reset")
            return
        alive = self._receive(client, self.kind.reads) if self.kind.reads else True
        if alive and self.kind.trickle:
            alive = self._trickle(client)
        if alive:
            self._later(client)
        else:
            self._end(client)

    def _trickle(self, client: Client) -> bool:
        at = client.position % len(self.kind.trickle)
        client.position += 1
        with contextlib.suppress(BlockingIOError):
            try:
                client.socket.send(self.kind.trickle[at : at + 1])
            except BlockingIOError:
                raise
            except OSError:
                return False
        return True

    def _end(self, client: Client, how: str = "") -> None:
        """Count an end and come again, later if nobody listens."""
        self.ends[how or client.got[9:12].decode("latin-1") or "no answer"] += 1
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(client.socket)
        self._clients.discard(client)
        client.socket.close()
        if not self._stop.is_set() and sum(self.ends.values()) < 100 * self.count:
            self._open()

    __hash__ = object.__hash__


Client.__hash__ = object.__hash__  # type: ignore[method-assign]


@contextlib.contextmanager
def crowd(address: Address, kind: Kind, count: int) -> Iterator[Crowd]:
    """Have so many clients of this kind around while the block runs."""
    clients = Crowd(address, kind, count)
    thread = threading.Thread(target=clients.run, daemon=True)
    thread.start()
    assert clients._ready.wait(30)
    try:
        yield clients
    finally:
        clients._stop.set()
        thread.join(30)
    assert not thread.is_alive()


@dataclass
class Fast:
    """What a client in a hurry saw beside them; times in seconds."""

    times: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.times)[min(int(len(self.times) * share), len(self.times) - 1)]


def hurry(address: Address, seconds: float, path: str = "/", pause: float = 0.005) -> Fast:
    """Ask over a new connection, then over the same again, and so on; a third failure ends it."""
    seen = Fast()
    until = time.monotonic() + seconds
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    while time.monotonic() < until and len(seen.failures) < 3:
        try:
            began = time.perf_counter()
            with Talk(address) as talk:
                for _ in range(2):
                    talk.send(request)
                    answer = talk.answer()
                    seen.times.append(time.perf_counter() - began)
                    if answer is None or answer.status != 200:
                        seen.failures.append("closed" if answer is None else str(answer.status))
                        break
                    if answer.headers.get("connection") == "close":  # to go to another worker
                        break
                    time.sleep(pause)
                    began = time.perf_counter()
        except (OSError, Broken) as error:
            seen.failures.append(f"{type(error).__name__} {error}")
    return seen
