"""What happens on connections, one event after the other. What is due on them without any: deadlines.py.

Lives in a worker: ``wait_for_events`` in the one pool thread that does, ``serve`` in those that run Django,
``look`` and ``retire`` in the main thread. It owns every socket that waits; threads are lent to Django alone.
"""

from __future__ import annotations

import heapq
import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from socket import SHUT_WR, SocketType, socket
from typing import Any

from ..http import limits
from ..http.exceptions import ClientGoneError, FileShrankError
from ..http.parser import ParserSettings
from ..scoreboard.board import Board
from ..scoreboard.slot import Slot
from ..utils import fork_guard
from . import error_responses
from .acceptor import Acceptor, descriptors_for
from .connection import IDLE, LINGER, OWNED, STREAM, Connection
from .management.endpoint import Manage
from .poller import READ, make_poller
from .poller import WRITE as WRITABLE
from .probes import Probes
from .receiver import Intake
from .request_handler import Runner
from .scheduler import Scheduler
from .static_cache import Shortcut
from .streaming import Streams
from .write_buffer import Outbox

CLOSED_AT_ONCE = 32
"""Idle connections that make room for new ones."""
GONE_AFTER = 1.0
"""Seconds in the queue after which it is worth a look whether the client is still there."""


class Reactor:
    """The connections of one worker."""

    def __init__(self, worker: Any, listeners: Sequence[socket], board: Board, slot: Slot) -> None:
        config = worker.cfg
        self.worker, self.slot = worker, slot
        self.connections: dict[int, Connection] = {}
        self.poller = make_poller()
        stated = config.settings["sendfile"].get()  # where it is True, Gunicorn's own look says False
        sends_files = bool(config.sendfile if stated is None else stated)
        self.streams = Streams(self.poller, slot, config.threads, sends_files=sends_files)
        self.runner = Runner(worker, self.streams, slot)
        sampler, cpus = self.runner.sampler, worker.config.cpus / max(1, config.workers)
        self.scheduler = Scheduler(
            *(config.threads, self, sampler, slot),
            queue_timeout=worker.config.queue_timeout,
            cpus=cpus,
            adaptive=worker.config.concurrency_limit == "auto",
        )
        most = descriptors_for(config.worker_connections)
        policy = self.scheduler.accept_policy
        self.acceptor = Acceptor(listeners, self.poller, board, slot, most, self.make_room, policy)
        self.unaccepted, self.peers_overloaded = self.acceptor.unaccepted, partial(board.others_refuse, slot)
        self.wake_main_thread = worker.wake
        self.intake = Intake(ParserSettings(config), max_body=worker.config.max_body or 0)
        self.desk = error_responses.Desk(worker)
        self.shortcut = Shortcut(worker, self.desk)
        self.probes = Probes(worker, board, slot, self.scheduler)
        self.manage = Manage(worker, board, self.poller, self.probes)
        self.environs = {**self.probes.environs(config, listeners), **self.manage.environs(config)}
        self.keep_alive = float(config.keepalive)
        self.retiring = False
        self.steps: tuple[Callable[[Connection, float], None], ...] = (
            *(self.receive, self.receive, self.receive),  # IDLE, HEAD, BODY
            *(self.ignore, self.flush, self.ignore, self.drain),  # OWNED, WRITE, STREAM, LINGER
        )

    # The thread that waits for events.

    def wait_for_events(self, block: bool) -> None:
        """Wait for events, or take those that are here; do all that they need but running Django."""
        acceptor = self.acceptor
        retry = acceptor.retry_at
        timeout = None if retry == math.inf else max(0.0, retry - time.monotonic())
        events = self.poller.wait(timeout if block else 0.0)
        now, listening = time.monotonic(), retry < math.inf
        self.scheduler.events += len(events)
        for descriptor, _ in events:
            connection = self.connections.get(descriptor)
            if connection is not None:
                self.advance(connection, now)
            elif descriptor in acceptor.listeners:
                listening = True
            elif descriptor == self.manage.descriptor:
                self.manage.accept(now, self.arrive)
        scheduler = self.scheduler
        if listening:
            acceptor.accept(now, scheduler.load, self.arrive, overloaded=scheduler.is_overloaded)
        scheduler.after_events(len(acceptor.expected))

    def arrive(self, sock: SocketType, peer: Any, listener: int, now: float, waited: float) -> bool:
        """Take a new connection. What it sends first is most often here already; say whether it was."""
        connection = Connection(sock, peer, self.environs[listener])
        connection.waited, connection.due = waited, now + limits.HEAD
        self.scheduler.events += 1
        self.connections[connection.fd] = connection
        self.slot.connections = len(self.connections)
        self.step(connection, now)
        return connection.moved > 0

    def make_room(self, now: float) -> None:
        """Close connections that have been idle for longest, so that others are not kept out."""
        idle = [each for each in list(self.connections.values()) if each.state == IDLE and each.number]
        for connection in heapq.nsmallest(CLOSED_AT_ONCE, idle, key=lambda each: each.due):
            self.close_idle(connection, now)

    def close_idle(self, connection: Connection, now: float) -> None:
        """Close a connection that looked idle, unless its next request is here by now."""
        if connection.take():
            if connection.state == IDLE and not connection.holds_unread():
                self.close(connection, now, politely=True)
            else:
                self.arm(connection, READ)

    def advance(self, connection: Connection, now: float) -> None:
        """Go on with a connection on which something has happened."""
        if connection.state == STREAM and self.streams.flush(connection):
            return
        if connection.take():
            self.step(connection, now)

    def step(self, connection: Connection, now: float) -> None:
        """Do what the connection's state asks for; a fault costs one connection, not the worker."""
        try:
            self.steps[connection.state](connection, now)
        except ClientGoneError as error:
            if isinstance(error, FileShrankError):
                self.worker.log.error("%s", error)
            self.drop(connection)
        except Exception:
            self.report_failure()
            self.drop(connection)

    def receive(self, connection: Connection, now: float) -> None:
        """Take what has arrived of a request."""
        try:
            data = connection.receive()
        except BlockingIOError:
            self.arm(connection, READ)
            return
        if self.acceptor.expected:
            self.acceptor.expected.pop(connection.fd, None)
        if data:
            connection.moved += len(data)
            self.digest(connection, data, now)
        else:
            self.drop(connection)

    def digest(self, connection: Connection, data: bytes, now: float) -> None:
        """Make requests of these bytes, one after the other while they can be answered at once."""
        more: bytes | None = data
        while more is not None:
            try:
                complete = self.intake.take(connection, more, now)
            except ClientGoneError:
                raise
            except Exception as error:  # whatever the parser raises is an answer to the client
                self.refuse(connection, error, now)
                return
            if not complete:
                self.arm(connection, READ)
                return
            more = self.dispatch(connection, now)

    def dispatch(self, connection: Connection, now: float) -> bytes | None:
        """Answer a complete request or queue it; return the bytes behind it where it is answered already."""
        connection.state, connection.due, connection.arrived = OWNED, math.inf, now
        request = connection.request
        assert request is not None
        responder = connection.environs.page(request.path)
        if responder is not None:
            keep = not (request.should_close() or self.retiring)
            return self.reply(connection, responder(request, keep), now, keep=keep)
        hit = self.shortcut.files.get(request.path)
        if hit is not None:
            found = self.shortcut.find(connection, hit)
            if found is not None:
                self.slot.count_static()
                data, keep = found
                return self.reply(connection, data, now, keep=keep)
        behind = None
        refusals = self.scheduler.submit(connection, now)
        moves = refusals and (self.retiring or self.acceptor.is_full_beside_free(self.scheduler.load))
        for refused in refusals:
            self.slot.count_refused()
            keep = not (refused.request is None or refused.request.should_close() or moves)
            more = self.answer(refused, partial(error_responses.busy, keep=keep), now, keep=keep)
            if refused is connection:
                behind = more
            elif more is not None:
                self.digest(refused, more, now)
        return behind

    def ignore(self, connection: Connection, now: float) -> None:
        """Nothing is to be done: an event that is older than the state."""

    def flush(self, connection: Connection, now: float) -> None:
        """Send what is left of a complete response."""
        out = connection.out
        assert out is not None
        connection.moved += out.flush(connection.sock)
        if out.pieces:
            self.arm(connection, WRITABLE)
            return
        connection.out = None
        self.go_on(connection, self.settle(connection, now, keep=connection.keep), now)

    def drain(self, connection: Connection, now: float) -> None:
        """Throw away what a client still sends after our last word, until it closes."""
        with suppress(BlockingIOError):
            while data := connection.receive():
                connection.moved += len(data)
                if connection.moved > limits.LINGER_BYTES:
                    break
            self.drop(connection)
            return
        self.arm(connection, READ)

    # Whoever owns the connection.

    def reply(self, connection: Connection, data: bytes, now: float, *, keep: bool) -> bytes | None:
        """Send a complete response; return what is behind its request where it has left and that is kept."""
        sent = connection.push(data)
        if sent < len(data):
            connection.out = Outbox()
            connection.out.add(memoryview(data)[sent:])
        return self.conclude(connection, now, keep=keep)

    def answer(
        self, connection: Connection, make: Callable[[], bytes], now: float, *, keep: bool
    ) -> bytes | None:
        """Send an answer of the server's own."""
        return self.reply(connection, self.desk.answered(connection, make), now, keep=keep)

    def conclude(self, connection: Connection, now: float, *, keep: bool) -> bytes | None:
        """Let a complete response leave; return what is behind its request, as ``settle`` does."""
        connection.forget_request()
        if connection.out is not None:
            connection.keep = keep
            if self.streams.end(connection, now):
                self.arm(connection, WRITABLE)
                return None
        return self.settle(connection, now, keep=keep)

    def settle(self, connection: Connection, now: float, *, keep: bool) -> bytes | None:
        """A response has left. Return what is behind its request already; else wait for more, or close."""
        if not keep:
            self.close(connection, now, politely=not connection.client_closes or connection.holds_unread())
            return None
        connection.state, connection.due, connection.waited = IDLE, now + self.keep_alive, 0.0
        if connection.buffer:
            behind, connection.buffer = connection.buffer, b""
            return behind
        self.arm(connection, READ)
        return None

    def go_on(self, connection: Connection, behind: bytes | None, now: float) -> None:
        """Take the next request where it is here already."""
        if behind is not None:
            self.digest(connection, behind, now)

    def refuse(self, connection: Connection, error: Exception, now: float) -> None:
        """Answer a request that nobody can take, and close."""
        self.answer(
            connection, lambda: error_responses.refusal(self.worker, connection, error), now, keep=False
        )

    def arm(self, connection: Connection, events: int) -> None:
        """Give the connection back to whoever gets its next event."""
        connection.give()
        if connection.is_known:
            self.poller.arm(connection.fd, events)
        else:
            connection.is_known = True
            self.poller.add(connection.fd, events)

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        """Say that nothing follows; politely: close when the client has, lest a reset cuts off our last."""
        if politely:
            with suppress(OSError):
                connection.sock.shutdown(SHUT_WR)
                connection.buffer = b""
                connection.state, connection.due, connection.moved = LINGER, now + limits.LINGER, 0
                self.arm(connection, READ)
                return
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection. Only its owner may; it is nobody's afterwards."""
        connection.forget_request()
        if connection.out is not None:
            connection.out.close()
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        self.slot.connections = len(self.connections)
        self.poller.closed(connection.fd)
        connection.sock.close()

    def disown(self) -> None:
        """In a copy of this process: close what is the worker's. It would keep clients waiting for an end."""
        self.scheduler.disown()
        self.poller.close()
        for connection in self.connections.values():
            connection.sock.close()
            connection.out = None  # its lock may be held by a thread that is not here
        if self.manage.listener is not None:
            self.manage.listener.close()

    def report_failure(self) -> None:
        """Log a fault of the server's."""
        if fork_guard.PROCESS.is_copy:
            fork_guard.end("The worker", sys.exc_info()[1], self.worker.log)
        self.worker.log.exception("The worker goes on after an error of its own.")

    # The threads that run Django.

    def thread_started(self, row: int) -> None:
        """Say on the board whose row this is: its stack may be asked for."""
        self.runner.sampler.open()
        self.slot.thread(row, threading.get_ident(), threading.get_native_id())

    def serve(self, connection: Connection, row: int) -> None:
        """Run Django for a complete request, and let its response leave."""
        started = time.monotonic()
        scheduler = self.scheduler
        running = scheduler.started()
        try:
            if started - connection.arrived + connection.waited > GONE_AFTER and connection.is_gone():
                raise ClientGoneError
            last = self.retiring or self.should_move(connection, started, running)
            keep = self.runner.run(connection, row, started, running, must_close=last)
            now = time.monotonic()
            self.go_on(connection, self.conclude(connection, now, keep=keep), now)
        except ClientGoneError:
            self.drop(connection)
        except BaseException:
            self.report_failure()
            self.drop(connection)
        finally:
            scheduler.finished(time.monotonic() - started)

    def should_move(self, connection: Connection, now: float, running: int) -> bool:
        """Say whether this connection had better be made anew, with another worker."""
        waiting = self.scheduler.queued
        if not waiting or not self.acceptor.is_crowded(now, running + waiting):
            return False
        return not connection.holds_unread()  # what is behind this request would be lost

    # The main thread.

    def look(self, now: float) -> None:
        """Once a second: publish how many requests wait, and what the probes answer."""
        self.slot.queue = self.scheduler.queued
        self.probes.look(now)
        self.manage.watch()

    def retire(self, now: float) -> None:
        """Take what the kernel has accepted for us, and no more; what is answered from now on is the last."""
        self.retiring = self.shortcut.retiring = True
        self.manage.retire()
        self.acceptor.drain(self.arrive, now)
