"""The lines of a start, and the progress of a step that takes more than a second.

Runs in the command's process, main thread. A timer's signal shows the progress, so that it appears while the
project's imports run. A thread would be lost in a fork, and another process would share the memory that is
measured. The arbiter's loop, which waits for the workers, polls instead: they would inherit the handler. On a
terminal, progress is one line that is overwritten; elsewhere it is an occasional new line.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..utils.log_lines import write_if_read

FIRST_SECONDS, NEXT_SECONDS = 1.0, 5.0
"""Seconds until progress is first shown, and between two lines of it."""
REDRAW_SECONDS = 0.5
"""Seconds between two updates of the line on a terminal."""
CLEAR = "\r\x1b[K"
SAID = "said.json"
"""The file in a server's run directory with the lines that its last generation has printed."""


class Step(NamedTuple):
    """A step of the start."""

    title: Callable[[], str]
    began: float
    """Monotonic."""


class Announcer:
    """Prints lines through ``write``, except those that the generation ``before`` has already printed.

    ``terminal`` is the descriptor of the terminal that people read them on; None if there is none.
    """

    def __init__(
        self,
        write: Callable[[str], object],
        terminal: int | None = None,
        before: frozenset[str] = frozenset(),
    ) -> None:
        self._write, self.terminal, self._before = write, terminal, before
        self.lines: list[str] = []
        """All lines that a first generation would print."""
        self._step: Step | None = None
        self._due = 0.0
        """When a step without a timer is shown next; monotonic."""
        self._is_shown = False
        """Whether the terminal's line shows progress."""

    def __call__(self, line: str) -> None:
        self.lines.append(line)
        if line not in self._before:
            self._clear()
            self._write(line)

    @contextmanager
    def step(self, title: str | Callable[[], str]) -> Iterator[None]:
        """Show the duration of this block if it exceeds a second; a callable title may add its progress."""
        outer = self._step
        self._step = Step(title if callable(title) else lambda: title, time.monotonic())
        is_armed = self._arm()
        try:
            yield
        finally:
            if is_armed:
                self._disarm()
            self._clear()
            self._step = outer

    def poll(self, title: Callable[[], str]) -> None:
        """Show, like ``step``, how long the caller has been waiting in a loop that calls this."""
        now = time.monotonic()
        if self._step is None:
            self._step, self._due = Step(title, now), now + FIRST_SECONDS
        elif now >= self._due:
            self._due = now + self._every
            self._tick()

    def end_poll(self) -> None:
        """End that, as soon as the caller no longer waits."""
        self._clear()
        self._step = None

    @property
    def _every(self) -> float:
        """Seconds between two updates."""
        return NEXT_SECONDS if self.terminal is None else REDRAW_SECONDS

    def _arm(self) -> bool:
        """Start the timer, unless the project uses it."""
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or signal.getsignal(signal.SIGALRM) is not signal.SIG_DFL:
            return False
        signal.signal(signal.SIGALRM, self._tick)
        signal.siginterrupt(signal.SIGALRM, False)
        signal.setitimer(signal.ITIMER_REAL, FIRST_SECONDS, self._every)
        return True

    def _disarm(self) -> None:
        if signal.getsignal(signal.SIGALRM) == self._tick:  # otherwise the project uses it now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _tick(self, number: int = 0, frame: object = None) -> None:
        """Show the progress. The signal may interrupt any code, such as one that is writing a line."""
        step = self._step
        if step is None:
            return
        seconds = f"{time.monotonic() - step.began:.0f} s"
        if self.terminal is None:
            with suppress(RuntimeError):  # the stream is in the middle of another line
                self._write(f"{step.title()} ({seconds})")
            return
        self._is_shown, columns = True, 80
        with suppress(OSError):
            columns = os.get_terminal_size(self.terminal).columns or columns
        self._draw(f"{CLEAR}{f'{step.title()} ... {seconds}'[: columns - 1]}\r")

    def _clear(self) -> None:
        if self._is_shown:
            self._draw(CLEAR)
            self._is_shown = False

    def _draw(self, text: str) -> None:
        assert self.terminal is not None
        write_if_read(self.terminal, text.encode("utf-8", "replace"))

    def keep(self, place: Path | None) -> None:
        """Store the lines for the next generation."""
        with suppress(OSError):
            if place is not None:
                descriptor = os.open(place / SAID, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with open(descriptor, "w") as file:
                    json.dump(self.lines, file)


def announcer(write: Callable[[str], object], *, text: bool, place: Path | None, number: int) -> Announcer:
    """Return the announcer of this generation; later generations print only new lines."""
    before: frozenset[str] = frozenset()
    if number > 1 and place is not None:
        with suppress(OSError, ValueError):
            before = frozenset(json.loads((place / SAID).read_text()))
    return Announcer(write, terminal() if text else None, before)


def terminal() -> int | None:
    """Return the descriptor of the terminal behind standard output; None if there is none."""
    with suppress(OSError):
        if os.isatty(1) and os.environ.get("TERM", "dumb") != "dumb":
            return 1
    return None
