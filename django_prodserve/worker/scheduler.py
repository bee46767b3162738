"""Schedule the requests of one worker: which run, which wait, which are refused.

Lives in a worker. It owns the thread pool (thread_pool.py), its size (thread_growth.py), how many of its
threads run (concurrency_limit.py), admission (admission.py) and the rules for accepting (accept_policy.py).
The reactor and the worker process use only the scheduler, not its parts. Pool threads call ``submit``,
``after_events``, ``started`` and ``finished`` for each request; the main thread calls ``tick``.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from . import concurrency_limit
from .accept_policy import AcceptPolicy
from .admission import AdmissionControl, QueueState
from .concurrency_limit import AdaptiveConcurrencyLimit, WorkerUsage
from .connection import Connection
from .lanes import Lanes
from .sampling import UncontendedSamples
from .switch_interval import OVERLOAD, SwitchInterval
from .thread_growth import CHECK_SECONDS, QUIET_SECONDS, ThreadGrowth, Usage
from .thread_pool import BUSY_EVENTS_PER_SECOND, IDLE_PERIODS, LeaderFollowerPool, PoolTasks, Promotion

SHORT_SECONDS = 0.001
"""Wait of a request below which it does not help to wake another thread."""
MEAN_WEIGHT = 0.05
"""Weight of one request in the moving mean."""
MAX_COUNTED_SECONDS = 5.0
"""Maximum time that one request adds to the mean."""
RATE_SECONDS = 5
"""Seconds over which the rate is measured while there is a queue."""
MIN_SERVED, MIN_RATE_SECONDS = 5, 0.25
"""How many requests must have ended, and in how many seconds, before the worker uses the measured rate."""
NO_QUEUE = (math.inf, 0)

NOBODY: Sequence[Connection] = ()


class SchedulerHost(PoolTasks[Connection], Protocol):
    """What the scheduler needs from the reactor."""

    def wake_main_thread(self) -> None:
        """Make the main thread call ``tick`` soon."""

    def unaccepted(self) -> float:
        """Return how many connections wait in the accept queue, as this worker's share of them."""

    def peers_overloaded(self) -> bool:
        """Return whether another worker refuses requests."""

    def threads_changed(self, threads: int) -> None:
        """Follow the number of threads that may run requests."""

    def running_paths(self) -> dict[int, str]:
        """Return the path of each request that runs, by the row of its thread."""

    def route_limited(self, route: str, most: int, threads: int) -> None:
        """Report that a route may have only so many of the threads from now on."""

    def late_requests(self) -> int:
        """Return how many running requests take much longer than their routes usually do."""


class UsageSampler(Protocol):
    """What the scheduler needs from sampling.py."""

    def since(self) -> UncontendedSamples:
        """Return the samples since the last call."""

    def run_delay(self) -> float:
        """Return the seconds that threads of this worker waited for a CPU."""


class LoadDisplay(Protocol):
    """Where a worker publishes its load: a slot of the scoreboard."""

    threads: int
    """How many threads the worker has for requests."""
    max_threads: int
    """How many it may have."""
    growth_hold: int
    """What keeps it from having more: a number of ``Hold``."""
    concurrency_limit: int
    """How many requests the worker runs at a time."""
    lane: int
    """How many threads the limited route may have; 0 if no route is limited."""

    def publish_load(self, busy: int, work: int, queue: int) -> None:
        """Publish the threads that run Django, those that are reserved, and the requests that wait."""


class SchedulerState(NamedTuple):
    """The current state of a scheduler."""

    running: int
    queued: int
    load: int
    """Threads that are reserved."""
    limit: int
    """Threads that may run Django."""
    is_overloaded: bool
    delay: float
    """Seconds that a request which arrives now waits."""
    overload_delay: float
    """The same when overload was last detected; from then on the worker keeps the queue short."""


