"""Wait for events on many sockets.

Lives in a worker. Any thread may arm a descriptor; one thread at a time waits. An armed descriptor gives one
event and is then silent until it is armed again. So the thread that got the event owns the connection.
"""

from __future__ import annotations

import os
import select
import threading
from contextlib import suppress

READ, WRITE = 1, 4
"""POLLIN and POLLOUT, which epoll and poll share."""
MAX_EVENTS = 32

Event = tuple[int, int]


class Epoll:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._register, self._modify = self._epoll.register, self._epoll.modify
        self._once = select.EPOLLONESHOT

    def add(self, descriptor: int, events: int) -> None:
        """Arm a descriptor for the first time."""
        self._register(descriptor, events | self._once)

    def arm(self, descriptor: int, events: int) -> None:
        """Arm it again."""
        self._modify(descriptor, events | self._once)

    def watch(self, descriptor: int) -> None:
        """Report a descriptor every time it is readable, until it is removed."""
        self._register(descriptor, READ)

    def forget(self, descriptor: int) -> None:
        """Remove a descriptor that stays open; the kernel removes one that is closed."""
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    def closed(self, descriptor: int) -> None:
        """Do nothing about a closed descriptor: the kernel has removed it."""

    def close(self) -> None:
        """Close the poller's descriptor."""
        self._epoll.close()

    def wait(self, timeout: float | None) -> list[Event]:
        """Return the events, after ``timeout`` seconds at the latest."""
        return self._epoll.poll(timeout, MAX_EVENTS)


class Poll:
    """Other systems: slower with many sockets; a pipe wakes the waiting thread when a descriptor is armed."""

    def __init__(self) -> None:
        self._armed: dict[int, int] = {}
        self._watched: set[int] = set()
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)

    def add(self, descriptor: int, events: int) -> None:
        """Arm a descriptor."""
        with self._lock:
            self._armed[descriptor] = events
        with suppress(BlockingIOError):
            os.write(self._writer, b"!")

    arm = add

    def watch(self, descriptor: int) -> None:
        """Report a descriptor every time it is readable."""
        with self._lock:
            self._watched.add(descriptor)
        self.add(descriptor, READ)

    def forget(self, descriptor: int) -> None:
        """Remove a descriptor."""
        with self._lock:
            self._armed.pop(descriptor, None)
            self._watched.discard(descriptor)

    closed = forget

    def close(self) -> None:
        """Close the poller's descriptors."""
        os.close(self._reader)
        os.close(self._writer)

    def wait(self, timeout: float | None) -> list[Event]:
        """Return the events, after ``timeout`` seconds at the latest."""
        poll = select.poll()
        poll.register(self._reader, READ)
        with self._lock:
            for descriptor, events in self._armed.items():
                poll.register(descriptor, events)
        found = []
        for descriptor, events in poll.poll(None if timeout is None else max(0, timeout) * 1000):
            if descriptor == self._reader:
                with suppress(BlockingIOError):
                    os.read(self._reader, 4096)
                continue
            with self._lock:
                known = descriptor in self._armed
                if known and descriptor not in self._watched:
                    del self._armed[descriptor]
            if known:
                found.append((descriptor, events))
        return found


def make_poller() -> Epoll | Poll:
    """Return the best poller that this system has."""
    return Epoll() if hasattr(select, "epoll") else Poll()
