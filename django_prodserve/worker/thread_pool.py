"""The threads of a worker: one waits for the clients, the others run Django, all of them can do both.

Lives in a worker. There is one thread more than may run Django at a time, so one is always left for the
clients. Whoever is free runs the oldest complete request; where there is none, one thread waits for
events and the others sleep, and the one that ran last is woken first. concurrency_limit.py says how many run.

Who gets an event does all of its work, up to running Django: a thread for the sockets and a hand-over cost 25
to 40 % more. *Eager*: whoever begins to run Django wakes another to wait for events. *Lazy*: nobody is woken;
short requests are over before it would pay, and the main thread (worker.py) looks every 5 to 20 ms whether
nothing has moved and wakes one. *In turn with the sockets*, where requests compute and more come than can be
served: whoever ends one looks at the sockets, without waiting, before it runs the next, and nobody waits
beside it. Refusals then cost no hand-over of the GIL. ``look`` decides once a second.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

from . import concurrency_limit as turns
from .concurrency_limit import Seen, Turns
from .sampling import Samples

Work = TypeVar("Work")

TICK = 0.005
"""Seconds between two looks at a lazy crew: each takes the GIL from who serves..."""
TICK_CALM, CALM = 0.02, 20
"""...and after so many in a row that found something moving: those every 5 ms were 3 % of the quickest..."""
TICK_IN_TURN = 0.02
"""...and at one that looks at the sockets between requests: after so long somebody does beside them."""
BUSY = 500
"""Events a second from which on waking somebody for each is worth saving."""
SHORT = 0.001
"""Seconds that a request waits while it would not pay to have another thread do something."""
PROMOTIONS = 25
"""Wakings a second by the main thread that show that requests wait rather than compute."""
WEIGHT = 0.05
"""Of one request in the mean."""
LONGEST = 5.0
"""Seconds that one request counts in the mean."""
TRIAL = 5
"""Seconds after which a busy eager crew is tried lazily again."""


class Crew(Generic[Work]):
    """Threads, and the queue of what is complete and waits for one."""

    def __init__(
        self,
        slots: int,
        wait: Callable[[bool], None],
        run: Callable[[Work, int], None],
        failed: Callable[[], None],
        begun: Callable[[int], None],
        samples: Callable[[], Samples],
        delayed: Callable[[], float],
        cpus: float = 1.0,
        *,
        adaptive: bool = True,
    ) -> None:
        self.slots = slots
        self.turns = Turns(slots, cpus, adaptive=adaptive)
        self.ready: deque[Work] = deque()
        """Complete requests, oldest first."""
        self.running = 0
        """Threads that run Django."""
        self.lazy = False
        self.in_turn = False
        """Whether sockets are looked at between requests."""
        self.moved = 0
        """Turns of the event loop and requests that ended..."""
        self.ended = 0
        """...and these alone."""
        self.events = 0
        """Of the clients, since the last look."""
        self._wait, self._run, self._failed, self._begun = wait, run, failed, begun
        self._samples, self._delayed, self._refusing = samples, delayed, False
        self.is_due = False
        """Whether the main thread must judge: much is refused from now on, and it says how that is done."""
        self._lock = threading.Lock()
        self._waiting = False  # somebody waits for events, or handles some
        self._sleepers: list[threading.Lock] = []
        self._size = 0
        self._seen = 0
        self._promotions = 0
        self._calm = 0  # looks in a row that woke nobody
        self._eager_for = 0
        self.mean = 0.0
        """Seconds that a request takes, the last ones counting most."""
        self._waits = math.inf

    def start(self) -> None:
        """Start the first thread; the others come when they are needed."""
        self._wake(None)

    def _thread(self, row: int) -> None:
        """Do what is most urgent, for ever."""
        alarm = threading.Lock()
        alarm.acquire()
        self._begun(row)
        lock, ready, turns = self._lock, self.ready, self.turns
        waits = runs = woken = False
        while True:
            with lock:
                if runs:
                    self.running -= 1
                if waits:
                    self._waiting = False
                looks = runs and self.in_turn and not self._waiting
                runs = waits = False
                if ready and self.running < turns.limit and not looks:
                    work, runs = ready.popleft(), True
                    self.running += 1
                    wakes = not (self._waiting or self.lazy or self.in_turn)
                elif not self._waiting and (looks or woken or not (self.in_turn and self.running)):
                    self._waiting = waits = True
                else:
                    self._sleepers.append(alarm)
                woken = False
            try:
                if runs:
                    if wakes:
                        self.recruit()
                    self._run(work, row)
                    self.moved += 1
                    self.ended += 1
                elif waits:
                    self._wait(not looks)
                    self.moved += 1
                else:
                    woken = alarm.acquire()
            except BaseException:  # a thread that dies would be missed for ever
                self._failed()

    def recruit(self, *, beside: bool = False) -> None:
        """Wake the thread that ran last, or a new one; ``beside`` one that waits for events only if asked."""
        with self._lock:
            if self._waiting and not beside:
                return
            alarm = self._sleepers.pop() if self._sleepers else None
            if alarm is None and self._size > self.slots:
                return  # all of them run
        self._wake(alarm)

    def _wake(self, alarm: threading.Lock | None) -> None:
        if alarm is not None:
            alarm.release()
            return
        row, self._size = self._size, self._size + 1
        threading.Thread(target=self._thread, args=(row,), name=f"prodserve-{row}", daemon=True).start()

    def disband(self) -> None:
        """In a copy of this process: no thread but the one that forked is left, and none is to come."""
        self._sleepers, self._size = [], self.slots + 1

    @property
    def is_crowded(self) -> bool:
        """Say whether the main thread had better ``tick`` soon."""
        return self.is_due or self.turns.is_crowded(self.running)

    @property
    def tick_in(self) -> float:
        """Seconds until the next ``tick`` is due; infinite where nobody needs one."""
        if self.in_turn:
            return TICK_IN_TURN
        if self.lazy and self._calm >= CALM and self.running < self.turns.limit:
            return TICK_CALM
        return TICK if self.lazy else turns.LOOK if self.turns.need_looks else math.inf

    def tick(self) -> None:
        """Let more run where the limit says so; wake a thread where nothing has moved. The main thread's."""
        turns = self.turns
        is_full = turns.are_on and self.ready and self.running >= turns.limit
        if is_full and turns.look(self._now(), self._delayed):
            self._fill()
        moved = self.moved
        self._calm += 1
        if moved == self._seen and not self._waiting:
            self._promotions += 1
            self._calm = 0
            self.recruit()
        self._seen = moved
        if self._promotions > PROMOTIONS and not self._is_short():
            self._become(lazy=False)
        if self.is_due or (turns.expect(self.running) and turns.is_due(self._now(self._delayed()))):
            self._judge(self.events)

    def _now(self, delayed: float = 0.0) -> Seen:
        return Seen(self.running, self.ended, time.process_time(), time.monotonic(), delayed)

    def _fill(self) -> None:
        """Have threads take what waits, as far as they may run."""
        for _ in range(min(self.turns.limit - self.running, len(self.ready))):
            self.recruit(beside=True)

    @property
    def load(self) -> int:
        """Return how many threads are spoken for: all in a lazy crew, whose one thread finishes first."""
        return self.slots if self.lazy and self.running else self.running + len(self.ready)

    def ended_after(self, seconds: float) -> None:
        """Take note of how long a request took; one stream says little about the others."""
        self.mean += (min(seconds, LONGEST) - self.mean) * WEIGHT

    def _is_short(self) -> bool:
        """Say whether requests wait for nothing to speak of; where none was measured, as their time says."""
        return min(self.mean, self._waits) < SHORT

    def look(self, *, refusing: bool) -> None:
        """Judge, once a second, how many run and whether it pays to wake somebody for the clients."""
        events, self.events, self._promotions, self._refusing = self.events, 0, 0, refusing
        self._judge(events)
        if events < BUSY or self.in_turn:
            self._become(lazy=False)
        elif not self.lazy:
            self._eager_for += 1
            if self._is_short() or self._eager_for > TRIAL:
                self._become(lazy=True)

    def _judge(self, events: int) -> None:
        """Judge how many run at a time, by those that ran alone. Their whole time says less of how long they
        wait: on a busy machine most of it may be that they got no CPU.
        """
        self.is_due = False
        samples = self._samples()
        if samples.number:
            self._waits = samples.waited / samples.number
        self.turns.judge(events, samples, self._now(self._delayed()), refusing=self._refusing)
        self._alternate(self._refusing and self.turns.are_on)
        self._fill()

    def begin_to_refuse(self) -> None:
        """Have the sockets looked at in turn with requests as soon as can be, where those compute."""
        self._refusing = self.is_due = True

    def _alternate(self, in_turn: bool) -> None:
        was, self.in_turn = self.in_turn, in_turn
        if was and not in_turn:
            self.recruit()

    def calm_down(self) -> bool:
        """Become lazy in the middle of a second in which much happens; say whether that is new."""
        if self.lazy or self.in_turn or not self._is_short():
            return False
        self._become(lazy=True)
        return True

    def _become(self, *, lazy: bool) -> None:
        if self.lazy and not lazy:
            self.lazy = False
            self.recruit()
        self.lazy, self._eager_for = lazy, 0
