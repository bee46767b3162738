"""Run one function in a separate process: its effects on memory end with that process.

Called in the command's process, main thread, before the server forks workers. The caller closes connections
first (``databases.close_connections``) if the child could use one.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
LENGTH = struct.Struct("!Q")


class ChildError(Exception):
    """The child ended without a result; the message gives the reason."""


class ChildLateError(ChildError):
    """The child was ended because its time was up, by us or by its own alarm."""


def run_in_fork(work: Callable[[], T], *, patience: float | None = None, group: bool = True) -> T:
    """Return the result of ``work`` in a fork of this process, or raise its exception.

    ``patience`` limits it, in seconds: a fork of a process with threads may wait forever for a lock. With
    ``group``, the child has a process group, and processes that it has started end with it.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forks with threads
        child = os.fork()
    if not child:
        os.close(receiving)
        if group:
            os.setpgid(0, 0)
        _work(work, sending)
    os.close(sending)
    ended = False
    try:
        answer = _read(receiving, patience)
        ended = True
    finally:
        os.close(receiving)
        if not ended:  # its time is up, or a signal ends this process
            os.kill(child, signal.SIGKILL)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # until it is reaped, its pid is not reused
        if group:
            with suppress(ProcessLookupError, PermissionError):  # only a zombie on macOS
                os.killpg(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    if not answer:
        code = os.waitstatus_to_exitcode(status)
        kind = ChildLateError if code == -signal.SIGALRM else ChildError
        raise kind(f"the process ended with status {code}")
    result, error = pickle.loads(answer)  # written by our own fork
    if error is not None:
        raise error
    return result  # type: ignore[no-any-return]


def _work(work: Callable[[], Any], sending: int) -> None:
    """In the child: work, send the result, end without running the parent's cleanup."""
    code, own = 1, os.getpid()
    try:
        outcome = _outcome(work)
        if os.getpid() == own:  # a fork that returns from the work sends nothing
            with open(sending, "wb") as pipe:
                pipe.write(LENGTH.pack(len(outcome)) + outcome)
            code = 0
    finally:
        os._exit(code)


def _outcome(work: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except Exception as error:  # a project may raise any exception
        with suppress(Exception):  # one that cannot be pickled, or not unpickled
            pickled = pickle.dumps((None, error))
            pickle.loads(pickled)
            return pickled
        return pickle.dumps((None, ChildError(repr(error))))
    except BaseException as error:  # sys.exit() in a module of the project must not end the parent
        return pickle.dumps((None, ChildError(repr(error))))


def _read(receiving: int, patience: float | None) -> bytes:
    """Return the child's data; empty if it ends before. Its own children may keep the pipe open."""
    deadline = None if patience is None else time.monotonic() + patience
    found = bytearray()
    while len(found) < LENGTH.size or len(found) < LENGTH.size + LENGTH.unpack_from(found)[0]:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not select.select([receiving], [], [], left)[0]:
            raise ChildLateError(f"the process took more than {patience:g} s")
        part = os.read(receiving, 65536)
        if not part:
            return b""
        found += part
    return bytes(found[LENGTH.size :])
