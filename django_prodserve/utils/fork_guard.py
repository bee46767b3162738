"""Copies of a server process, forked by the project's code, that return into our code: they end there.

A view, a hook or a module of the project forks, and the child leaves it by an exception, by ``sys.exit()`` or
by a return. Our code would then continue in the child, as a second worker or a second arbiter.

Runs in every process that runs the project's code: the command, the test process, the arbiter and the
workers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from types import FrameType
from typing import Any, NoReturn

HINT = "A process that a project forks must end with os._exit(), or be one of multiprocessing's."

TASK = "A task in a thread of the worker"
TASKS = {"run", "main_wrap", "run_call"}
"""Functions of concurrent.futures, asgiref's thread for synchronous code, its event loop, and leases."""


class _Process:
    """This process: whether it is a copy of a worker. The flag costs a request 20 ns, os.getpid() 1 us."""

    is_copy = False


PROCESS = _Process()


def mark(disown: Callable[[], None], log: Any) -> None:
    """Mark every later fork of this process as a copy, and release there all that is the worker's alone."""

    def forked() -> None:
        PROCESS.is_copy = True
        with contextlib.suppress(Exception):
            _forget_handlers()
            disown()
            _end_instead_of_waiting(log)

    os.register_at_fork(after_in_child=forked)


def _forget_handlers() -> None:
    """Restore default signal actions: with our handlers and Gunicorn's, a copy would act as the worker."""
    signal.set_wakeup_fd(-1)
    for number in {*signal.valid_signals()} - {signal.SIGKILL, signal.SIGSTOP}:
        handler = signal.getsignal(number)
        module = getattr(handler, "__module__", None) or ""
        if callable(handler) and module.partition(".")[0] in ("django_prodserve", "gunicorn"):
            signal.signal(number, signal.SIG_DFL)


def _end_instead_of_waiting(log: Any) -> None:
    """End the copy when a task of a thread pool ends: its thread would wait forever for another task.

    This happens in async views, whose code runs in threads of asgiref and asyncio. Those store the result of
    a task in its future. Only the futures of the tasks that run in this copy are changed.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name in TASKS:
            found = frame.f_locals
            holder = found.get("call") or found.get("self")
            future = found.get("call_result") or getattr(holder, "future", None)
            if isinstance(future, Future):
                future.set_result = lambda result: end(TASK, None, log)  # type: ignore[method-assign]
                future.set_exception = lambda error: end(TASK, error, log)  # type: ignore[method-assign, assignment]
        frame = frame.f_back


@contextlib.contextmanager
def ended(what: str, log: Any = None) -> Iterator[None]:
    """End a fork that leaves the block although it did not enter it."""
    pid = os.getpid()
    try:
        yield
    except BaseException as error:
        if os.getpid() != pid:
            end(what, error, log)
        raise
    if os.getpid() != pid:
        end(what, None, log)


def end(what: str, error: BaseException | None, log: Any = None) -> NoReturn:
    """Log how this copy returned, and end it without cleanup, because its resources belong to its parent.

    Its exit code is that of ``sys.exit``, else 1.
    """
    code = 1
    try:
        if isinstance(error, SystemExit):
            way, known = f"by sys.exit({'' if error.code is None else repr(error.code)})", None
            code = error.code & 255 if isinstance(error.code, int) else int(error.code is not None)
        elif error is None:
            way, known = "by a return, or after an exception that Django answered", None
        else:
            way, known = f"by {type(error).__name__}", error
        text = f"{what} forked a process that came back, {way}: it ends with exit code {code}. {HINT}"
        _tell(text, known, log)
    finally:
        os._exit(code)


def _tell(text: str, error: BaseException | None, log: Any) -> None:
    if log is not None:
        log.error("%s", text, exc_info=error)
        return
    stack = "".join(traceback.format_exception(error)) if error else ""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    line = f"{stack}{text}\n".encode(encoding, "backslashreplace")
    os.write(2, line)  # the buffer of sys.stderr holds the parent's data
