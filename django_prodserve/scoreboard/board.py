"""The scoreboard: memory shared by the arbiter, its workers and other processes such as ``status``.

The arbiter creates the scoreboard before it forks, and gives each worker a slot (slot.py). A worker's data
survives its death, so that the arbiter can read it and add it to the totals. The file is private to its user.
If the arbiter cannot create the file, the memory is anonymous, and only the server itself can read it.

A worker's writes cost 3.3 us of CPU for each request (Python 3.13), under 2 % of the 140 us that the quickest
view takes.
"""

from __future__ import annotations

import json
import mmap
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cached_property, partial
from pathlib import Path
from struct import Struct
from typing import Any

from . import errors, events, history, routes
from .memory import SharedMemory
from .ring import Ring
from .routes import RouteTable, RouteTime
from .side_slot import CELLS as SIDE_CELLS
from .side_slot import SideSlot
from .slot import (
    CLAIMED,
    COLUMNS,
    FREE,
    HEAD,
    REFUSES,
    ROW,
    SERVING,
    TALLY_CELLS,
    TASK_ROWS,
    WHOLE,
    Counters,
    Slot,
    counters,
)

MAGIC = int.from_bytes(b"prodsrv\10", "little")
"""The last byte is the version of this layout."""

REASONS = (
    *("crashed", "killed", "out of memory", "hung", "boot", "memory"),
    *("max-requests", "max-lifetime", "reload", "fewer wanted", "asked"),
)
"""Why workers ended; the arbiter counts each reason."""

# The header's cells of eight bytes come first. The arbiter's note, the totals of workers that are gone, the
# load table and the slots follow. Then come the rings of events, and those of errors: the arbiter's, then one
# for each slot. The ring of samples, the tables of routes (the arbiter's first), the document, and the slots
# of the processes alongside the workers are last.
_MAGIC, _SLOTS, _ROWS, _STARTED, _PID, _NOTE_SEQUENCE, _NOTE_LENGTH = range(7)
_RESTARTS = 7
_MEMORY_LIMIT, _MEMORY_USED, _ACCEPTABLE, _DOCUMENT = range(28, 32)
_NOTE = 32
_NOTE_BYTES = 4096
_SIDES = 21
_RELEASES = 20  # odd while counts move from a slot to the totals
_GONE = _NOTE + _NOTE_BYTES // 8
_GONE_REFUSED, _GONE_CUT = _GONE + TALLY_CELLS, _GONE + TALLY_CELLS + 1
_LOADS = _GONE_CUT + 1


_EVENTS = Ring.cells(events.ENTRIES, events.SIZE)
_WORKER_EVENTS = Ring.cells(events.WORKER_ENTRIES, events.SIZE)
_ERRORS = Ring.cells(errors.ENTRIES, errors.SIZE)
_WORKER_ERRORS = Ring.cells(errors.WORKER_ENTRIES, errors.SIZE)
_HISTORY = Ring.cells(history.ENTRIES, history.SIZE)


def _slot(rows: int) -> int:
    """Return the cells of a slot with rows for this many threads."""
    return HEAD + (rows + TASK_ROWS) * ROW


def _rings(slots: int, rows: int) -> int:
    """Return the cell at which the rings begin."""
    return _LOADS + COLUMNS * slots + slots * _slot(rows)


def _document(slots: int, rows: int) -> int:
    rings = _EVENTS + slots * _WORKER_EVENTS + _ERRORS + slots * _WORKER_ERRORS + _HISTORY
    return _rings(slots, rows) + rings + (1 + slots) * routes.CELLS


def _sides(slots: int, rows: int, document: int) -> int:
    return _document(slots, rows) + (document + 7) // 8


def _cells(slots: int, rows: int, document: int, sides: int) -> int:
    return _sides(slots, rows, document) + sides * SIDE_CELLS


