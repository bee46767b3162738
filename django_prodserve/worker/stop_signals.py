"""Stop a worker when its arbiter asks it to or dies; ignore every other sender.

Lives in the worker, in the main thread, right before its loop; one additional thread waits for the arbiter's
death. Our worker class closes its listeners itself. If ``stop_flags.closing`` is true, the worker first
accepts the connections that wait, then calls ``stop_flags.mark_stopped_accepting``. This module does that for
Gunicorn's own classes.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

from ..scoreboard import stop_flags

_parent_death_pipe: tuple[int, int] | None = None


def install() -> None:
    """Open the pipe whose other end closes when this process, the arbiter, ends. Before the first fork."""
    global _parent_death_pipe
    _parent_death_pipe = os.pipe()
    stop_flags.install()


def lifeline() -> int:
    """Return the descriptor that reaches its end when the arbiter ends; once, in a fork of the arbiter."""
    assert _parent_death_pipe is not None
    read, write = _parent_death_pipe
    os.close(write)
    return read


def install_handlers(worker: Any) -> None:
    """Make a worker stop when its arbiter asks it to or is gone. Plain Gunicorn's handlers stay unchanged."""
    if _parent_death_pipe is None:
        return
    read = lifeline()
    threading.Thread(
        target=_wait_for_the_end, args=(worker, read), name="prodserve-lifeline", daemon=True
    ).start()
    _handle_signals(worker)
    _answer_the_rest(worker)


def _wait_for_the_end(worker: Any, lifeline: int) -> None:
    """Stop as if the arbiter had asked for it when it is gone; do not wait for a request that hangs."""
    os.read(lifeline, 1)
    stop_flags.request_stop(worker.age)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(worker.cfg.graceful_timeout + 1)
    os._exit(0)


def _handle_signals(worker: Any) -> None:
    def stop(number: int, frame: object) -> None:
        if number != signal.SIGTERM and stop_flags.immediate_stop_requested(worker):
            worker.handle_quit(number, frame)
        elif stop_flags.stop_requested(worker):
            worker.handle_exit(number, frame)

    def ignore(number: int, frame: object) -> None:
        """Ignore a closed terminal, or a SIGHUP to every process: the arbiter handles it."""

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, ignore)


def _answer_the_rest(worker: Any) -> None:
    """Accept queued connections before the listeners close permanently: the kernel would reset them."""
    if hasattr(worker, "set_accept_enabled"):
        switch = worker.set_accept_enabled

        def set_accept_enabled(enabled: bool) -> None:
            switch(enabled)
            if not enabled and not worker.alive:
                _accept_all(worker)
                for listener in worker.sockets:
                    listener.close()
                stop_flags.mark_stopped_accepting(worker)

        worker.set_accept_enabled = set_accept_enabled
    elif hasattr(worker, "accept"):
        run = worker.run

        def run_and_answer_the_rest() -> None:
            run()
            stop_flags.mark_stopped_accepting(worker)
            _accept_all(worker)

        worker.run = run_and_answer_the_rest


def _accept_all(worker: Any) -> None:
    deadline = time.monotonic() + worker.cfg.graceful_timeout
    for listener in worker.sockets:
        while stop_flags.closing() and time.monotonic() < deadline:
            if not _accept_one(worker, listener):
                break


def _accept_one(worker: Any, listener: Any) -> bool:
    """Let the worker accept a connection in its own way; return whether there was one."""
    before = getattr(worker, "nr_conns", None)
    try:
        worker.accept(listener)
    except OSError:  # BlockingIOError: no client waits
        return False
    return before is None or bool(worker.nr_conns > before)
