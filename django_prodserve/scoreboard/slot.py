"""One worker's slot on the scoreboard: its state, the requests of its threads, its counters.

Lives in memory that processes share (board.py). Each cell has one writer: the worker, under its own lock, or
one thread of it (a row), or the arbiter if a cell's docstring names it. Readers take no lock.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import errors
from .cells import Seconds, Whole
from .memory import SharedMemory

if TYPE_CHECKING:
    from .ring import Ring
    from .routes import RouteTable

FREE, CLAIMED, BOOTING, SERVING, RETIRING = range(5)
STATES = ("free", "starting", "booting", "serving", "retiring")

GO_HUNG = 1
WAITS, REFUSES = 1, 2

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the histograms in seconds; one more bucket counts longer times."""
BUCKETS = len(BOUNDS) + 1

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other")
"""Methods with their own counters. A client may send any other method, and must not make us store it."""
CLASSES = 5
"""Status classes: 1xx to 5xx."""
_OTHER = (len(METHODS) - 1) * CLASSES
_FIRST = {method: number * CLASSES for number, method in enumerate(METHODS)}

HANDSHAKE_FAILURES = (
    *("http", "not-tls", "version", "cipher", "client-certificate"),
    *("alert", "closed", "timeout", "no-room", "other"),
)
"""Why TLS handshakes fail: the client speaks plain HTTP, or no TLS; it shares no version or cipher with this
server; its certificate is missing or wrong; it refused the server's; it closed, or took too long; the worker
had no room for more connections; anything else."""

# All data is in cells of eight bytes: first the header of a slot...
_PID, _GENERATION, _STATE, _THREADS, _STARTED, _HEARTBEAT = range(6)
_REPLACEMENT_REASON, _EXIT_MODE, _DEADLINE, _MEMORY, _CPU = range(6, 11)
_REFUSED, _ABORTED, _SATURATED, _LIMIT, _QUEUE_WAIT = range(11, 16)
_TASKS, _LOOP_LAG, _LOOP_BLOCKED, _WEBSOCKETS = range(16, 20)
_LEASES, _LEASES_BUSY, _LEASES_WAITING = range(20, 23)
_MAX_THREADS, _GROWTH_HOLD, _USED_ROWS, _CPU_SHARE, _LANE = range(23, 28)
HEAD = 28
TASK_ROWS = 16
"""Rows for requests on the asyncio loop. If more run at a time, the others are only counted."""
# ...then a row for each thread, and those for tasks: its request, its counters, and the request's text.
_START, _PROGRESS, _LAST_END, _IDENT, _NATIVE_ID, _LENGTH = range(6)
_TALLY = 6
_LATENCY = len(METHODS) * CLASSES  # before it: a cell for each method and class
_QUEUED = _LATENCY + BUCKETS
_SAMPLES = _QUEUED + BUCKETS
_STATIC = _SAMPLES + 1  # only in the first row: it is counted under a lock
_OPENED, _MESSAGES_IN, _MESSAGES_OUT = range(_STATIC + 1, _STATIC + 4)  # only in the row of tasks
_HANDSHAKES, _RESUMED, _FAILED_HANDSHAKES = range(_STATIC + 4, _STATIC + 7)  # only in the first row
WHOLE = _FAILED_HANDSHAKES + len(HANDSHAKE_FAILURES)
TALLY_CELLS = WHOLE + 5
_LATENCY_SUM, _QUEUED_SUM, _CPU_SUM, _WAIT_SUM, _DELAY_SUM = range(WHOLE, TALLY_CELLS)
"""The whole-number counters come first, then those in seconds."""
_TEXT = _TALLY + TALLY_CELLS
_TEXT_BYTES = 512
ROW = _TEXT + _TEXT_BYTES // 8