class Scoreboard:
    """The whole scoreboard: created with ``create`` by the arbiter, or opened read-only with ``open``."""

    def __init__(self, shared: mmap.mmap, path: Path | None, slots: int, rows: int) -> None:
        self.path = path
        self.memory = SharedMemory(memoryview(shared))
        self.whole, self.seconds = self.memory.whole, self.memory.seconds
        first, rings = _LOADS + COLUMNS * slots, _rings(slots, rows)
        self.events = Ring(self.memory, at=rings, entries=events.ENTRIES, size=events.SIZE)
        """The arbiter's own events."""
        rings += _EVENTS
        failed = rings + slots * _WORKER_EVENTS
        self.errors = Ring(self.memory, at=failed, entries=errors.ENTRIES, size=errors.SIZE)
        """Failed requests of workers that are gone."""
        failed += _ERRORS
        samples = failed + slots * _WORKER_ERRORS
        self.history = Ring(self.memory, at=samples, entries=history.ENTRIES, size=history.SIZE)
        tables = samples + _HISTORY
        self.routes = RouteTable(self.memory, tables)
        """Requests of workers that are gone, by route."""
        tables += routes.CELLS
        self.slots = tuple(
            Slot(
                self.memory,
                index,
                at=first + index * _slot(rows),
                rows=rows,
                load=_LOADS + index,
                stride=slots,
                events=Ring(
                    self.memory,
                    at=rings + index * _WORKER_EVENTS,
                    entries=events.WORKER_ENTRIES,
                    size=events.SIZE,
                ),
                errors=Ring(
                    self.memory,
                    at=failed + index * _WORKER_ERRORS,
                    entries=errors.WORKER_ENTRIES,
                    size=errors.SIZE,
                ),
                routes=RouteTable(self.memory, tables + index * routes.CELLS),
            )
            for index in range(slots)
        )
        self._load_table = partial(Struct(f"={3 * slots}Q").unpack_from, shared, _LOADS * 8)

    @classmethod
    def create(
        cls,
        path: Path | None,
        *,
        slots: int,
        rows: int,
        now: float,
        document: Mapping[str, Any] | None = None,
        sides: int = 0,
    ) -> Scoreboard:
        """Create an empty scoreboard; raises OSError if the file cannot be created or the disk is full.

        The document holds facts that do not change, such as the plan. ``sides`` is the number of processes
        alongside the workers.
        """
        text = json.dumps(document, separators=(",", ":")).encode() if document else b""
        size = _cells(slots, rows, len(text), sides) * 8
        shared = mmap.mmap(-1, size) if path is None else _make(path, size)
        board = cls(shared, path, slots, rows)
        board.whole[_SLOTS], board.whole[_ROWS], board.whole[_PID] = slots, rows, os.getpid()
        board.seconds[_STARTED] = now
        board.whole[_DOCUMENT], board.whole[_SIDES] = len(text), sides
        first = _document(slots, rows) * 8
        board.memory.bytes[first : first + len(text)] = text
        board.whole[_MAGIC] = MAGIC
        return board

    @classmethod
    def open(cls, path: Path) -> Scoreboard:
        """Open another process's scoreboard; raises OSError, or ValueError for any other file."""
        with path.open("rb") as file:
            shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        size = len(shared) // 8
        head = memoryview(shared)[: min(size, _NOTE) * 8].cast("Q").tolist()
        counts = (_SLOTS, _ROWS, _DOCUMENT, _SIDES)
        if head[:1] != [MAGIC] or size < _NOTE or size < _cells(*(head[cell] for cell in counts)):
            raise ValueError(f"{path} is not a scoreboard of this version of prodserve")
        return cls(shared, path, head[_SLOTS], head[_ROWS])

    def remove(self) -> None:
        """Remove the file; processes that have it open can continue to read it."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    # For the arbiter.

    def claim(self, index: int | None = None) -> Slot:
        """Assign a slot, by default the first free one; raises IndexError if all are in use."""
        if index is None:
            index = next((slot.index for slot in self.slots if slot.state == FREE), len(self.slots))
        slot = self.slots[index]
        slot.clear()
        slot.state = CLAIMED
        return slot

    def release(self, slot: Slot) -> None:
        """Free the slot of a worker that is gone, and keep its counters, events, errors and routes."""
        self.events.copy_from(slot.events)
        self.errors.copy_from(slot.errors)
        self.routes.merge(slot.routes, time.monotonic())
        whole, seconds = slot.sums()
        refused, cut = slot.refused, slot.aborted
        self.whole[_RELEASES] += 1
        slot.clear()
        for cell, value in enumerate(whole, _GONE):
            self.whole[cell] += value
        for cell, number in enumerate(seconds, _GONE + WHOLE):
            self.seconds[cell] += number
        self.whole[_GONE_REFUSED] += refused
        self.whole[_GONE_CUT] += cut
        self.whole[_RELEASES] += 1

    def count_restart(self, reason: str) -> None:
        """Count the end of a worker; the reason is one of REASONS."""
        self.whole[_RESTARTS + REASONS.index(reason)] += 1

    def write_summary(self, facts: Mapping[str, Any]) -> None:
        """Write facts for readers: decisions and advice. The sequence number is odd during the write."""
        text = json.dumps(facts, separators=(",", ":")).encode()
        if len(text) > _NOTE_BYTES:
            raise ValueError(f"the board's note holds {_NOTE_BYTES} bytes, not {len(text)}")
        first = _NOTE * 8
        self.whole[_NOTE_SEQUENCE] += 1
        self.memory.bytes[first : first + len(text)] = text
        self.whole[_NOTE_LENGTH] = len(text)
        self.whole[_NOTE_SEQUENCE] += 1

    def record_event(self, event: events.Event) -> None:
        """Record an event of the arbiter; a worker uses its slot's ring."""
        events.write(self.events, event)

    def take_over(self, before: Scoreboard) -> None:
        """Copy the records of the previous generation: events, errors, samples and routes."""
        for event in before.read_events():
            self.record_event(event)
        for error in before.read_errors():
            errors.write(self.errors, error)
        history.go_on(self.history, after=before.history)
        for table in before.route_tables():
            self.routes.merge(table, time.monotonic())

    def count_memory(self, limit: int, used: int) -> None:
        """Publish the memory limit and the memory in use; 0 if unknown."""
        self.whole[_MEMORY_LIMIT], self.whole[_MEMORY_USED] = limit, used

    def count_waiting(self, connections: int) -> None:
        """Publish how many connections wait in the accept queue."""
        self.whole[_ACCEPTABLE] = connections

    # For readers.

    @property
    def memory_limit(self) -> int:
        return self.whole[_MEMORY_LIMIT]

    @property
    def memory_used(self) -> int:
        return self.whole[_MEMORY_USED]

    @property
    def accept_queue_length(self) -> int:
        """Return how many connections waited in the accept queue at the arbiter's last tick."""
        return self.whole[_ACCEPTABLE]

    @property
    def refused(self) -> int:
        """Return how many requests were refused; for the arbiter, which alone moves counts to the totals."""
        return self.whole[_GONE_REFUSED] + sum(slot.refused for slot in self.active_slots())

    @property
    def static_info(self) -> dict[str, Any]:
        """Return the facts that do not change; empty if there are none."""
        first, length = _document(len(self.slots), self.whole[_ROWS]) * 8, self.whole[_DOCUMENT]
        found: dict[str, Any] = json.loads(bytes(self.memory.bytes[first : first + length]) or b"{}")
        return found

    @cached_property
    def sides(self) -> tuple[SideSlot, ...]:
        """The slots of the processes alongside the workers, in the order of the plan."""
        first = _sides(len(self.slots), self.whole[_ROWS], self.whole[_DOCUMENT])
        numbers = range(self.whole[_SIDES])
        return tuple(SideSlot(self.memory, first + number * SIDE_CELLS) for number in numbers)

    def read_events(self) -> list[events.Event]:
        """Return the events of the arbiter, the workers and the minders, the oldest first."""
        rings = [*(slot.events for slot in self.slots), *(slot.events for slot in self.sides)]
        return events.read([self.events, *rings])

    def read_errors(self) -> list[errors.RequestError]:
        """Return the last failed requests, the oldest first."""
        return errors.read([self.errors, *(slot.errors for slot in self.slots)])

    def route_tables(self) -> list[RouteTable]:
        """Return the tables of routes: that of workers that are gone first."""
        return [self.routes, *(slot.routes for slot in self.active_slots())]

    def read_routes(self, now: float, minutes: int = routes.MINUTES) -> list[RouteTime]:
        """Return what each route took in the last minutes, the one that took the most time first."""
        return routes.total(part for table in self.route_tables() for part in table.read(now, minutes))

    @property
    def pid(self) -> int:
        """Return the arbiter's pid."""
        return self.whole[_PID]

    @property
    def started(self) -> float:
        return self.seconds[_STARTED]

    def active_slots(self) -> list[Slot]:
        """Return the slots that workers use."""
        return [slot for slot in self.slots if slot.state != FREE]

    def summary(self) -> dict[str, Any]:
        """Return the arbiter's facts; empty if it has written none, or died during the write."""
        for attempt in range(150):
            if attempt >= 100:  # the arbiter waits for a CPU, in the middle of a write
                time.sleep(0.001)
            sequence = self.whole[_NOTE_SEQUENCE]
            text = bytes(self.memory.bytes[_NOTE * 8 : _NOTE * 8 + self.whole[_NOTE_LENGTH]])
            if not sequence:
                return {}
            if sequence == self.whole[_NOTE_SEQUENCE] and not sequence % 2:
                with suppress(ValueError):
                    found: dict[str, Any] = json.loads(text)
                    return found
        return {}

    def restarts(self) -> dict[str, int]:
        """Return how many workers ended, by reason, if any did."""
        counts = self.whole[_RESTARTS : _RESTARTS + len(REASONS)].tolist()
        return {reason: count for reason, count in zip(REASONS, counts, strict=True) if count}

    def totals(self) -> Counters:
        """Return the counters of all workers, including those that are gone; they never decrease."""
        for _ in range(100):
            before = self.whole[_RELEASES]
            found = self._totals()
            if before == self.whole[_RELEASES] and not before % 2:
                break
        return found

    def _totals(self) -> Counters:
        whole = self.whole[_GONE : _GONE + WHOLE].tolist()
        seconds: list[float] = self.seconds[_GONE + WHOLE : _GONE + TALLY_CELLS].tolist()  # type: ignore[assignment]  # floats
        refused, cut = self.whole[_GONE_REFUSED], self.whole[_GONE_CUT]
        for slot in self.active_slots():
            more, longer = slot.sums()
            whole = [a + b for a, b in zip(whole, more, strict=True)]
            seconds = [x + y for x, y in zip(seconds, longer, strict=True)]
            refused, cut = refused + slot.refused, cut + slot.aborted
        return counters(whole, seconds, refused, cut)

    def sample(self, wall: float, now: float, tally: Counters) -> history.Sample:
        """Return a sample of the counters, as returned by ``totals``, and of the current use."""
        taken = self.active_slots()
        return history.Sample(
            time=wall,
            clock=now,
            board=round(self.started * 1000),
            refused=tally.refused,
            aborted=tally.aborted,
            busy=sum(slot.count_running() for slot in taken),
            waiting=self.accept_queue_length + sum(slot.waiting() for slot in taken),
            memory=self.memory_used,
            classes=tally.classes,
            latency=tally.latency,
            queued=tally.queued,
        )

    def peers(self, me: Slot) -> list[tuple[int, int]]:
        """Return (connections, load) of every other worker that serves my generation."""
        mine = me.generation + 1
        table = [*self._load_table()]
        table[me.index] = 0
        count = len(self.slots)
        return [
            (connections, load)
            for serves, connections, load in zip(table, table[count:], table[2 * count :], strict=False)
            if serves == mine
        ]

    def others_refuse(self, me: Slot) -> bool:
        """Return whether another worker of my generation refuses requests because too many wait."""
        others = (slot for slot in self.slots if slot.index != me.index and slot.state == SERVING)
        return any(slot.saturated == REFUSES and slot.generation == me.generation for slot in others)


def board_path(place: Path, generation: int) -> Path:
    """Return the path of a generation's scoreboard; during a reload two of them exist."""
    return place / f"board-{generation}"


def last_board(place: Path, generation: int) -> Scoreboard | None:
    """Return the scoreboard of the generation that served before this one; None if none can be read."""
    names = [path.name.removeprefix("board-") for path in place.glob("board-*")]
    numbers = sorted({int(name) for name in names if name.isdecimal()}, reverse=True)
    for number in (other for other in numbers if other < generation):
        with suppress(OSError, ValueError):  # the generation has ended, or its file is truncated
            return Scoreboard.open(board_path(place, number))
    return None


def _make(path: Path, size: int) -> mmap.mmap:
    """Create a private file, and allocate its space: on a full disk a write would kill the writer."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)
        else:
            os.write(descriptor, bytes(size))
        return mmap.mmap(descriptor, size)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)
