"""The threads of a worker: one waits for events, the others run Django, and each of them can do both.

Lives in a worker. There is one thread more than may run Django at a time, so one is always left for the
clients. A free thread runs the oldest complete request; if there is none, one thread waits for events and the
others sleep, and the thread that ran last is woken first. ``limit`` says how many run; scheduler.py sets it.

The thread that receives an event does all of its work, up to running Django: an I/O thread with a hand-over
costs 25 to 40 % more CPU. *Eager*: a thread that begins to run Django wakes another to wait for events.
*Lazy*: no thread is woken; short requests are over before it would pay, and the main thread looks every 5 to
20 ms whether nothing has moved and wakes one. *In turn with the sockets*, while the worker refuses requests
that compute: a thread that ends one looks at the sockets, without waiting, before it runs the next, and no
thread waits for events alongside. Refusals then cost no hand-over of the GIL.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from typing import Generic, Protocol, TypeVar

Work = TypeVar("Work")
Task = TypeVar("Task", contravariant=True)

TICK = 0.005
"""Seconds between two looks at a lazy crew: each takes the GIL from who serves..."""
TICK_CALM, CALM = 0.02, 20
"""...and after so many in a row that found something moving: those every 5 ms were 3 % of the quickest..."""
TICK_IN_TURN = 0.02
"""...and at one that looks at the sockets between requests: after so long somebody does beside them."""
BUSY = 500
"""Events a second from which on waking another thread for each is worth saving."""
PROMOTIONS = 25
"""Wakings a second by the main thread that show that requests wait rather than compute."""
TRIAL = 5
"""Seconds after which a busy eager pool is tried lazily again."""


class PoolTasks(Protocol[Task]):
    """What the threads of a pool do."""

    def wait_for_events(self, block: bool) -> None:
        """Wait for events, or take those that are here; handle them."""

    def serve(self, work: Task, row: int) -> None:
        """Run one complete request in the thread of this row."""

    def report_failure(self) -> None:
        """Log the exception that left one of the other methods."""

    def thread_started(self, row: int) -> None:
        """Prepare the thread of this row; it calls this first."""


class LeaderFollowerPool(Generic[Work]):
    """Threads, and the queue of what is complete and waits for one."""

    def __init__(self, slots: int, tasks: PoolTasks[Work]) -> None:
        self.max_threads = self.limit = slots
        """``limit``: how many threads may run Django now."""
        self.queue: deque[Work] = deque()
        """Complete requests, oldest first."""
        self.running = 0
        """Threads that run Django."""
        self.promotes_on_stall = False
        self.polls_between_requests = False
        """Whether sockets are looked at between requests."""
        self.moved = 0
        """Turns of the event loop and requests that ended..."""
        self.ended = 0
        """...and these alone."""
        self._tasks = tasks
        self._lock = threading.Lock()
        self._has_leader = False  # a thread waits for events, or handles some
        self._idle_threads: list[threading.Lock] = []
        self._size = 0
        self._seen = 0
        self._promotions = 0
        self._calm = 0  # looks in a row that woke nobody
        self._dispatching_for = 0

    def start(self) -> None:
        """Start the first thread; the others come when they are needed."""
        self._wake(None)

    def _thread(self, row: int) -> None:
        """Do what is most urgent, for ever."""
        alarm = threading.Lock()
        alarm.acquire()
        tasks = self._tasks
        tasks.thread_started(row)
        lock, ready, serve, wait_for_events = self._lock, self.queue, tasks.serve, tasks.wait_for_events
        waits = runs = woken = False
        while True:
            with lock:
                if runs:
                    self.running -= 1
                if waits:
                    self._has_leader = False
                looks = runs and self.polls_between_requests and not self._has_leader
                runs = waits = False
                if ready and self.running < self.limit and not looks:
                    work, runs = ready.popleft(), True
                    self.running += 1
                    wakes = not (self._has_leader or self.promotes_on_stall or self.polls_between_requests)
                elif not self._has_leader and (
                    looks or woken or not (self.polls_between_requests and self.running)
                ):
                    self._has_leader = waits = True
                else:
                    self._idle_threads.append(alarm)
                woken = False
            try:
                if runs:
                    if wakes:
                        self.promote_follower()
                    serve(work, row)
                    self.moved += 1
                    self.ended += 1
                elif waits:
                    wait_for_events(not looks)
                    self.moved += 1
                else:
                    woken = alarm.acquire()
            except BaseException:  # a thread that dies would be missed for ever
                tasks.report_failure()

    def promote_follower(self, *, beside: bool = False) -> None:
        """Wake the thread that ran last, or a new one; ``beside`` one that waits for events only if asked."""
        with self._lock:
            if self._has_leader and not beside:
                return
            alarm = self._idle_threads.pop() if self._idle_threads else None
            if alarm is None and self._size > self.max_threads:
                return  # all of them run
        self._wake(alarm)

    def _wake(self, alarm: threading.Lock | None) -> None:
        if alarm is not None:
            alarm.release()
            return
        row, self._size = self._size, self._size + 1
        threading.Thread(target=self._thread, args=(row,), name=f"prodserve-{row}", daemon=True).start()

    def stop(self) -> None:
        """In a copy of this process: no thread but the one that forked is left, and none is to come."""
        self._idle_threads, self._size = [], self.max_threads + 1

    @property
    def tick_in(self) -> float:
        """Seconds until ``promote_if_stalled`` is due; infinite while the pool needs none."""
        if self.polls_between_requests:
            return TICK_IN_TURN
        if self.promotes_on_stall and self._calm >= CALM and self.running < self.limit:
            return TICK_CALM
        return TICK if self.promotes_on_stall else math.inf

    def promote_if_stalled(self) -> bool:
        """Wake a thread if nothing has moved; say whether that happens often. The main thread's."""
        moved = self.moved
        self._calm += 1
        if moved == self._seen and not self._has_leader:
            self._promotions += 1
            self._calm = 0
            self.promote_follower()
        self._seen = moved
        return self._promotions > PROMOTIONS

    def fill(self) -> None:
        """Have threads take what waits, as far as they may run."""
        for _ in range(min(self.limit - self.running, len(self.queue))):
            self.promote_follower(beside=True)

    @property
    def occupancy(self) -> int:
        """Return how many threads are spoken for: all in a lazy crew, whose one thread finishes first."""
        return self.max_threads if self.promotes_on_stall and self.running else self.running + len(self.queue)

    def choose_mode(self, events: int, *, short: bool) -> None:
        """Choose lazy or eager, once a second, by the events of that second and how long requests wait."""
        self._promotions = 0
        if events < BUSY or self.polls_between_requests:
            self.become(lazy=False)
        elif not self.promotes_on_stall:
            self._dispatching_for += 1
            if short or self._dispatching_for > TRIAL:
                self.become(lazy=True)

    def alternate(self, in_turn: bool) -> None:
        """Have the sockets looked at in turn with requests, or by a thread of their own."""
        was, self.polls_between_requests = self.polls_between_requests, in_turn
        if was and not in_turn:
            self.promote_follower()

    def become(self, *, lazy: bool) -> None:
        """Become lazy or eager."""
        if self.promotes_on_stall and not lazy:
            self.promotes_on_stall = False
            self.promote_follower()
        self.promotes_on_stall, self._dispatching_for = lazy, 0
