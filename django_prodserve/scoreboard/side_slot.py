"""The slot of a process alongside the workers: its state, its restarts, its memory.

Lives in memory that processes share (board.py). The minder of the process writes it, but for the cells that
name the arbiter. Readers take no lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import events
from .cells import Seconds, Whole
from .ring import Ring

if TYPE_CHECKING:
    from .memory import SharedMemory

STARTING, WAITING, RUNNING, PAUSED, STOPPING, ENDED = range(6)
STATES = ("starting", "waiting", "running", "paused", "stopping", "ended")
"""``waiting``: another server runs it. ``paused``: it ended, and is started again after a pause."""

_PID, _MINDER, _STATE, _RESTARTS, _STATUS, _MEMORY, _FAILING, _STARTED, _DEADLINE, _ASKED = range(10)
HEAD = 10
CELLS = HEAD + Ring.cells(events.WORKER_ENTRIES, events.SIZE)


class SideSlot:
    """A view of one slot, for its writers and for readers."""

    pid = Whole(_PID)
    """The process, which leads its own process group; 0 while there is none."""
    minder = Whole(_MINDER)
    """Written by the arbiter: the pid of the minder; 0 while there is none."""
    state = Whole(_STATE)
    restarts = Whole(_RESTARTS)
    """How often the process was started again."""
    failing = Whole(_FAILING)
    """Starts in a row that have failed."""
    memory = Whole(_MEMORY)
    """Written by the arbiter: bytes of the process and of all that it has started."""
    started = Seconds(_STARTED)
    deadline = Seconds(_DEADLINE)
    """Written by the arbiter before it asks for a stop: when the process is killed."""
    asked = Whole(_ASKED)
    """Written by the arbiter: 1 asks for a restart; the minder clears it."""
    _status = Whole(_STATUS)

    def __init__(self, memory: SharedMemory, at: int) -> None:
        self.whole, self.seconds, self.at = memory.whole, memory.seconds, at
        self.events = Ring(memory, at=at + HEAD, entries=events.WORKER_ENTRIES, size=events.SIZE)

    @property
    def status(self) -> int | None:
        """Return how the process last ended, as ``os.waitstatus_to_exitcode`` counts; None if it has not."""
        return self._status - 1000 if self._status else None

    @status.setter
    def status(self, value: int) -> None:
        self._status = value + 1000
