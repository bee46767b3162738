"""The threads of a worker: one waits for events, the others run Django, and each thread can do both.

Lives in a worker. This is the Leader/Followers pattern (POSA2): one thread, the leader, waits for events;
when it begins to run Django, it promotes a follower. The pool has one thread more than may run Django at a
time, so one is always left for the clients. A free thread runs the oldest complete request. Without one, a
thread becomes the leader and the others sleep; the thread that ran last is woken first. scheduler.py sets
``limit``.

The thread that receives an event handles it completely, Django included: a dedicated I/O thread with
hand-over costs 25 to 40 % more CPU. The pool has three ways to promote:

    on dispatch             a thread that begins to run Django wakes a follower
    on stall                no thread is woken, because short requests end before that would help; the main
                            thread checks every 5 to 20 ms, and wakes one if nothing has moved
    poll between requests   while the worker refuses requests that compute: a thread that ends a request polls
                            the sockets before it runs the next, and there is no leader: a refusal then costs
                            no hand-over of the GIL
"""

from __future__ import annotations

import enum
import heapq
import math
import threading
from collections import deque
from typing import Generic, Protocol, TypeVar

Work = TypeVar("Work")
Task = TypeVar("Task", contravariant=True)
Chosen = TypeVar("Chosen", covariant=True)

STALL_CHECK_SECONDS = 0.005
"""Interval of the main thread's stall check while the pool promotes on stall; every check takes the GIL."""
STALL_CHECK_SECONDS_CALM, CALM_CHECKS = 0.02, 20
"""Interval after this many checks in a row without a stall: a check every 5 ms cost the quickest view 3 %.
Also the interval while threads poll between requests, when a long request must not delay the clients."""
BUSY_EVENTS_PER_SECOND = 500
"""Events a second above which a wake-up for each request costs more CPU than it saves."""
MAX_STALLS_PER_SECOND = 25
"""Stalls a second above which requests wait rather than compute: the pool then promotes on dispatch."""
IDLE_PERIODS = 4
"""Periods without work after which a thread ends: a few short ones end it sooner than a long one."""
RETRY_SECONDS = 5
"""Seconds after which a busy pool that promotes on dispatch tries to promote on stall again."""


class Promotion(enum.Enum):
    """When a follower becomes the leader: see the docstring of this module."""

    ON_DISPATCH = enum.auto()
    ON_STALL = enum.auto()
    POLL_BETWEEN_REQUESTS = enum.auto()


ON_DISPATCH, ON_STALL, POLL_BETWEEN_REQUESTS = Promotion


class Chooser(Protocol[Chosen]):
    """Chooses which request a thread runs next, where that is not always the oldest."""

    limited: str
    """The route that is limited; while this is empty, the oldest request is next."""

    def take(self, row: int) -> Chosen | None:
        """Remove the next request for the thread of this row from the queue; None if none may run."""

    def ended(self, row: int) -> None:
        """Note that the thread of this row runs no request."""


class PoolTasks(Protocol[Task]):
    """The work of the threads of a pool."""

    def wait_for_events(self, block: bool) -> None:
        """Wait for events, or fetch those that have arrived; handle them."""

    def serve(self, work: Task, row: int) -> None:
        """Run one complete request in the thread of this row."""

    def report_failure(self) -> None:
        """Log the exception that another of these methods raised."""

    def thread_started(self, row: int) -> None:
        """Prepare the thread of this row; the thread calls this first."""

    def thread_ends(self, row: int) -> None:
        """Release what the thread of this row holds; the thread calls this last."""


