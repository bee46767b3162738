"""Which requests wait for a thread, and which are refused at once because too many wait.

Lives in a worker, in the thread that waits for events. Three things tell a standing queue from a burst: a
wait beyond the timeout for a whole window that does not become shorter, and a wait, or so much more coming
than is served, as no burst of four times the capacity for two seconds can build. While overloaded the queue
is kept so short that what is served is served at once, and that normal times are back the moment the load is.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence

from .connection import Connection
from .thread_pool import Crew

WINDOW = 2.0
"""Seconds that a wait must stand."""
LOOK = 0.25
"""Seconds between two looks at whether it becomes shorter."""
AT_ONCE = 6.0
"""A wait of this many timeouts is an overload at once: 4 times the capacity for 2 s builds 3 of them, and
seems to build nearly 6 while to take connections leaves 0.6 of the capacity to requests that compute..."""
RUSH, RUSHES = 2.0, 8.5
"""...and so is one of so many, if so many times as much has come as was served: there it is 7."""
PAUSE, FEW = 0.25, 8
"""Seconds without a queue after which another begins, and requests that must have been served of it."""
LAST = 4.0
"""Seconds, up to twice as many, of which it counts what was served."""
SEEN = 0.25
"""The queue's length counts where its eldest has waited this share of the timeout."""
SWITCH, SWITCH_WHEN_REFUSING = 0.005, 0.001
"""Seconds that a thread may keep the interpreter while another wants it. The first is CPython's default. Each
call to the kernel gives the interpreter up: a refusal would wait for it behind every thread that computes."""
SHARE = 0.1
"""The wait that is left to the queue while overloaded, as a share of the timeout."""


NOBODY: Sequence[Connection] = ()


class Overload:
    """Judge a queue by how long it makes wait. ``timeout`` in seconds; 0 never refuses. Pure."""

    __slots__ = ("_calm", "_grows", "_mark", "_since", "is_on", "target", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout, self.target = timeout, timeout * SHARE
        self.is_on = False
        self._since = math.inf  # since when the wait stands beyond the timeout
        self._mark = (0.0, 0.0)  # when it was last looked at, and what it was then
        self._grows = True
        self._calm = 0.0  # when something was last refused

    def refuses(self, wait: float, now: float, *, others_do: bool = False, comes: float = 0.0) -> bool:
        """Say whether a request is refused that arrives now and would wait this long.

        ``others_do``: other workers refuse already. Who waits beyond the timeout here waits in no burst.
        ``comes``: how many times as much has come as was served, since there is a queue.
        """
        if self.is_on:
            return self._goes_on(wait, now)
        if wait <= self.timeout or not self.timeout:
            self._since = math.inf
            return False
        if self._since == math.inf:
            self._since, self._mark, self._grows = now, (now, wait), True
        elif now - self._mark[0] >= LOOK:
            self._grows = wait >= self._mark[1]
            self._mark = now, wait
        stands = now - self._since >= WINDOW
        most = RUSH if comes > RUSHES else AT_ONCE
        self.is_on = others_do or wait > most * self.timeout or (stands and self._grows)
        self._calm = now
        return self.is_on

    def _goes_on(self, wait: float, now: float) -> bool:
        if wait > self.target:
            self._calm = now
        elif now - self._calm > WINDOW:
            self.is_on, self._since = False, math.inf
        return wait > self.target


class Gate:
    """The way into the crew's queue."""

    def __init__(
        self,
        timeout: float,
        crew: Crew[Connection],
        others_refuse: Callable[[], bool],
        unaccepted: Callable[[], float],
    ) -> None:
        self.overload = Overload(timeout)
        self._crew, self._others_refuse, self._unaccepted = crew, others_refuse, unaccepted
        self._queued = -math.inf  # when there was a queue last
        self._since = self._later = 0.0, 0  # when there began to be one, or it was long enough, and had ended
        self._length = 0.0
        self._may_switch = math.isclose(
            sys.getswitchinterval(), SWITCH
        )  # else the project has chosen its own

    def enter(self, connection: Connection, now: float) -> Sequence[Connection]:
        """Queue a complete request; return those that are refused for it, itself perhaps."""
        ready = self._crew.ready
        if len(ready) < self._crew.slots and not self.overload.is_on:  # the usual case: no wait to speak of
            ready.append(connection)
            return NOBODY
        self._note(now)
        if not self._refuses(max(self.wait(now), connection.waited), now):
            ready.append(connection)
            return NOBODY
        return [connection, *self._too_many()]

    def _refuses(self, wait: float, now: float) -> bool:
        overload, was_on = self.overload, self.overload.is_on
        others_do = wait > overload.timeout and not was_on and self._others_refuse()
        refuses = overload.refuses(wait, now, others_do=others_do, comes=self._comes())
        if refuses and not was_on:
            self._switch_after(SWITCH_WHEN_REFUSING)
            self._crew.begin_to_refuse()
        return refuses

    def look(self, now: float) -> None:
        """Once a second: without requests nobody else notices that an overload is over."""
        self._note(now)
        if not self._refuses(self.wait(now), now) and sys.getswitchinterval() < SWITCH:
            self._switch_after(SWITCH)

    def _switch_after(self, seconds: float) -> None:
        """Set how long a thread may keep the interpreter, unless the project has set it before the start."""
        if self._may_switch:
            sys.setswitchinterval(seconds)

    def wait(self, now: float) -> float:
        """Return how long a request waits that arrives now: as its elders do, or as their number says."""
        ready = self._crew.ready
        try:
            oldest = now - ready[0].arrived + ready[0].waited
        except IndexError:  # a thread has taken it meanwhile
            return 0.0
        if self.overload.is_on:
            return max(oldest, len(ready) / self._usual)
        if oldest < SEEN * self.overload.timeout:
            return oldest  # the mean may be that of other views
        # Most of them wait in the kernel: who accepts must wait for the GIL, too.
        self._length = len(ready) + self._unaccepted()
        ended, passed = self._ended, now - self._since[0]
        return max(oldest, self._length / (ended / passed if ended >= FEW and passed > 0 else self._usual))

    @property
    def _usual(self) -> float:
        """Requests a second, as the mean of all says."""
        return self._crew.turns.usual / max(self._crew.mean, 1e-6)

    @property
    def _ended(self) -> int:
        """Requests that have ended, of this queue."""
        return self._crew.ended - self._since[1]

    def _note(self, now: float) -> None:
        """Take note that there is a queue, or soon may be."""
        if now - self._queued > PAUSE:
            self._since = self._later = now, self._crew.ended
            self._length = 0.0
        elif now - self._later[0] > LAST:
            self._since, self._later = self._later, (now, self._crew.ended)
        self._queued = now

    def _comes(self) -> float:
        """Return how many times as much has come as was served, since there is a queue."""
        ended = self._ended
        return (self._length + ended) / ended if ended >= FEW else 0.0

    def _too_many(self) -> list[Connection]:
        """Take the eldest out of a queue that is far too long: their clients have waited longest already, and
        so they are told last.
        """
        ready, crew = self._crew.ready, self._crew
        fits = int(self.overload.target * self._usual)
        taken: list[Connection] = []
        if len(ready) <= 2 * fits + crew.slots or crew.is_due:
            return taken
        while len(ready) > fits:
            try:
                taken.append(ready.popleft())
            except IndexError:  # threads have taken them meanwhile
                break
        taken.reverse()
        return taken
