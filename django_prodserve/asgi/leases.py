"""Threads for what may block. Each is leased to one request, which makes all of its calls in it.

Lives in a worker. ``submit`` and ``release`` run on the event loop's thread; the calls run in daemon threads
of their own, "prodserve-lease-N". asgiref promises that all ``sync_to_async`` calls of one request run in one
thread. It starts a thread for each request, and a second one to join the first. Here the thread comes from a
pool and returns to it, so a database connection outlives a request, as in a WSGI server's threads.

A request takes a thread with its first call. ``release`` ends that: from then on the lease floats, and each
call may get another thread. That is the rule while a response streams, and for tasks that outlive a request.
A query that is read in several calls still stays in one thread, because its cursor belongs to the connection.

A lease never waits for itself: a call from its own thread gets another thread. Requests that wait for each
other through the server (a view that calls its own site) end by the limit on waiting: NoThreadFreeError.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from contextvars import Context
from queue import SimpleQueue
from types import GeneratorType
from typing import Any, NamedTuple

import asgiref
from asgiref.sync import SyncToAsync, ThreadSensitiveContext

from ..speedups.fingerprints import fingerprint
from ..utils import fork_guard
from ..utils.units import format_duration

LOG = logging.getLogger("gunicorn.error")

TESTED = {  # not 3.12.0, which hides the arguments of a call
    "7a0e738620b62c86": "3.9 and 3.10",
    "4b04a37e28b933f1": "3.11.0",
    "b1644287101571bb": "3.11.1",
    "98968315e94ceecb": "3.12.1",
    "9330fa348917e5a0": "3.13.0",
}
"""Fingerprints of asgiref's two classes, and the versions that have them."""


class NoThreadFreeError(BaseException):
    """No thread became free in time. The caller answers 503.

    No ``Exception``, as asyncio's CancelledError is none: neither the project's code nor Django, which would
    log a failure and answer 500, may take it for an error of a view.
    """


def why_not() -> str:
    """Return why no threads can be leased here; empty if asgiref is as tested."""
    found = fingerprint(SyncToAsync, ThreadSensitiveContext)
    return "" if found in TESTED else f"the source of asgiref {asgiref.__version__} is not as tested"


def nothing() -> None:
    """Do nothing when a thread is leased or given back."""


class Leases:
    """The threads of one worker; at most ``limit``, each started when none is free."""

    def __init__(self, limit: int, patience: float) -> None:
        self.limit, self.patience = limit, patience
        """Threads, and the seconds that a call waits for one; infinite for no limit."""
        self.refused = 0
        """Leases that waited too long."""
        self._lock = threading.Lock()
        self._idle: list[_Thread] = []  # the last one first: its connections and caches are the warmest
        self._waiting: deque[Lease] = deque()
        self._threads: set[_Thread] = set()
        self._numbers = itertools.count(1)
        self._is_closed = False

    def lend(
        self,
        begin: Callable[[], None] = nothing,
        settle: Callable[[], None] = nothing,
        *,
        floats: bool = False,
        patience: float | None = None,
    ) -> Lease:
        """Return a lease for one request, or with ``floats`` one that keeps no thread between its calls.

        ``begin`` runs in each thread that it takes, before the first call. ``settle`` runs in a thread before
        it is given back, unless ``release`` states that this has been done. A call waits ``patience`` seconds
        for a thread, by default as long as in all leases.
        """
        return Lease(
            self, begin, settle, floats=floats, patience=self.patience if patience is None else patience
        )

    @property
    def threads(self) -> int:
        """Threads that were started and have not ended."""
        return len(self._threads)

    @property
    def busy(self) -> int:
        """Threads that are leased."""
        return len(self._threads) - len(self._idle)

    @property
    def waiting(self) -> int:
        """Leases that wait for a thread."""
        return len(self._waiting)

    def close(self, timeout: float = 0.0) -> bool:
        """Let each thread end after its last call; return whether all did within the seconds given.

        Of a worker whose tasks have ended: a call that comes later is a RuntimeError.
        """
        until = time.monotonic() + timeout
        with self._lock:
            self._is_closed = True
            threads, idle, self._idle = [*self._threads], self._idle, []
        for thread in idle:
            thread.inbox.put(None)
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    # With the lock held.

    def _take(self) -> _Thread | None:
        """Return a free thread, or a new one; None if all are leased."""
        if self._is_closed:
            raise RuntimeError("the threads for blocking calls have been closed")
        if self._idle:
            return self._idle.pop()
        if len(self._threads) >= self.limit:
            return None
        thread = _Thread(self, next(self._numbers))
        thread.start()
        self._threads.add(thread)
        return thread

    def _give_back(self, thread: _Thread) -> None:
        """Pass a thread to the lease that has waited longest, or keep it."""
        if self._waiting:
            self._waiting.popleft()._attach(thread)
        elif self._is_closed:
            thread.inbox.put(None)
        else:
            self._idle.append(thread)


