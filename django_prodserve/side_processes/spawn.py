"""Start a process that ends with its minder, and end everything that it leaves behind.

Used by a minder, main thread. Linux has the calls; elsewhere a process whose minder is killed runs on.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from ..machine.families import children

SET_PDEATHSIG, SET_CHILD_SUBREAPER = 1, 36
KILL_ROUNDS = 50


def _prctl() -> Any:
    with suppress(OSError, AttributeError):
        return ctypes.CDLL(None, use_errno=True).prctl
    return None


PRCTL = _prctl()
"""The C function, found before the fork; None if the system has none."""


def adopt_orphans() -> None:
    """Become the parent of what the process leaves behind, also of a daemon that it has made."""
    if PRCTL is not None:
        PRCTL(SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def spawn(words: Sequence[str], environ: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; raise OSError if that fails."""
    minder = os.getpid()

    def end_with_the_minder() -> None:
        if PRCTL is not None:
            PRCTL(SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != minder:
            os._exit(1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a host lock has a thread
        return subprocess.Popen(
            [*words],
            env={**environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
            preexec_fn=end_with_the_minder,
        )


def kill_group(pid: int) -> None:
    """Kill a process and all processes of its group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Return whether a child has ended; it is not reaped, so its number belongs to nobody else."""
    with suppress(ChildProcessError):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None
    return True


def reap(pid: int) -> int:
    """Reap a child that has ended; return its exit code, or the negative number of its signal."""
    with suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 1


def reap_adopted(process: int) -> None:
    """Reap the adopted children that have ended while the process itself runs."""
    for pid in children("self"):
        if pid != process:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def kill_children() -> None:
    """Kill and reap the children of this process that are left: those that were adopted."""
    for _ in range(KILL_ROUNDS):
        for pid in children("self"):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.01)  # the kernel ends them, and may give us the children of one of them