class Scheduler:
    """Schedules the requests of one worker with ``threads`` threads and a share of ``cpus`` CPUs.

    The threads may become as many as ``ceiling``. ``queue_timeout`` in seconds; 0 never refuses. Without
    ``adaptive`` all threads may run at any time.
    """

    def __init__(
        self,
        threads: int,
        host: SchedulerHost,
        sampler: UsageSampler,
        display: LoadDisplay,
        *,
        ceiling: int = 0,
        lanes: bool = False,
        queue_timeout: float = 0.0,
        cpus: float = 1.0,
        adaptive: bool = True,
        interval: SwitchInterval | None = None,
    ) -> None:
        self.threads = threads
        """How many may run requests now."""
        self.growth = ThreadGrowth(threads, ceiling)
        self.pool: LeaderFollowerPool[Connection] = LeaderFollowerPool(
            threads, host, ceiling=self.growth.ceiling
        )
        self.lanes = self.pool.chooser = Lanes(self.pool.queue) if lanes else None
        self.limiter = AdaptiveConcurrencyLimit(threads, cpus, adaptive=adaptive)
        self.admission = AdmissionControl(queue_timeout)
        self.accept_policy = AcceptPolicy(threads)
        self.events = 0
        """Events of clients in this second."""
        self.mean_seconds = 0.0
        """How long a request takes: a moving mean, in which the last requests count most."""
        self.needs_evaluation = False
        """Whether the main thread must evaluate the limit before the second is over: overload has begun."""
        self._host, self._sampler, self._display, self._show = host, sampler, display, display.publish_load
        self._ready, self._overload = self.pool.queue, self.admission.overload
        self._blocked_seconds = math.inf  # waits of a request that ran alone
        self._refusing = False
        self._overload_delay = 0.0
        self._next_second = 0.0
        self._queued_marks: deque[tuple[float, int]] = deque(maxlen=RATE_SECONDS)
        """Times and ended requests of the last ticks at which there was a queue."""
        self._queued_since = NO_QUEUE
        """The oldest of these marks."""
        self._interval = interval or SwitchInterval()
        self._adapts = self.growth.is_range or self.lanes is not None
        self._checks_growth = False  # whether all threads were busy when last seen
        self._next_end = time.monotonic() + QUIET_SECONDS / IDLE_PERIODS
        display.concurrency_limit = self.limiter.limit
        display.threads, display.max_threads = threads, self.growth.ceiling

    def start(self) -> None:
        """Start the first thread; the others come when they are needed."""
        self.pool.start()

    def disown(self) -> None:
        """Disable it in a copy of this process, which has only the thread that forked and must start none."""
        self.pool.stop()

    def state(self) -> SchedulerState:
        """Return the current state of this scheduler."""
        pool, now = self.pool, time.monotonic()
        counts = pool.running, len(self._ready), pool.occupancy, pool.limit
        delay = self.admission.delay(self._queue(now))
        return SchedulerState(*counts, self._overload.is_on, delay, self._overload_delay)

    @property
    def load(self) -> int:
        """Return how many threads are reserved."""
        return self.pool.occupancy

    @property
    def queued(self) -> int:
        """Return how many complete requests wait for a thread."""
        return len(self._ready)

    @property
    def is_overloaded(self) -> bool:
        """Return whether requests are refused."""
        return self._overload.is_on

    # In the thread that waits for events.

    def submit(self, connection: Connection, now: float) -> Sequence[Connection]:
        """Queue a complete request; return connections of refused requests, perhaps this one."""
        ready, lanes = self._ready, self.lanes
        if lanes is not None and lanes.limited and lanes.admits(connection, now, self.threads):
            ready.append(connection)
            return NOBODY
        if len(ready) < self.threads and not self._overload.is_on:  # the usual case: no noticeable wait
            ready.append(connection)
            return NOBODY
        queue = self._queue(now)
        if not self._refuses(queue, now, connection.waited):
            ready.append(connection)
            return NOBODY
        return [connection, *self._shed(queue)]

    def after_events(self, awaited: int) -> None:
        """Publish the load, and wake the main thread if it must tick often from now on.

        ``awaited``: accepted connections whose first request has not arrived.
        """
        pool = self.pool
        running, queued = pool.running, len(self._ready)
        is_crowded = self.needs_evaluation or self.limiter.is_crowded(running)
        if not self._checks_growth and running + queued > self.threads and self._adapts:
            self._checks_growth = is_crowded = True
        if is_crowded or (self.events >= BUSY_EVENTS_PER_SECOND and self._stop_dispatching()):
            self._host.wake_main_thread()
        self._show(running, pool.occupancy + awaited, queued)

    def _stop_dispatching(self) -> bool:
        """Let the pool promote on stall in a second with many events; return whether that is new."""
        if self.pool.promotion is not Promotion.ON_DISPATCH or not self._is_short():
            return False
        self.pool.promote(Promotion.ON_STALL)
        return True

    def _queue(self, now: float) -> QueueState:
        """Return the queue for a request that arrives now."""
        ready = self._ready
        rate = self._rate(now)
        try:
            oldest = now - ready[0].arrived + ready[0].waited
        except IndexError:  # a thread has removed it meanwhile
            return QueueState(0, 0.0, rate)
        unaccepted = self._host.unaccepted() if self.admission.counts_unaccepted(oldest) else 0.0
        return QueueState(len(ready), oldest, rate, unaccepted)

    def _rate(self, now: float) -> float:
        """Return the requests a second that this worker serves, measured since there is a queue.

        Until enough requests have ended, this uses the limit and the mean time: both change with the load.
        """
        since, ended = self._queued_since  # one read, because the main thread replaces it
        served = self.pool.ended - ended
        if served >= MIN_SERVED and now - since >= MIN_RATE_SECONDS and not self._checks_growth:
            return served / (now - since)
        return self._most() / max(self.mean_seconds, 1e-6)

    def _most(self) -> int:
        """Return how many requests may soon run at a time."""
        limiter, growth = self.limiter, self.growth
        return limiter.steady_limit if limiter.is_limiting or not growth.may_grow else growth.ceiling

    def _refuses(self, queue: QueueState, now: float, waited: float = 0.0) -> bool:
        """Return whether to refuse a request that arrives now, after it has ``waited`` in the kernel."""
        overload, delay = self._overload, max(self.admission.delay(queue), waited)
        was_on = overload.is_on
        others_do = not was_on and delay > overload.timeout and self._host.peers_overloaded()
        refuses = overload.update(delay, queue.total, queue.rate, now, others_do=others_do)
        if refuses and not was_on:
            self._interval.shorten(OVERLOAD)
            self._refusing = self.needs_evaluation = True
            self._overload_delay = delay
        return refuses

    def _shed(self, queue: QueueState) -> list[Connection]:
        """Remove the oldest requests from a queue that is far too long.

        The worker answers the newest first: clients of old requests have most likely given up.
        """
        if self.needs_evaluation:
            return []
        taken = [self.pop_queued() for _ in range(self.admission.excess(queue, self.threads))]
        return [oldest for oldest in reversed(taken) if oldest is not None]  # None: a thread has removed it

    # In the threads that run Django.

    def serve_queued(self) -> None:
        """Wake a thread for a request that another thread than the leader has queued."""
        if self._ready:
            self.pool.promote_follower(beside=True)

    def started(self) -> int:
        """Publish the load as a request starts; return how many run, including this one."""
        pool = self.pool
        running, queued = pool.running, len(self._ready)
        self._show(running, pool.occupancy, queued)
        return running

    def finished(self, seconds: float) -> None:
        """Record a request's duration, and publish the load; one stream does not represent the others."""
        self.mean_seconds += (min(seconds, MAX_COUNTED_SECONDS) - self.mean_seconds) * MEAN_WEIGHT
        running, queued = self.pool.running - 1, len(self._ready)
        self._show(running, running + queued, queued)

    # In the main thread.

    def tick_in(self, now: float) -> float:
        """Return the seconds until the next ``tick`` is due."""
        seconds = self.pool.tick_in
        if seconds == math.inf and self.limiter.needs_stall_checks:
            seconds = concurrency_limit.STALL_CHECK_SECONDS
        if self._checks_growth:
            seconds = min(seconds, CHECK_SECONDS)
        return min(seconds, self._next_second - now)

    def tick(self, now: float) -> None:
        """Let more requests run if the limit allows it, and wake a thread if nothing has moved."""
        if now >= self._next_second:
            self._next_second = now + 1.0
            self._tick_second(now)
        if self._checks_growth:
            self._check_growth(now)
        pool, limiter = self.pool, self.limiter
        is_full = limiter.is_limiting and self._ready and pool.running >= limiter.limit
        if is_full and limiter.raise_if_stalled(self._usage(), self._sampler.run_delay):
            self._apply_limit()
        if pool.promote_if_stalled() and pool.promotion is Promotion.ON_STALL and not self._is_short():
            pool.promote(Promotion.ON_DISPATCH)
        is_expected = limiter.is_probing(pool.running)
        if self.needs_evaluation or (
            is_expected and limiter.needs_recompute(self._usage(self._sampler.run_delay()))
        ):
            self._evaluate(self.events)

    def pop_queued(self) -> Connection | None:
        """Remove the oldest request from the queue; return None if the queue is empty."""
        try:
            return self._ready.popleft()
        except IndexError:
            return None

    def _tick_second(self, now: float) -> None:
        """Evaluate the limit, the promotion and the end of an overload, even if no request arrives."""
        events, self.events, self._refusing = self.events, 0, self._overload.is_on
        self._evaluate(events)
        self.pool.choose_promotion(events, short=self._is_short())
        if self._ready:
            self._queued_marks.append((now, self.pool.ended))
            self._queued_since = self._queued_marks[0]
        else:
            self._queued_marks.clear()
            self._queued_since = NO_QUEUE
        self._refuses(self._queue(now), now)
        if not self._overload.is_on:
            self._interval.restore(OVERLOAD)
        if self._adapts and self.pool.running + len(self._ready) > self.threads:
            self._checks_growth = True
        if self.lanes is not None and self.lanes.limited:
            self._update_lanes(self.lanes, now)
        if now >= self._next_end:
            self._next_end = now + QUIET_SECONDS / IDLE_PERIODS
            self._resize(self.growth.shrink(self.pool.end_unused()))

    def _check_growth(self, now: float) -> None:
        """Grow while all threads are busy by requests that wait; stop the checks when they are not."""
        pool, growth, lanes = self.pool, self.growth, self.lanes
        running, queued = pool.running, len(self._ready)
        if lanes is not None and lanes.limited and queued:
            running = growth.threads  # the limited route waits for its part of them
        self._checks_growth = running + queued > self.threads
        cpu, delay = time.process_time(), self._sampler.run_delay()
        late = self._host.late_requests() if self._checks_growth else 0
        self._resize(growth.check(Usage(now, running, queued, pool.ended, cpu, delay, late)))
        if lanes is not None and self._checks_growth and not growth.may_grow:
            self._update_lanes(lanes, now)

    def _update_lanes(self, lanes: Lanes, now: float) -> None:
        """Limit a route that keeps others waiting, or end the limit."""
        was = lanes.limited
        with self.pool.lock:
            is_new = lanes.update(self.threads, self._host.running_paths(), now)
        self._display.lane = lanes.most if lanes.limited else 0
        if is_new:
            self._host.route_limited(lanes.limited, lanes.most, self.threads)
        elif was and not lanes.limited:
            self.pool.fill()

    def _resize(self, changed: bool) -> None:
        """Apply the number of threads, and show it with what holds it back."""
        display, growth = self._display, self.growth
        display.growth_hold = growth.hold
        if not changed:
            return
        self.threads = display.threads = growth.threads
        self.pool.max_threads = self.accept_policy.threads = growth.threads
        self.limiter.resize(growth.threads)
        self._host.threads_changed(growth.threads)
        self._apply_limit()

    def _evaluate(self, events: int) -> None:
        """Decide how many requests run at a time, by samples of those that ran alone.

        The total time of a request does not show its waits: on a busy machine its thread may get no CPU.
        """
        self.needs_evaluation = False
        samples = self._sampler.since()
        if samples.number:
            self._blocked_seconds = samples.blocked / samples.number
        refusing = self._refusing
        self.limiter.recompute(events, samples, self._usage(self._sampler.run_delay()), refusing=refusing)
        self._poll_between_requests(refusing and self.limiter.is_limiting)
        self._apply_limit()

    def _poll_between_requests(self, polls: bool) -> None:
        """Let threads poll the sockets between requests, or let a leader wait for events."""
        if polls != (self.pool.promotion is Promotion.POLL_BETWEEN_REQUESTS):
            self.pool.promote(Promotion.POLL_BETWEEN_REQUESTS if polls else Promotion.ON_DISPATCH)

    def _apply_limit(self) -> None:
        self.pool.limit = self._display.concurrency_limit = self.limiter.limit
        self.pool.fill()

    def _usage(self, run_delay: float = 0.0) -> WorkerUsage:
        pool = self.pool
        return WorkerUsage(pool.running, pool.ended, time.process_time(), time.monotonic(), run_delay)

    def _is_short(self) -> bool:
        """Return whether requests hardly wait; until one is measured, their total time decides."""
        return min(self.mean_seconds, self._blocked_seconds) < SHORT_SECONDS