class LeaderFollowerPool(Generic[Work]):
    """Threads, and the queue of complete requests that wait for one."""

    def __init__(self, max_threads: int, tasks: PoolTasks[Work], *, ceiling: int = 0) -> None:
        self.max_threads = self.limit = max_threads
        """``max_threads`` may change, up to ``ceiling``; ``limit``: how many threads may run Django now."""
        self.queue: deque[Work] = deque()
        """Complete requests, oldest first."""
        self.chooser: Chooser[Work] | None = None
        """Chooses from the queue; set before the start. None: the oldest request is always next."""
        self.running = 0
        """Threads that run Django."""
        self.promotion = ON_DISPATCH
        self.moved = 0
        """Iterations of the event loop, and requests that ended."""
        self.ended = 0
        """Requests that ended."""
        self._tasks = tasks
        self.lock = threading.Lock()
        """Guards what the threads share."""
        self._has_leader = False  # a thread waits for events, or handles some
        self._idle_threads: list[threading.Lock] = []
        self._fewest_idle = 0  # in the present period of ``end_unused``...
        self._fewest_before: deque[int] = deque(maxlen=IDLE_PERIODS)  # ...and in those before it
        self._ending: set[threading.Lock] = set()
        self._size = 0  # without those that end
        self._rows = [*range(max(ceiling, max_threads) + 1)]  # a heap of those without a thread
        self._seen = 0
        self._promotions = 0
        self._calm = 0  # stall checks in a row that woke no thread
        self._dispatching_for = 0

    def start(self) -> None:
        """Start the first thread; the others come when they are needed."""
        self._size = 1
        self._start_thread(heapq.heappop(self._rows))

    def _thread(self, row: int) -> None:
        """Do the most urgent work, until nobody needs this thread."""
        alarm = threading.Lock()
        alarm.acquire()
        tasks = self._tasks
        tasks.thread_started(row)
        lock, ready, serve, wait_for_events = self.lock, self.queue, tasks.serve, tasks.wait_for_events
        chooser = self.chooser
        waits = runs = woken = False
        while True:
            with lock:
                if runs:
                    self.running -= 1
                    if chooser is not None and chooser.limited:
                        chooser.ended(row)
                if waits:
                    self._has_leader = False
                polls = self.promotion is POLL_BETWEEN_REQUESTS
                looks = runs and polls and not self._has_leader
                runs = waits = False
                work = self._next(row) if ready and self.running < self.limit and not looks else None
                if work is not None:
                    runs = True
                    self.running += 1
                    wakes = self.promotion is ON_DISPATCH and not self._has_leader
                elif not self._has_leader and (looks or woken or not (polls and self.running)):
                    self._has_leader = waits = True
                else:
                    self._idle_threads.append(alarm)
                woken = False
            try:
                if runs:
                    if wakes:
                        self.promote_follower()
                    assert work is not None  # it runs
                    serve(work, row)
                    self.moved += 1
                    self.ended += 1
                elif waits:
                    wait_for_events(not looks)
                    self.moved += 1
                else:
                    woken = alarm.acquire()
                    if self._ending and self._is_ending(alarm):
                        break
            except BaseException:  # a thread that dies would be missing forever
                tasks.report_failure()
        try:
            tasks.thread_ends(row)
        finally:
            with lock:
                heapq.heappush(self._rows, row)
            self.fill()  # whoever looked for a thread meanwhile found no row

    def _next(self, row: int) -> Work | None:
        """Remove the request that is next from the queue; None if another thread was quicker."""
        if self.chooser is not None and self.chooser.limited:
            return self.chooser.take(row)
        try:
            return self.queue.popleft()
        except IndexError:
            return None

    def _is_ending(self, alarm: threading.Lock) -> bool:
        with self.lock:
            is_ending = alarm in self._ending
            self._ending.discard(alarm)
            return is_ending

    def end_unused(self) -> int:
        """End the threads that had no work in the last IDLE_PERIODS; one remains, which waits for events.

        A period ends with each call. Return how many threads ran requests at a time in all these, at most.
        """
        with self.lock:
            periods = self._fewest_before
            periods.append(self._fewest_idle)
            fewest = min(periods) if len(periods) == IDLE_PERIODS else 0
            used = self._size - fewest - 1
            ended = self._idle_threads[: min(fewest, self._size - 1)]
            del self._idle_threads[: len(ended)]
            self._size -= len(ended)
            self._fewest_idle = len(self._idle_threads)
            for number, before in enumerate(periods):
                periods[number] = before - len(ended)
            self._ending.update(ended)
        for alarm in ended:
            alarm.release()
        return used

    def promote_follower(self, *, beside: bool = False) -> None:
        """Wake the thread that ran last, or start one; ``beside`` does so even if there is a leader."""
        with self.lock:
            if self._has_leader and not beside:
                return
            alarm = self._idle_threads.pop() if self._idle_threads else None
            self._fewest_idle = min(self._fewest_idle, len(self._idle_threads))
            row = 0
            if alarm is None:
                if self._size > self.max_threads or not self._rows:
                    return  # all of them run
                self._size += 1
                row = heapq.heappop(self._rows)
        if alarm is not None:
            alarm.release()
        else:
            self._start_thread(row)

    def _start_thread(self, row: int) -> None:
        threading.Thread(target=self._thread, args=(row,), name=f"prodserve-{row}", daemon=True).start()

    def stop(self) -> None:
        """Start no more threads: in a copy of this process only the thread that forked exists."""
        self._idle_threads, self._rows = [], []

    @property
    def tick_in(self) -> float:
        """Seconds until ``promote_if_stalled`` is due; infinite while the pool needs none."""
        if self.promotion is ON_DISPATCH:
            return math.inf
        is_calm = self._calm >= CALM_CHECKS and self.running < self.limit
        polls = self.promotion is POLL_BETWEEN_REQUESTS
        return STALL_CHECK_SECONDS_CALM if is_calm or polls else STALL_CHECK_SECONDS

    def promote_if_stalled(self) -> bool:
        """Wake a thread if nothing has moved; return whether that is frequent. For the main thread."""
        moved = self.moved
        self._calm += 1
        if moved == self._seen and not self._has_leader:
            self._promotions += 1
            self._calm = 0
            self.promote_follower()
        self._seen = moved
        return self._promotions > MAX_STALLS_PER_SECOND

    def fill(self) -> None:
        """Wake threads for the requests that wait, up to the limit."""
        for _ in range(min(self.limit - self.running, len(self.queue))):
            self.promote_follower(beside=True)

    @property
    def occupancy(self) -> int:
        """Return how many threads are busy: all while the pool promotes on stall and one runs Django."""
        all_taken = self.promotion is ON_STALL and self.running
        return self.max_threads if all_taken else self.running + len(self.queue)

    def choose_promotion(self, events: int, *, short: bool) -> None:
        """Choose when to promote, once a second, by the events of that second."""
        self._promotions = 0
        if self.promotion is POLL_BETWEEN_REQUESTS:
            return
        if events < BUSY_EVENTS_PER_SECOND:
            self.promote(ON_DISPATCH)
        elif self.promotion is ON_DISPATCH:
            self._dispatching_for += 1
            if short or self._dispatching_for > RETRY_SECONDS:
                self.promote(ON_STALL)

    def promote(self, promotion: Promotion) -> None:
        """Promote in this way from now on."""
        before, self.promotion, self._dispatching_for = self.promotion, promotion, 0
        if promotion is ON_DISPATCH and before is not ON_DISPATCH:
            self.promote_follower()
