"""Who takes a connection, with real sockets and a real board."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from django_prodserve.scoreboard.board import Scoreboard
from django_prodserve.scoreboard.slot import RETIRING, SERVING, Slot
from django_prodserve.worker.accept_policy import MAX_DEFERRAL_SECONDS, AcceptPolicy
from django_prodserve.worker.acceptor import LISTENER_DEFER_SECONDS, REQUEST_EXPECTED_SECONDS, Acceptor
from django_prodserve.worker.poller import make_poller

THREADS = 2


class Site:
    """A worker that accepts and another one beside it, and clients that say nothing."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack, self.now = stack, 100.0
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        board = Scoreboard.create(None, slots=2, rows=THREADS + 1, now=self.now)
        self.slot, self.other = self.serving(board, 1), self.serving(board, 2)
        self.acceptor = Acceptor(
            [self.listener], make_poller(), board, self.slot, 100, lambda now: None, AcceptPolicy(THREADS)
        )
        self.acceptor.start()
        self.taken: list[socket.socket] = []

    def serving(self, board: Scoreboard, pid: int) -> Slot:
        slot = board.claim()
        slot.start(pid, 0, THREADS, self.now)
        slot.state = SERVING
        return slot

    def connect(self) -> None:
        self.stack.enter_context(socket.create_connection(self.listener.getsockname(), timeout=10))

    def arrived(self, sock: socket.socket, peer: Any, listener: int, now: float, waited: float) -> bool:
        self.taken.append(self.stack.enter_context(closing(sock)))
        self.slot.connections = len(self.taken)
        return False

    def accept(self, load: int = 0, after: float = 0.0) -> int:
        """Look at the listener after so many seconds; return how many connections were ever taken."""
        self.now += after
        self.acceptor.accept(self.now, load, self.arrived)
        return len(self.taken)


@pytest.fixture
def site() -> Iterator[Site]:
    with ExitStack() as stack:
        yield Site(stack)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells how many wait")
def test_what_nobody_has_accepted_is_shared_by_those_that_serve(site: Site) -> None:
    assert site.acceptor.unaccepted() == 0
    for _ in range(6):
        site.connect()
    assert site.acceptor.unaccepted() == 3
    site.other.state = RETIRING
    assert site.acceptor.unaccepted() == 6


def test_a_connection_whose_request_is_to_come_needs_a_thread(site: Site) -> None:
    for _ in range(3):
        site.connect()
    site.other.connections = THREADS  # it has as many, and free threads
    assert [site.accept(), site.accept(), site.accept()] == [1, 2, 2]
    assert site.accept(after=LISTENER_DEFER_SECONDS + 0.001) == 2  # left to the other, which does not take it
    assert site.accept(after=REQUEST_EXPECTED_SECONDS) == 3  # no request has come: the threads are free


def test_where_nobody_has_a_free_thread_connections_are_shared(site: Site) -> None:
    for _ in range(3):
        site.connect()
    site.other.connections = THREADS
    site.other.work = THREADS
    assert [site.accept(), site.accept(), site.accept()] == [1, 2, 3]


def test_a_request_that_has_come_is_expected_no_more(site: Site) -> None:
    site.connect()
    site.connect()
    site.accept()
    assert [*site.acceptor.awaiting_request] == [site.taken[0].fileno()]
    site.acceptor.awaiting_request.clear()
    assert site.accept(load=1) == 2


def test_who_is_full_leaves_a_connection_to_a_free_worker_for_a_moment(site: Site) -> None:
    site.connect()
    assert site.accept(load=THREADS) == 0
    waited = 0.0
    while site.accept(load=THREADS, after=LISTENER_DEFER_SECONDS) == 0:
        waited += LISTENER_DEFER_SECONDS
        assert waited <= MAX_DEFERRAL_SECONDS + 2 * LISTENER_DEFER_SECONDS
    assert waited >= MAX_DEFERRAL_SECONDS - 2 * LISTENER_DEFER_SECONDS
