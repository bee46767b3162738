"""Handle events on connections, one after the other. deadlines.py handles connections without events.

Lives in a worker: ``wait_for_events`` in the pool thread that currently waits, ``serve`` in those that run
Django, ``tick`` and ``retire`` in the main thread. The reactor owns every socket that waits; threads only run
Django.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from socket import SHUT_WR, SocketType, getdefaulttimeout, socket
from typing import Any

from ..http import limits
from ..http.exceptions import ClientGoneError, FileShrankError
from ..http.parser import ParserSettings
from ..http.websocket_handshake import asks_for_websocket
from ..project.databases import close_own_connections
from ..scoreboard.board import Scoreboard
from ..scoreboard.events import Event, write
from ..scoreboard.slot import Slot
from ..tls.contexts import TLSContexts
from ..utils import fork_guard
from . import error_responses
from .acceptor import Acceptor, descriptors_for
from .async_requests import AsyncRequests
from .connection import HANDSHAKE, IDLE, LINGER, OWNED, STREAM, Connection
from .eviction import Eviction
from .handshakes import Handshakes
from .management.endpoint import ManagementEndpoint
from .plain_http import PlainHTTP
from .poller import READ, make_poller
from .poller import WRITE as WRITABLE
from .probes import Probes
from .receiver import RequestReceiver
from .request_handler import RequestHandler
from .scheduler import Scheduler
from .static_cache import StaticFileCache
from .streaming import StreamFlowControl, sends_files
from .switch_interval import SwitchInterval
from .write_buffer import WriteBuffer

CLIENT_GONE_SECONDS = 1.0
"""Seconds in the queue after which the worker checks whether the client is still connected."""


class Reactor:
    """The connections of one worker."""

    def __init__(self, worker: Any, listeners: Sequence[socket], board: Scoreboard, slot: Slot) -> None:
        config = worker.cfg
        self.worker, self.slot = worker, slot
        self.connections: dict[int, Connection] = {}
        self.poller = make_poller()
        self.eviction = Eviction(self)
        self.streams = StreamFlowControl(self.poller, slot, config.threads, sends_files=sends_files(config))
        self.handler = RequestHandler(worker, self.streams, slot)
        self.late_requests, self.running_paths = self.handler.late_requests, self.handler.running_paths
        self.threads_changed = self.streams.resize
        sampler, cpus = self.handler.sampler, worker.config.cpus / max(1, config.workers)
        interval = SwitchInterval()
        self.scheduler = Scheduler(
            *(config.threads, self, sampler, slot),
            ceiling=worker.config.max_threads,
            lanes=worker.config.lanes == "on",
            queue_timeout=worker.config.queue_timeout,
            cpus=cpus,
            adaptive=worker.config.concurrency_limit == "auto",
            interval=interval,
        )
        most = descriptors_for(config.worker_connections)
        policy = self.scheduler.accept_policy
        settings = ParserSettings(config)
        self.acceptor = Acceptor(listeners, self.poller, board, slot, most, self.eviction.make_room, policy)
        self.unaccepted, self.peers_overloaded = self.acceptor.unaccepted, partial(board.others_refuse, slot)
        self.wake_main_thread = worker.wake
        self.receiver = RequestReceiver(settings, max_body=worker.config.max_body or 0)
        self.errors = error_responses.ErrorResponder(worker)
        self.static_cache = StaticFileCache(worker, self.errors)
        self.probes = Probes(worker, board, slot, self.scheduler)
        self.management = ManagementEndpoint(worker, board, self.poller, self.probes)
        plain = PlainHTTP(worker, listeners)
        self.plain = {self.management.descriptor, *plain.descriptors}
        """Listeners that speak plain HTTP even if the site speaks TLS."""
        tls: TLSContexts | None = getattr(worker.app, "tls", None)
        self.handshakes = None if tls is None else Handshakes(self, tls, settings, slot)
        self.environs = {**self.probes.environs(config, plain.site), **self.management.environs(config)}
        self.environs |= plain.environs(config, self.probes.page)
        part = worker.application.async_part
        if part is not None and not worker.sees_no_requests:
            part = part.without_views()
        most_tasks = config.worker_connections
        self.async_requests = None if part is None else AsyncRequests(self, part, most_tasks, interval)
        self.handler.adopt = None if self.async_requests is None else self.async_requests.adopt
        self.websockets = None if self.async_requests is None else self.async_requests.websockets
        self.keep_alive, self.retiring = float(config.keepalive), False
        self.steps: tuple[Callable[[Connection, float], None], ...] = (
            *(self.receive, self.receive, self.receive),  # IDLE, HEAD, BODY
            *(self.ignore, self.flush, self.ignore, self.drain),  # OWNED, WRITE, STREAM, LINGER
            self.ignore if self.handshakes is None else self.handshakes.enqueue,  # HANDSHAKE
        )

    # In the thread that waits for events.

    def wait_for_events(self, block: bool) -> None:
        """Wait for events, or handle those that have arrived; do all their work except running Django."""
        acceptor = self.acceptor
        retry = acceptor.retry_at
        timeout = None if retry == math.inf else max(0.0, retry - time.monotonic())
        handshakes, scheduler = self.handshakes, self.scheduler
        if handshakes is not None:
            due = handshakes.timeout(requests_wait=scheduler.queued > 0)
            timeout = due if timeout is None else timeout if due is None else min(timeout, due)
        events = self.poller.wait(timeout if block else 0.0)
        now, listening = time.monotonic(), retry < math.inf
        scheduler.events += len(events)
        for descriptor, _ in events:
            connection = self.connections.get(descriptor)
            if connection is not None:
                self.on_event(connection, now)
            elif descriptor in acceptor.listeners:
                listening = True
            elif descriptor == self.management.descriptor:
                self.management.accept(now, self.on_accept)
        if listening:
            acceptor.accept(now, scheduler.load, self.on_accept, overloaded=scheduler.is_overloaded)
        if handshakes is not None:
            handshakes.run(requests_wait=scheduler.queued > 0)
        scheduler.after_events(len(acceptor.awaiting_request))

    def on_accept(self, sock: SocketType, peer: Any, listener: int, now: float, waited: float) -> bool:
        """Register a new connection; return whether its first bytes are here (they mostly are)."""
        if getdefaulttimeout() is not None:  # set by the project: recv would wait this long, flags or not
            sock.settimeout(None)
        connection = Connection(sock, peer, self.environs[listener])
        connection.waited, connection.deadline = waited, now + limits.HEAD_SECONDS
        self.scheduler.events += 1
        self.connections[connection.fd] = connection
        self.slot.connections = len(self.connections)
        if self.handshakes is not None and listener not in self.plain:
            connection.state, connection.deadline = HANDSHAKE, now + limits.HANDSHAKE_SECONDS
            self.arm(connection, READ)
            return False
        self.run_state_handler(connection, now)
        return connection.bytes_since_check > 0

    def on_event(self, connection: Connection, now: float) -> None:
        """Handle an event of a connection."""
        if connection.state == STREAM and self.streams.flush(connection):
            return
        if connection.acquire():
            self.run_state_handler(connection, now)

    def run_state_handler(self, connection: Connection, now: float) -> None:
        """Run the handler of the connection's state."""
        self.guard(self.steps[connection.state], connection, now)

    def guard(self, step: Callable[[Connection, float], None], connection: Connection, now: float) -> None:
        """Run a step; an error costs one connection, not the worker."""
        try:
            step(connection, now)
        except ClientGoneError as error:
            if isinstance(error, FileShrankError):
                self.worker.log.error("%s", error)
            self.drop(connection)
        except Exception:
            self.report_failure()
            self.drop(connection)

    def receive(self, connection: Connection, now: float) -> None:
        """Read the bytes of a request that have arrived."""
        try:
            data = connection.receive()
        except BlockingIOError:
            self.arm(connection, READ)
            return
        if self.acceptor.awaiting_request:
            self.acceptor.awaiting_request.pop(connection.fd, None)
        if data:
            connection.bytes_since_check += len(data)
            self.parse_requests(connection, data, now)
        else:
            self.drop(connection)

    def parse_requests(self, connection: Connection, data: bytes, now: float) -> None:
        """Parse requests from these bytes, one after the other while each is answered immediately."""
        more: bytes | None = data
        while more is not None:
            try:
                complete = self.receiver.feed(connection, more, now)
            except ClientGoneError:
                raise
            except Exception as error:  # every parser error becomes a response to the client
                self.refuse(connection, error, now)
                return
            if not complete:
                self.arm(connection, READ)
                return
            more = self.dispatch(connection, now)

    def dispatch(self, connection: Connection, now: float) -> bytes | None:
        """Answer a complete request or queue it; if it was answered, return the bytes behind it."""
        connection.state, connection.deadline, connection.arrived = OWNED, math.inf, now
        request = connection.request
        assert request is not None
        responder = connection.environs.page(request.path)
        if responder is not None:
            keep = not (request.should_close() or self.retiring)
            return self.reply(connection, responder(request, keep), now, keep=keep)
        if connection.environs.otherwise is not None:
            keep = not (request.should_close() or self.retiring)
            make = partial(connection.environs.otherwise, request, keep)
            return self.send_error(connection, make, now, keep=keep)
        hit = self.static_cache.files.get(request.path)
        if hit is not None:
            found = self.static_cache.find(connection, hit)
            if found is not None:
                self.slot.count_static()
                data, keep = found
                return self.reply(connection, data, now, keep=keep)
        if self.websockets is not None and asks_for_websocket(request):
            refusal = self.websockets.submit(connection)
            return None if refusal is None else self.send_error(connection, refusal, now, keep=False)
        behind = None
        tasks = self.async_requests
        if tasks is not None and tasks.wants(request.path):
            refusals: Sequence[Connection] = () if tasks.submit(connection) else (connection,)
        else:
            refusals = self.scheduler.submit(connection, now)
        moves = refusals and (self.retiring or self.acceptor.peer_has_capacity(self.scheduler.load))
        for refused in refusals:
            self.slot.count_refused()
            keep = not (refused.request is None or refused.request.should_close() or moves)
            more = self.send_error(
                refused, partial(error_responses.service_unavailable, keep=keep), now, keep=keep
            )
            if refused is connection:
                behind = more
            elif more is not None:
                self.parse_requests(refused, more, now)
        return behind

    def ignore(self, connection: Connection, now: float) -> None:
        """Do nothing: the event is older than the state."""

    def flush(self, connection: Connection, now: float) -> None:
        """Send the rest of a complete response."""
        out = connection.write_buffer
        assert out is not None
        connection.bytes_since_check += out.flush(connection.sock)
        if out.pieces:
            self.arm(connection, WRITABLE)
            return
        connection.write_buffer = None
        self.next_pipelined(connection, self.after_response(connection, now, keep=connection.keep), now)

    def drain(self, connection: Connection, now: float) -> None:
        """Discard bytes that a client sends after our response, until it closes."""
        if connection.tls is not None and connection.tls.has_unsent:  # the goodbye
            self.close(connection, now, politely=True)
            return
        with suppress(BlockingIOError):
            while data := connection.receive():
                connection.bytes_since_check += len(data)
                if connection.bytes_since_check > limits.LINGER_BYTES:
                    break
            self.drop(connection)
            return
        self.arm(connection, READ)

    # In the thread that owns the connection.

    def reply(self, connection: Connection, data: bytes, now: float, *, keep: bool) -> bytes | None:
        """Send a complete response; return the bytes behind its request, as ``finish_response`` does."""
        sent = connection.send_nowait(data)
        if sent < len(data):
            connection.write_buffer = WriteBuffer()
            connection.write_buffer.add(memoryview(data)[sent:])
        return self.finish_response(connection, now, keep=keep)

    def send_error(
        self, connection: Connection, make: Callable[[], bytes], now: float, *, keep: bool
    ) -> bytes | None:
        """Send one of the server's own responses."""
        return self.reply(connection, self.errors.respond(connection, make), now, keep=keep)

    def finish_response(self, connection: Connection, now: float, *, keep: bool) -> bytes | None:
        """Finish a response; return the bytes behind its request, as ``after_response`` does."""
        connection.forget_request()
        if connection.write_buffer is not None:
            connection.keep = keep
            if self.streams.end(connection, now):
                self.arm(connection, WRITABLE)
                return None
        return self.after_response(connection, now, keep=keep)

    def after_response(self, connection: Connection, now: float, *, keep: bool) -> bytes | None:
        """Continue after a response: return bytes behind its request, or else wait for more, or close."""
        if not keep:
            self.close(connection, now, politely=not connection.client_closes or connection.holds_unread())
            return None
        connection.state, connection.deadline, connection.waited = IDLE, now + self.keep_alive, 0.0
        if connection.buffer:
            behind, connection.buffer = connection.buffer, b""
            return behind
        self.arm(connection, READ)
        return None

    def next_pipelined(self, connection: Connection, behind: bytes | None, now: float) -> None:
        """Handle the next request if its bytes have already arrived."""
        if behind is not None:
            self.parse_requests(connection, behind, now)

    def refuse(self, connection: Connection, error: Exception, now: float) -> None:
        """Answer a request that the worker cannot accept, and close."""
        self.send_error(
            connection,
            lambda: error_responses.error_response(self.worker, connection, error),
            now,
            keep=False,
        )

    def refuse_plain(
        self, connection: Connection, data: bytes, make: Callable[[], bytes], now: float
    ) -> None:
        """Answer a request that arrived in plain HTTP on a port for TLS, and close."""
        self.receiver.read_head(connection, data)
        connection.state, connection.deadline = OWNED, math.inf
        self.send_error(connection, make, now, keep=False)

    def arm(self, connection: Connection, events: int) -> None:
        """Hand the connection to the thread that gets its next event."""
        connection.release()
        if connection.is_registered:
            self.poller.arm(connection.fd, events)
        else:
            connection.is_registered = True
            self.poller.add(connection.fd, events)

    def close(self, connection: Connection, now: float, *, politely: bool) -> None:
        """Close a connection. With ``politely``, shut down only the write side until the client closes.

        A reset would truncate the response.
        """
        if connection.tls is not None and not connection.tls.say_goodbye():
            connection.state, connection.deadline = LINGER, now + limits.STALL_SECONDS
            self.arm(connection, WRITABLE)
            return
        if politely:
            with suppress(OSError):
                connection.sock.shutdown(SHUT_WR)
                connection.buffer = b""
                connection.state, connection.deadline, connection.bytes_since_check = (
                    LINGER,
                    now + limits.LINGER_SECONDS,
                    0,
                )
                self.arm(connection, READ)
                return
        self.drop(connection)

    def drop(self, connection: Connection) -> None:
        """Close a connection. Only its owner may call this; afterwards no thread owns it."""
        connection.forget_request()
        if connection.write_buffer is not None:
            connection.write_buffer.close()
        if self.connections.get(connection.fd) is connection:
            del self.connections[connection.fd]
        self.slot.connections = len(self.connections)
        self.poller.closed(connection.fd)
        connection.sock.close()

    def disown(self) -> None:
        """In a copy of this process, close the worker's sockets: clients would wait for the end."""
        self.scheduler.disown()
        if self.async_requests is not None:
            self.async_requests.loop.disown()
        self.poller.close()
        for connection in self.connections.values():
            connection.sock.close()
            connection.write_buffer = None  # a thread that does not exist in this copy may hold its lock
        if self.management.listener is not None:
            self.management.listener.close()

    def report_failure(self) -> None:
        """Log an internal error of the server."""
        if fork_guard.PROCESS.is_copy:
            fork_guard.end("The worker", sys.exc_info()[1], self.worker.log)
        self.worker.log.exception("Internal error in the worker; it keeps serving.")

    # In the threads that run Django.

    def thread_started(self, row: int) -> None:
        """Record on the scoreboard which thread has this row, because its stack may be requested."""
        self.handler.sampler.open()
        if self.async_requests is not None:
            self.async_requests.thread_started()
        self.slot.thread(row, threading.get_ident(), threading.get_native_id())

    def thread_ends(self, row: int) -> None:
        """Close what this thread has opened: the database connections of the project, and its schedstat."""
        self.slot.thread(row, 0)
        try:
            close_own_connections()
        except Exception:  # a driver may raise anything
            self.worker.log.exception("A thread that ended could not close its connections.")
        self.handler.sampler.close()

    def serve(self, connection: Connection, row: int) -> None:
        """Run Django for a complete request, and send its response."""
        started = time.monotonic()
        scheduler = self.scheduler
        running = scheduler.started()
        try:
            if (
                started - connection.arrived + connection.waited > CLIENT_GONE_SECONDS
                and connection.is_gone()
            ):
                raise ClientGoneError
            last = self.retiring or self.should_move(connection, started, running)
            keep = self.handler.handle(connection, row, started, running, must_close=last)
            if keep is not None:
                now = time.monotonic()
                self.next_pipelined(connection, self.finish_response(connection, now, keep=keep), now)
        except ClientGoneError:
            self.drop(connection)
        except BaseException:
            self.report_failure()
            self.drop(connection)
        finally:
            scheduler.finished(time.monotonic() - started)

    def should_move(self, connection: Connection, now: float, running: int) -> bool:
        """Return whether this client had better reconnect, to another worker."""
        waiting = self.scheduler.queued
        if not waiting or not self.acceptor.should_rebalance(now, running + waiting):
            return False
        return not connection.holds_unread()  # closing would lose bytes behind this request

    # In the main thread.

    def tick(self, now: float) -> None:
        """Once a second: publish how many requests wait, and the state for the probes."""
        self.slot.queue = self.scheduler.queued
        self.probes.tick(now)
        self.management.watch()

    def route_limited(self, route: str, most: int, threads: int) -> None:
        """Record that a route may have only so many of the threads, while others wait for it."""
        part = f"{most} of {threads} threads"
        text = f"Route {route or 'unknown'} is limited to {part}: requests of other routes waited for it"
        write(self.slot.events, Event(time.time(), "lane", text))
        self.worker.log.warning("%s", text)

    def retire(self, now: float, deadline: float) -> None:
        """Accept those in the accept queue, and no more; each response now closes its connection."""
        self.retiring = self.static_cache.retiring = True
        if self.async_requests is not None:
            self.async_requests.retire(deadline)
        self.management.retire()
        self.acceptor.drain(self.on_accept, now)
        if self.websockets is not None:
            self.websockets.retire(deadline)
