"""The slot of a process alongside the workers: its state, its restarts, its memory.

Lives in memory that processes share (board.py). The minder of the process writes it, but for the cells that
name the arbiter. Readers take no lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import events
from .ring import Ring

if TYPE_CHECKING:
    from .memory import SharedMemory

STARTING, WAITING, RUNNING, PAUSED, STOPPING, ENDED = range(6)
STATES = ("starting", "waiting", "running", "paused", "stopping", "ended")
"""``waiting``: another server runs it. ``paused``: it ended, and is started again after a pause."""

_PID, _MINDER, _STATE, _RESTARTS, _STATUS, _MEMORY, _FAILING, _STARTED, _DEADLINE, _ASKED = range(10)
HEAD = 10
CELLS = HEAD + Ring.cells(events.WORKER_ENTRIES, events.SIZE)


class _Whole:
    """A whole number in the slot."""

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def __get__(self, slot: SideSlot, owner: type[SideSlot]) -> int:
        return slot.memory_of_all.whole[slot.at + self.cell]

    def __set__(self, slot: SideSlot, value: int) -> None:
        slot.memory_of_all.whole[slot.at + self.cell] = value


class _Seconds:
    """A monotonic time in the slot."""

    def __init__(self, cell: int) -> None:
        self.cell = cell

    def __get__(self, slot: SideSlot, owner: type[SideSlot]) -> float:
        return slot.memory_of_all.seconds[slot.at + self.cell]

    def __set__(self, slot: SideSlot, value: float) -> None:
        slot.memory_of_all.seconds[slot.at + self.cell] = value


class SideSlot:
    """A view of one slot, for its writers and for readers."""

    pid = _Whole(_PID)
    """The process, which leads its own process group; 0 while there is none."""
    minder = _Whole(_MINDER)
    """Written by the arbiter: the pid of the minder; 0 while there is none."""
    state = _Whole(_STATE)
    restarts = _Whole(_RESTARTS)
    """How often the process was started again."""
    failing = _Whole(_FAILING)
    """Starts in a row that have failed."""
    memory = _Whole(_MEMORY)
    """Written by the arbiter: bytes of the process and of all that it has started."""
    started = _Seconds(_STARTED)
    deadline = _Seconds(_DEADLINE)
    """Written by the arbiter before it asks for a stop: when the process is killed."""
    asked = _Whole(_ASKED)
    """Written by the arbiter: 1 asks for a restart; the minder clears it."""
    _status = _Whole(_STATUS)

    def __init__(self, memory: SharedMemory, at: int) -> None:
        self.memory_of_all, self.at = memory, at
        self.events = Ring(memory, at=at + HEAD, entries=events.WORKER_ENTRIES, size=events.SIZE)

    @property
    def status(self) -> int | None:
        """Return how the process last ended, as ``os.waitstatus_to_exitcode`` counts; None if it has not."""
        return self._status - 1000 if self._status else None

    @status.setter
    def status(self, value: int) -> None:
        self._status = value + 1000
