"""The stacks of all threads of a process, requested from another process by a signal.

faulthandler's handler is C: it answers while a thread holds the GIL or all threads are hung. The arbiter
opens a file for each slot before it forks; a worker registers the handler first after the fork. Another
process sends the signal and reads the file: the arbiter in its tick, ``dump`` in its own process.

A worker with an asyncio loop adds the stacks of tasks: its main thread writes them behind those of threads.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

from .slot import Request

DUMP: int = signal.SIGRTMIN + 1 if hasattr(signal, "SIGRTMIN") else getattr(signal, "SIGINFO", signal.SIGUSR2)
"""A signal that Gunicorn resets in no worker and that other code is unlikely to use."""


FATAL = "Fatal Python error: "
TASKS, TASKS_END = "\nTasks of the asyncio loop:\n", "\n(end of tasks)\n"
"""The lines around the stacks of tasks."""


class Stacks:
    """The file of each slot; without a path, unnamed files that only the server can read."""

    def __init__(self, count: int, path: Path | None) -> None:
        self.files: list[IO[bytes]] = [_open(path and stacks_path(path, index)) for index in range(count)]

    def register(self, index: int) -> None:
        """Handle the signal in this process: write the stacks of all threads to the slot's file.

        Fatal errors such as segmentation faults write their stacks there, too, for the arbiter to log.
        Processes that this one forks write them to standard error, because no arbiter waits for them.
        """
        file = self.files[index]
        file.truncate(0)
        faulthandler.register(DUMP, file=file.fileno(), all_threads=True)
        faulthandler.enable(file.fileno(), all_threads=True)
        os.register_at_fork(after_in_child=_crash_on_standard_error)

    def add_tasks(self, index: int, stacks: Callable[[], str]) -> None:
        """Let the main thread of this process write the stacks of tasks, too. It is the caller."""
        file = self.files[index]

        def add(number: int, frame: object) -> None:
            try:
                text = stacks()
            except Exception as error:  # it would interrupt whatever the main thread does
                text = f"({error!r})"
            with suppress(OSError):
                file.write(f"{TASKS}{text}{TASKS_END}".encode("utf-8", "replace"))

        signal.pthread_sigmask(signal.SIG_BLOCK, [DUMP])  # unhandled, it would end the process
        faulthandler.unregister(DUMP)
        signal.signal(DUMP, add)
        faulthandler.register(DUMP, file=file.fileno(), all_threads=True, chain=True)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [DUMP])

    def request_dump(self, index: int, pid: int) -> None:
        """Make a worker write its stacks; they can be read a moment later."""
        self.files[index].truncate(0)
        with suppress(ProcessLookupError):
            os.kill(pid, DUMP)

    def read(self, index: int) -> str:
        """Return the stacks of threads that a worker has written since the request."""
        return self._text(index).partition(TASKS)[0]

    def _text(self, index: int) -> str:
        size = os.fstat(self.files[index].fileno()).st_size
        return os.pread(self.files[index].fileno(), size, 0).decode("utf-8", "replace")

    def crash(self, index: int) -> str:
        """Return the stacks that a worker wrote at a fatal error, its own thread first; empty if none."""
        text = self._text(index)
        start = text.rfind(FATAL)
        if start < 0:
            return ""
        first, *threads = text[start:].strip().split("\n\n")
        return "\n\n".join([first, *sorted(threads, key=lambda stack: not stack.startswith("Current"))])

    def remove(self, path: Path | None) -> None:
        """Remove the files that have a name."""
        for index in range(len(self.files) if path else 0):
            assert path is not None
            stacks_path(path, index).unlink(missing_ok=True)


def _crash_on_standard_error() -> None:
    with suppress(OSError, ValueError, AttributeError):  # standard error may be closed, or have no file
        faulthandler.enable(sys.stderr.fileno(), all_threads=True)


def stacks_path(board: Path, index: int) -> Path:
    """Return the path for the stacks of this slot's worker, next to the scoreboard."""
    return board.with_name(f"{board.name}-stacks-{index}")


def _open(path: Path | None) -> IO[bytes]:
    """Open for appending: after a truncation the next stacks start at the beginning."""
    if path is not None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    elif hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("prodserve-stacks")
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_APPEND)
    else:
        import tempfile

        return tempfile.TemporaryFile("a+b", buffering=0)
    return os.fdopen(descriptor, "a+b", buffering=0)


def dump_now(
    board: Path, index: int, pid: int, *, tasks: bool = False, patience: float = 2.0
) -> tuple[str, str]:
    """Request the stacks of another process; return those of threads, and of ``tasks`` if it has some.

    Return what arrives within ``patience`` seconds: the main thread, which writes the tasks, may be hung.
    """
    path = stacks_path(board, index)
    os.truncate(path, 0)
    os.kill(pid, DUMP)
    text = before = ""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(0.02)
        text = path.read_text("utf-8", "replace")
        if text.endswith(TASKS_END) if tasks else text and text == before:
            break
        before = text
    threads, _, rest = text.partition(TASKS)
    return threads, rest.partition(TASKS_END)[0]


_THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)


def with_requests(text: str, running: list[Request], now: float) -> str:
    """Add to each thread's stack the request that the thread runs, above the stack."""
    by_ident = {request.ident: request for request in running}

    def label(match: re.Match[str]) -> str:
        request = by_ident.get(int(match[1], 16))
        return f"{describe(request, now)}\n{match[0]}" if request else match[0]

    return _THREAD.sub(label, text).strip()


def stack_of(text: str, ident: int) -> str:
    """Return one thread's stack from those of a process; empty if there is none."""
    starts = [*_THREAD.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    for match, end in zip(starts, ends, strict=False):
        if int(match[1], 16) == ident:
            return text[match.start() : end].strip()
    return ""


def only_busy_threads(text: str, calls: int = 12) -> str:
    """Return the threads of a dump that run a request, each with its innermost calls, which come first.

    Return all threads if none runs a request: then something else blocks the process.
    """
    threads = [block.splitlines() for block in text.split("\n\n")]
    labelled = [thread for thread in threads if thread and not _THREAD.match(thread[0])]
    return "\n\n".join("\n".join(stack[: calls + 2]) for stack in labelled or threads)


def describe(request: Request, now: float) -> str:
    """Return a request and its age on one line."""
    return f"{format_request(request.method, request.path, request.id)} for {now - request.start:.1f} s"


def format_request(method: str, path: str, request_id: str) -> str:
    """Return a request on one line that a client cannot forge with the path that it sends."""
    name = f"{method} {path}".encode("unicode_escape").decode("ascii")
    return f"{name} [{request_id}]" if request_id else name
