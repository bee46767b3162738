"""Do one thing in a process of its own: what it leaves behind in memory ends with it.

Called in the command's process, main thread, before the server forks workers. The caller closes connections
first (``runtime.hooks.close_connections``) where the child could use one.
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
    """The child ended without a result; the message says how."""


class ChildLateError(ChildError):
    """The child was ended because its time was up, by us or by an alarm of its own."""


def run_in_fork(work: Callable[[], T], *, patience: float | None = None, group: bool = True) -> T:
    """Return what ``work`` returns in a fork of this process, or raise what it raises there.

    ``patience`` bounds it, in seconds: a fork of a process with threads may wait for a lock for ever. With a
    ``group`` of its own, processes that it has started end with it.
    """
    receiving, sending = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on forks beside threads
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
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # until it is waited for, the pid is no other's
        if group:
            with suppress(ProcessLookupError, PermissionError):  # nobody but a zombie on macOS
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
    """In the child: work, send the outcome, end without a trace of the parent's cleaning up."""
    code, own = 1, os.getpid()
    try:
        outcome = _outcome(work)
        if os.getpid() == own:  # what the work forked, and came back, has nothing to say
            with open(sending, "wb") as pipe:
                pipe.write(LENGTH.pack(len(outcome)) + outcome)
            code = 0
    finally:
        os._exit(code)


def _outcome(work: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((work(), None))
    except Exception as error:  # anything may happen in a project
        with suppress(Exception):  # one that cannot travel, or not back
            pickled = pickle.dumps((None, error))
            pickle.loads(pickled)
            return pickled
        return pickle.dumps((None, ChildError(repr(error))))
    except BaseException as error:  # sys.exit() in a module of the project's must not end the parent
        return pickle.dumps((None, ChildError(repr(error))))


def _read(receiving: int, patience: float | None) -> bytes:
    """Return what the child sends; nothing where it ends before. Its own children may keep the pipe open."""
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