@dataclass(frozen=True)
class Request:
    """A request that runs Django; ``start`` and ``progress`` are monotonic times."""

    row: int
    ident: int
    native_id: int
    start: float
    progress: float
    method: str
    path: str
    id: str


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Counters of a worker, or of all workers that ever ran; sums are in seconds."""

    answers: tuple[int, ...]
    """Requests answered with 1xx, 2xx ... 5xx, by method, in the order of METHODS."""
    latency: tuple[int, ...]
    latency_sum: float
    queued: tuple[int, ...]
    queued_sum: float
    samples: int
    """Requests that ran alone in their worker and were measured; their seconds follow."""
    cpu_sum: float
    wait_sum: float
    delay_sum: float
    static: int = 0
    """Static files answered from memory; the other counters exclude them."""
    refused: int = 0
    aborted: int = 0
    """Responses that ended before they were complete."""
    websockets: int = 0
    """Websockets that were opened."""
    messages_received: int = 0
    messages_sent: int = 0
    handshakes: int = 0
    """TLS handshakes that are complete, resumed or not."""
    resumed_handshakes: int = 0
    failed_handshakes: tuple[int, ...] = (0,) * len(HANDSHAKE_FAILURES)
    """In the order of HANDSHAKE_FAILURES."""

    @property
    def classes(self) -> tuple[int, ...]:
        """Requests answered with 1xx, 2xx ... 5xx."""
        return tuple(sum(self.answers[number::CLASSES]) for number in range(CLASSES))

    @property
    def requests(self) -> int:
        return sum(self.answers)


class _Load:
    """A whole number in the load table, in which workers read each other's load."""

    def __init__(self, column: int) -> None:
        self.column = column

    def __get__(self, slot: Slot, owner: type[Slot]) -> int:
        return slot.whole[slot.load + self.column * slot.stride]

    def __set__(self, slot: Slot, value: int) -> None:
        slot.whole[slot.load + self.column * slot.stride] = value


CONNECTIONS, LOAD, BUSY, QUEUE = range(1, 5)
COLUMNS = 5
"""Columns of the load table, with one row for each slot. The first column holds the generation + 1 of workers
that serve, 0 for others."""


