"""The asyncio loop of a worker, in a thread next to the pool: its start, and what blocks it.

Lives in a worker of a project with async views: ``run_soon`` in any thread, ``tick`` in the main thread. The
main thread asks the loop for a sign of life while requests run on it. If none comes, a coroutine computes, or
calls code that waits: every other task waits behind it.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextvars import Context
from typing import Any, Protocol

from ..logs import request_id
from ..scoreboard.events import Event, innermost, write
from ..scoreboard.slot import Slot
from ..utils import fork_guard
from .watchdog import HUNG

CHECK_SECONDS = 0.15
"""Interval of the main thread's checks. A task that is found in two of them in a row blocks the loop."""
CALLS = 12
"""Calls of a task that are shown, the innermost ones."""
REPLACED_AFTER = 20.0
"""Seconds after which the arbiter replaces a worker whose loop is blocked."""


class Tasks(Protocol):
    """The requests that run on the loop."""

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Name the request of this task."""

    def __len__(self) -> int:
        """Return how many run."""


class AsyncioLoop:
    """The asyncio loop of one worker."""

    def __init__(self, slot: Slot, tasks: Tasks, log: Any) -> None:
        self._slot, self._tasks, self._log = slot, tasks, log
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="prodserve-asyncio", daemon=True)
        self._asked = self._answered = 0.0  # when the main thread last asked, and which question was answered
        self._suspect: asyncio.Task[Any] | None = None  # the task that ran at the last check
        self._told = 0.0  # the question whose missing answer has been reported

    def run_soon(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call a function in the loop's thread, in an empty context: the caller's is another request's."""
        self.loop.call_soon_threadsafe(function, *arguments, context=Context())

    def start(self) -> None:
        """Start the loop's thread."""
        self._thread.start()

    def disown(self) -> None:
        """In a copy of this process, stop the loop: its tasks are the worker's."""
        self.loop.stop()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            try:
                self.loop.run_forever()
            except BaseException as error:  # a task of the project has called sys.exit()
                if fork_guard.PROCESS.is_copy:
                    fork_guard.end("A task on the asyncio loop", error, self._log)
                self._log.exception("The asyncio loop continues after an error that no task has handled.")
            if fork_guard.PROCESS.is_copy:
                fork_guard.end("A task on the asyncio loop", None, self._log)

    # In the main thread.

    def tick(self, now: float) -> None:
        """Ask the loop for a sign of life while requests run on it; report it if none has come."""
        if self._answered == self._asked:
            self._suspect = None
            if len(self._tasks):
                self._asked = now
                self.loop.call_soon_threadsafe(self._answer, now)
            return
        late, task = now - self._asked, asyncio.current_task(self.loop)
        if task is not None and task is self._suspect and self._told != self._asked:
            self._told = self._asked
            self._report(late, task)
        self._suspect = task  # many tasks that take their turns delay the answer, too
        if late >= REPLACED_AFTER and not self._slot.replacement_reason:
            self._slot.replacement_reason = HUNG
            self._log.error("The asyncio loop is blocked for %.0f s: the arbiter replaces its worker.", late)

    def _answer(self, asked: float) -> None:
        self._slot.loop_lag = time.monotonic() - asked
        self._answered = asked

    def _report(self, late: float, task: asyncio.Task[Any]) -> None:
        self._slot.loop_blocked += 1
        frame = sys._current_frames().get(self._thread.ident or 0)
        stack = "".join(traceback.format_list(_calls(frame))).rstrip()
        blocker, where = self._tasks.describe(task), f", in {place}" if (place := _place(frame)) else ""
        text = (
            f"{blocker} blocks the asyncio loop for {late:.1f} s{where}: "
            "every other async request of this worker waits"
        )
        self._log.warning(
            "%s.\n  Fix: use an async library, or call the code by asgiref's sync_to_async. Stack:\n%s",
            *(text, stack),
        )
        write(self._slot.events, Event(time.time(), "loop blocked", text, innermost(stack)))


def request_id_of(task: asyncio.Task[Any]) -> str:
    """Return the request id in the context of a task, which a task of a request inherits (Python 3.12)."""
    context: Mapping[Any, Any] = getattr(task, "get_context", dict)()
    return str(context.get(request_id, ""))


def _calls(frame: Any) -> list[traceback.FrameSummary]:
    """Return the calls that lead to a frame, without those of asyncio that are the same for every task."""
    found = traceback.extract_stack(frame) if frame else []
    starts = [number for number, call in enumerate(found) if call.filename == asyncio.events.__file__]
    return [*found][max(starts, default=-1) + 1 :][-CALLS:]


def _place(frame: Any) -> str:
    """Return file, line and function of the innermost frame."""
    if frame is None:
        return ""
    return f"{frame.f_code.co_filename}, line {frame.f_lineno} ({frame.f_code.co_name})"


FRAMES = "cr_frame", "gi_frame", "ag_frame"
AWAITS = "cr_await", "gi_yieldfrom", "ag_await"
"""What coroutines, generators and async generators show of themselves."""
ITERATORS = {"async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper"}
"""Types of CPython between one that awaits and a generator or coroutine; they show nothing of themselves."""


def stack_of(task: asyncio.Task[Any]) -> str:
    """Return the innermost calls of a task that waits, its outermost coroutine first."""
    frames = []
    waits: Any = task.get_coro()
    while waits is not None:
        frame = _first(waits, FRAMES)
        if frame is not None:
            frames.append((frame, frame.f_lineno))
            waits = _first(waits, AWAITS)
        elif type(waits).__name__ in ITERATORS:
            waits = next(filter(_leads_on, gc.get_referents(waits)), None)
        else:
            break
    return "".join(traceback.StackSummary.extract(iter(frames[-CALLS:])).format()).rstrip() or "(it runs)"


def _leads_on(thing: Any) -> bool:
    return type(thing).__name__ in ITERATORS or _first(thing, FRAMES) is not None


def _first(thing: Any, names: tuple[str, ...]) -> Any:
    return next((found for name in names if (found := getattr(thing, name, None)) is not None), None)