class _Thread(threading.Thread):
    """A thread that runs the calls of one lease after the other."""

    def __init__(self, pool: Leases, number: int) -> None:
        super().__init__(name=f"prodserve-lease-{number}", daemon=True)
        self.pool = pool
        self.inbox: SimpleQueue[tuple[Lease, _Call | None] | None] = SimpleQueue()

    def run(self) -> None:
        while (work := self.inbox.get()) is not None:
            lease, call = work
            del work
            if call is not None:
                lease.run_call(call)
                del call  # with its result: an idle thread keeps nothing alive
            lease._look(self)
            del lease
        self.pool._threads.discard(self)


class _Call(NamedTuple):
    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Lease(Executor):
    """One request's right to a thread. An executor, because asgiref asks for one."""

    def __init__(
        self,
        pool: Leases,
        begin: Callable[[], None],
        settle: Callable[[], None],
        *,
        floats: bool,
        patience: float,
    ) -> None:
        self._pool, self._begin, self._settle, self._patience = pool, begin, settle, patience
        self._thread: _Thread | None = None
        self._is_new = False  # the thread is new to the lease, and begin has not run
        self._pending = 0
        self._calls: list[_Call] = []  # those that wait for a thread
        self._ticket: object = None
        self._floats, self._is_settled = floats, False
        self._queries: weakref.WeakSet[GeneratorType[Any, Any, Any]] = weakref.WeakSet()
        self.was_refused = False
        """Whether a call got no thread in time."""

    @property
    def is_taken(self) -> bool:
        """Whether this request has a thread, or waits for one."""
        return self._thread is not None or self._pending > 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make ``sync_to_async`` use this lease, in this task and those that it starts.

        asgiref looks the executor up by an object of the current context, and forgets it with that object. So
        tasks that outlive the request continue with this lease, which floats by then.
        """
        key = ThreadSensitiveContext()
        SyncToAsync.context_to_thread_executor[key] = self  # type: ignore[assignment, index, unused-ignore]
        token = SyncToAsync.thread_sensitive_context.set(key)
        del key
        try:
            yield
        finally:
            SyncToAsync.thread_sensitive_context.reset(token)

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call in the thread; take one first if there is none, and wait for one if none is free."""
        if threading.current_thread() is self._thread:
            other = self._pool.lend(self._begin, self._settle, floats=True, patience=self._patience)
            return other.submit(function, *args, **kwargs)
        call = _Call(Future(), function, args, kwargs)
        with self._pool._lock:
            if self._floats:
                if self._thread is None and not self._calls and self._settles(function):
                    call.future.set_result(None)
                    return call.future
                self._note_queries(function)
            if self._thread is None and not self._calls and (thread := self._pool._take()) is not None:
                self._attach(thread)
            self._pending += 1
            if self._thread is not None:
                self._thread.inbox.put((self, call))
                return call.future
            self._calls.append(call)
            if len(self._calls) > 1:
                return call.future
            self._pool._waiting.append(self)
            self._ticket = ticket = object()  # the timer must not keep the call alive
        if self._patience < math.inf:
            # In an empty context: the request would live until the timer fires.
            asyncio.get_running_loop().call_later(self._patience, self._refuse, ticket, context=Context())
        return call.future

    def release(self, *, settled: bool = False) -> None:
        """Give the thread back when its calls are done; from now on the lease floats.

        ``settled`` states that the end of the request has run in the thread.
        """
        with self._pool._lock:
            thread = self._thread
            self._floats, self._is_settled = True, settled and not self._pending
            if thread is None or self._pending:
                return
            if settled:
                self._detach()
                return
        thread.inbox.put((self, None))

    async def withdraw(self) -> None:
        """Stop waiting for a thread if every call that waits was cancelled."""
        if not self._calls:
            return
        await asyncio.sleep(0)  # asyncio passes a cancellation on in the next turn of its loop
        with self._pool._lock:
            if self._calls and all(call.future.cancelled() for call in self._calls):
                self._pool._waiting.remove(self)
                self._pending -= len(self._calls)
                self._calls = []

    def _refuse(self, ticket: object) -> None:
        """Fail what has waited since this ticket was made."""
        with self._pool._lock:
            if not self._calls or self._ticket is not ticket:
                return
            self._pool._waiting.remove(self)
            calls, self._calls = self._calls, []
            self._pending -= len(calls)
            self._pool.refused += 1
        self.was_refused = True
        limit, patience = self._pool.limit, format_duration(self._patience)
        words = f"all threads for blocking calls ({limit}) were in use for {patience}"
        for each in calls:
            if each.future.set_running_or_notify_cancel():
                each.future.set_exception(NoThreadFreeError(words))

    def _wake(self) -> None:
        """Let the thread see that a query has ended. Runs in a garbage collection: takes no lock."""
        if (thread := self._thread) is not None:
            thread.inbox.put((self, None))

    # With the lock held.

    def _settles(self, function: Any) -> bool:
        """Return whether a call only does what was done when the last thread was given back.

        Channels closes old connections so at each message: that would be a call to a thread for each.
        """
        children = [child for child in getattr(function, "args", ()) if hasattr(child, "func")]
        return any(child.func is self._settle and not child.args for child in children)

    def _note_queries(self, function: Any) -> None:
        """Remember the generators that a call reads: Django reads a query through one, in several calls."""
        for child in getattr(function, "args", ()):
            for query in getattr(child, "args", ()):
                if type(query) is GeneratorType and query not in self._queries:
                    self._queries.add(query)
                    weakref.finalize(query, self._wake).atexit = False

    def _attach(self, thread: _Thread) -> None:
        self._thread, self._is_new, self._is_settled = thread, True, False
        for call in self._calls:
            thread.inbox.put((self, call))
        self._calls = []

    def _detach(self) -> None:
        thread, self._thread = self._thread, None
        assert thread is not None
        self._pool._give_back(thread)

    # In the thread.

    def run_call(self, call: _Call) -> None:
        future = call.future
        if not future.set_running_or_notify_cancel():
            self._count_down()
            return
        try:
            if self._is_new:
                self._is_new = False
                self._begin()
            result = call.function(*call.args, **call.kwargs)
        except BaseException as error:  # goes to who waits, also SystemExit: the thread is the pool's
            self._count_down()
            future.set_exception(error)
            del future  # the traceback refers to it
        else:
            self._count_down()
            future.set_result(result)

    def _count_down(self) -> None:
        """Count a call as done before its result is known: the lease can then be released."""
        if fork_guard.PROCESS.is_copy:  # forked by the call, perhaps while the loop's thread held the lock
            return
        with self._pool._lock:
            self._pending -= 1

    def _look(self, thread: _Thread) -> None:
        """Give the thread back if nothing of this request is left for it."""
        if not self._floats:  # the usual case; whoever releases it later sees that nothing is pending
            return
        has_settled = False
        while True:
            with self._pool._lock:
                if self._thread is not thread or self._pending or not self._floats or self._reads():
                    return
                if self._is_settled or has_settled:
                    self._detach()
                    return
            try:
                self._settle()
            except Exception:  # a connection that cannot be closed: the next request finds it so
                LOG.exception("A thread could not be settled after a request")
            has_settled = True

    def _reads(self) -> bool:
        return any(query.gi_frame is not None for query in [*self._queries])