class Slot:
    """A view of one slot, for its writers and for readers."""

    __slots__ = (
        *("_lock", "at", "bytes", "errors", "events", "index"),
        *("load", "routes", "rows", "seconds", "stride", "task_rows", "whole"),
    )

    pid = Whole(_PID)
    generation = Whole(_GENERATION)
    threads = Whole(_THREADS)
    """How many requests may run in threads at a time, which may grow..."""
    max_threads = Whole(_MAX_THREADS)
    """...up to this number."""
    growth_hold = Whole(_GROWTH_HOLD)
    """What keeps the number from growing: a position in growth_holds.py."""
    lane = Whole(_LANE)
    """How many threads the limited route may have; 0 if no route is limited."""
    started = Seconds(_STARTED)
    heartbeat = Seconds(_HEARTBEAT)
    """When the worker's event loop last completed an iteration."""
    replacement_reason = Whole(_REPLACEMENT_REASON)
    """Why the worker wants to be replaced: an index into REASONS + 1; 0 if it does not."""
    exit_mode = Whole(_EXIT_MODE)
    """Written by the arbiter before it stops the worker: GO_HUNG if its threads end no request."""
    deadline = Seconds(_DEADLINE)
    """Written by the arbiter: when it will kill this worker; 0.0 if it will not."""
    memory = Whole(_MEMORY)
    """Written by the arbiter: bytes of this worker's proportional share."""
    cpu = Seconds(_CPU)
    """Written by the arbiter: CPU seconds of the worker's process..."""
    cpu_share = Seconds(_CPU_SHARE)
    """...and the CPUs that it used in the last seconds."""
    refused = Whole(_REFUSED)
    aborted = Whole(_ABORTED)
    saturated = Whole(_SATURATED)
    """Whether a new request in this worker waits long, 1, or is refused, 2, as of this second."""
    concurrency_limit = Whole(_LIMIT)
    """Maximum number of requests that the worker runs at a time now: its threads, or fewer."""
    tasks = Whole(_TASKS)
    """How many requests run on the asyncio loop."""
    websockets = Whole(_WEBSOCKETS)
    """How many websockets are open."""
    loop_lag = Seconds(_LOOP_LAG)
    """How long the asyncio loop took to run a callback, at the last measurement."""
    loop_blocked = Whole(_LOOP_BLOCKED)
    """How many times a request blocked the asyncio loop."""
    leases = Whole(_LEASES)
    """Maximum number of leased threads; 0 in a worker without an asyncio loop."""
    leases_busy = Whole(_LEASES_BUSY)
    """How many threads are leased, as of the main thread's last check."""
    leases_waiting = Whole(_LEASES_WAITING)
    """How many async requests wait for a leased thread, as of then."""
    queue_wait = Seconds(_QUEUE_WAIT)
    """How long requests wait for a thread, as of this second; in an overload, the wait at detection."""
    connections = _Load(CONNECTIONS)
    work = _Load(LOAD)
    """How many of its threads are reserved; all of them if a new request would have to wait."""
    busy = _Load(BUSY)
    queue = _Load(QUEUE)

    def __init__(
        self,
        memory: SharedMemory,
        index: int,
        *,
        at: int,
        rows: int,
        load: int,
        stride: int,
        events: Ring,
        errors: Ring,
        routes: RouteTable,
    ) -> None:
        self.index, self.at, self.load, self.stride = index, at, load, stride
        self.events, self.errors, self.routes = events, errors, routes
        self.bytes, self.whole, self.seconds = memory.bytes, memory.whole, memory.seconds
        self._lock = threading.Lock()
        every = tuple(at + HEAD + row * ROW for row in range(TASK_ROWS + rows))
        self.task_rows, self.rows = every[:TASK_ROWS], every[TASK_ROWS:]

    # The worker's life cycle.

    def start(self, pid: int, generation: int, threads: int, now: float) -> None:
        """Record the owner of this slot: the first step of a worker."""
        self.pid, self.generation = pid, generation
        self.threads = self.max_threads = self.concurrency_limit = threads
        self.whole[self.at + _USED_ROWS] = min(threads + 1, len(self.rows))  # one waits for events
        self.started = self.heartbeat = now
        self.state = BOOTING

    @property
    def state(self) -> int:
        """One of the states above; written by the worker, and before and after its life by the arbiter."""
        return self.whole[self.at + _STATE]

    @state.setter
    def state(self, state: int) -> None:
        self.whole[self.at + _STATE] = state
        self.whole[self.load] = self.generation + 1 if state == SERVING else 0

    def publish_load(self, busy: int, work: int, queue: int) -> None:
        """Publish how many threads run Django, how many are reserved, and how many requests wait."""
        whole, load, stride = self.whole, self.load, self.stride
        whole[load + LOAD * stride] = work
        whole[load + BUSY * stride] = busy
        whole[load + QUEUE * stride] = queue

    @property
    def is_free(self) -> bool:
        return self.state == FREE

    def clear(self) -> None:
        """Empty the slot. Called by the arbiter when it has reaped the worker."""
        self.state = FREE
        self.connections = self.work = self.busy = self.queue = 0
        end = self.at + HEAD + (TASK_ROWS + self.whole[self.at + _USED_ROWS]) * ROW
        self.bytes[self.at * 8 : end * 8] = bytes((end - self.at) * 8)
        self.events.clear()
        self.errors.clear()
        self.routes.clear()

    # A request, in its thread. Each row has one thread as its only writer: the rows of tasks, the loop's.

    def thread(self, row: int, ident: int, native_id: int = 0) -> None:
        """Record which thread writes this row."""
        at = self.rows[row]
        self.whole[at + _IDENT], self.whole[at + _NATIVE_ID] = ident, native_id
        with self._lock:
            self.whole[self.at + _USED_ROWS] = max(row + 1, self.whole[self.at + _USED_ROWS])

    @property
    def used_rows(self) -> tuple[int, ...]:
        """Return the rows that may have had a thread: few of those that a worker may have."""
        return self.rows[: self.whole[self.at + _USED_ROWS]]

    def request_started(self, row: int, now: float, method: str, path: str, request_id: str) -> None:
        """Record that a request starts to run Django. The time is written last: a row without one is idle."""
        self.write_request(self.rows[row], now, method, path, request_id)

    def write_request(self, at: int, now: float, method: str, path: str, request_id: str) -> None:
        """Record a request in the row at this cell."""
        text = f"{method[:32]}\0{request_id[:64]}\0{path}".encode("utf-8", "replace")[:_TEXT_BYTES]
        first = (at + _TEXT) * 8
        self.bytes[first : first + len(text)] = text
        self.whole[at + _LENGTH] = len(text)
        self.seconds[at] = now

    def progress(self, row: int, now: float) -> None:
        """Record the progress of a stream: it does not hang."""
        self.seconds[self.rows[row] + _PROGRESS] = now

    def request_finished(
        self, row: int, now: float, status: int, started: float, queued_seconds: float, method: str = "GET"
    ) -> None:
        """Record that a request is over: clear the row and count it."""
        at = self.rows[row]
        self.seconds[at] = 0.0
        self.seconds[at + _LAST_END] = now
        self.count_request(at, now, status, started, queued_seconds, method)

    def started_at(self, row: int) -> float:
        """Return when the request of this row started; 0.0 if there is none."""
        return self.seconds[self.rows[row]]

    def request_left(self, row: int, now: float) -> None:
        """Clear the row of a request that continues without this thread."""
        at = self.rows[row]
        self.seconds[at] = 0.0
        self.seconds[at + _LAST_END] = now

    def task_finished(
        self, at: int, now: float, status: int, started: float, queued_seconds: float, method: str
    ) -> None:
        """Record that a request on the asyncio loop is over; ``at`` is the cell of its row, 0 without one."""
        if at:
            self.seconds[at] = 0.0
        self.count_request(self.task_rows[0], now, status, started, queued_seconds, method)

    # A websocket, in the loop's thread.

    def websocket_opened(self) -> None:
        """Count a websocket that the application has accepted."""
        self.websockets += 1
        self.whole[self.task_rows[0] + _TALLY + _OPENED] += 1

    def websocket_closed(self) -> None:
        """Record that an open websocket has ended."""
        self.websockets -= 1

    def count_message_received(self) -> None:
        """Count a message of a client."""
        self.whole[self.task_rows[0] + _TALLY + _MESSAGES_IN] += 1

    def count_message_sent(self) -> None:
        """Count a message of an application."""
        self.whole[self.task_rows[0] + _TALLY + _MESSAGES_OUT] += 1

    def count_request(
        self, at: int, now: float, status: int, started: float, queued_seconds: float, method: str
    ) -> None:
        """Count a request in the row at this cell."""
        whole, seconds = self.whole, self.seconds
        at += _TALLY
        took = now - started
        whole[at + _FIRST.get(method, _OTHER) + status // 100 - 1] += 1
        whole[at + _LATENCY + bisect_left(BOUNDS, took)] += 1
        whole[at + _QUEUED + bisect_left(BOUNDS, queued_seconds)] += 1
        seconds[at + _LATENCY_SUM] += took
        seconds[at + _QUEUED_SUM] += queued_seconds

    # Counters that any thread of the worker may write, and so under a lock: 0.1 us.

    def count_static(self) -> None:
        """Count a static file answered from memory."""
        with self._lock:
            self.whole[self.rows[0] + _TALLY + _STATIC] += 1

    def count_handshake(self, *, resumed: bool) -> None:
        """Count a TLS handshake that is complete."""
        first = self.rows[0] + _TALLY
        with self._lock:
            self.whole[first + _HANDSHAKES] += 1
            self.whole[first + _RESUMED] += resumed

    def count_failed_handshake(self, reason: str) -> None:
        """Count a TLS handshake that failed, by a word of HANDSHAKE_FAILURES."""
        with self._lock:
            self.whole[self.rows[0] + _TALLY + _FAILED_HANDSHAKES + HANDSHAKE_FAILURES.index(reason)] += 1

    def count_refused(self) -> None:
        """Count a request that was refused because too many wait."""
        with self._lock:
            self.refused += 1

    def record_error(self, error: errors.RequestError) -> None:
        """Record a request that failed: 6 us, and nothing for one that succeeds."""
        with self._lock:
            errors.write(self.errors, error)

    def sample(self, row: int, cpu: float, wait: float, delay: float) -> None:
        """Add the seconds of a request that ran alone: computing, waiting, runnable without a CPU."""
        at = self.rows[row] + _TALLY
        self.whole[at + _SAMPLES] += 1
        self.seconds[at + _CPU_SUM] += cpu
        self.seconds[at + _WAIT_SUM] += wait
        self.seconds[at + _DELAY_SUM] += delay

    # For readers.

    def running(self) -> list[Request]:
        """Return the requests that run Django now."""
        return [found for row, at in enumerate(self.used_rows) if (found := self._read(at, row)) is not None]

    def running_tasks(self) -> list[Request]:
        """Return the requests on the asyncio loop, as far as they have a row."""
        rows = enumerate(self.task_rows, len(self.rows))
        return [found for row, at in rows if (found := self._read(at, row)) is not None]

    def waiting(self) -> int:
        """Return how many requests have no thread. A request that a free thread is about to run has one.

        While a route is limited, free threads are for the others: what is queued waits for that route.
        """
        most = 0 if self.lane else min(self.threads, self.concurrency_limit)
        return max(0, self.queue - max(0, most - self.count_running()))

    def request(self, row: int) -> Request | None:
        """Return the request of this row; reads again if it changes. The start serves as sequence number."""
        return self._read(self.rows[row], row)

    def _read(self, at: int, row: int) -> Request | None:
        whole, seconds = self.whole, self.seconds
        first = (at + _TEXT) * 8
        while start := seconds[at + _START]:
            text = bytes(self.bytes[first : first + min(whole[at + _LENGTH], _TEXT_BYTES)])
            progress, ident, native_id = seconds[at + _PROGRESS], whole[at + _IDENT], whole[at + _NATIVE_ID]
            if seconds[at + _START] == start:
                method, request_id, path = text.decode("utf-8", "replace").split("\0", 2)
                return Request(row, ident, native_id, start, max(start, progress), method, path, request_id)
        return None

    def count_running(self) -> int:
        """Return how many requests run Django now."""
        return sum(1 for at in self.used_rows if self.seconds[at])

    def thread_seconds(self, now: float) -> float:
        """Return for how long threads have run requests so far, those that still run included."""
        rows = [(self.seconds[at], self.seconds[at + _TALLY + _LATENCY_SUM]) for at in self.used_rows]
        return sum(ended + (max(0.0, now - start) if start else 0.0) for start, ended in rows)

    def last_end(self) -> float:
        """Return when a request of this worker last ended; 0.0 if none has ended."""
        return max((self.seconds[at + _LAST_END] for at in self.used_rows), default=0.0)

    def counters(self) -> Counters:
        """Return the counters of this worker."""
        return counters(*self.sums(), self.refused, self.aborted)

    def sums(self) -> tuple[list[int], list[float]]:
        """Return the sums of the counters over all rows: whole numbers and seconds."""
        starts = [at + _TALLY for at in (*self.used_rows, self.task_rows[0])]
        whole = [self.whole[at : at + WHOLE].tolist() for at in starts]
        seconds = [self.seconds[at + WHOLE : at + TALLY_CELLS].tolist() for at in starts]
        return [*map(sum, zip(*whole, strict=True))], [*map(sum, zip(*seconds, strict=True))]


def counters(whole: Sequence[int], seconds: Sequence[float], refused: int, aborted: int) -> Counters:
    """Return counters from their cells."""
    latency_sum, queued_sum, cpu_sum, wait_sum, delay_sum = seconds
    return Counters(
        answers=tuple(whole[:_LATENCY]),
        latency=tuple(whole[_LATENCY:_QUEUED]),
        latency_sum=latency_sum,
        queued=tuple(whole[_QUEUED:_SAMPLES]),
        queued_sum=queued_sum,
        samples=whole[_SAMPLES],
        static=whole[_STATIC],
        cpu_sum=cpu_sum,
        wait_sum=wait_sum,
        delay_sum=delay_sum,
        refused=refused,
        aborted=aborted,
        websockets=whole[_OPENED],
        messages_received=whole[_MESSAGES_IN],
        messages_sent=whole[_MESSAGES_OUT],
        handshakes=whole[_HANDSHAKES],
        resumed_handshakes=whole[_RESUMED],
        failed_handshakes=tuple(whole[_FAILED_HANDSHAKES:WHOLE]),
    )
