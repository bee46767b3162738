"""Clients that send requests all the time, and know what came of each."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from .serving import until

Connect = Callable[[], http.client.HTTPConnection]
FULL = os.environ.get("E2E_FULL") == "1"
"""Whether to run as long as the figures in the documents need, and not as short as proves the same."""


@dataclass(frozen=True)
class Sent:
    """A request that has ended."""

    client: int
    number: int
    method: str
    began: float
    took: float
    outcome: str
    """The status, or the name of the exception."""
    said: str = ""
    """The body of the response."""

    @property
    def is_good(self) -> bool:
        return self.outcome == "200"


@dataclass
class Load:
    """Requests of several clients, each over a connection that it keeps; three in ten are POSTs."""

    connect: Connect
    path: str
    pause: float = 0.0
    sent: list[Sent] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = itertools.count()

    def work(self, over: threading.Event) -> None:
        """Send requests until the event is set."""
        client = self.connect()
        while not over.is_set():
            self.sent.append(self._send(client, next(self._numbers)))
            if self.pause:
                over.wait(self.pause)
        client.close()

    def _send(self, client: http.client.HTTPConnection, number: int) -> Sent:
        method = "POST" if number % 10 in (0, 4, 7) else "GET"
        body = b"x" * 2000 if method == "POST" else None
        began, said = time.monotonic(), ""
        try:
            client.request(method, f"{self.path}?key={number}", body=body, headers={"Host": "shop.example"})
            answer = client.getresponse()
            said = answer.read().decode()
            outcome = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            client.close()
            outcome = type(error).__name__
        return Sent(threading.get_ident(), number, method, began, time.monotonic() - began, outcome, said)

    @contextlib.contextmanager
    def running(self, clients: int) -> Iterator[Load]:
        """Send requests while the block runs."""
        over = threading.Event()
        threads = [threading.Thread(target=self.work, args=[over]) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            over.set()
            for thread in threads:
                thread.join()

    def until_sent(self, count: int) -> None:
        """Wait until so many requests have ended."""
        until(lambda: len(self.sent) >= count, lambda: f"{len(self.sent)} of {count}", patience=300)

    @property
    def failed(self) -> list[Sent]:
        """What did not get its answer."""
        return [each for each in list(self.sent) if not each.is_good]
