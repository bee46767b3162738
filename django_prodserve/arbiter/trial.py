"""Send the warm-up request in a fork, report the result, and discard the fork with all its effects.

Lives in the command's process, main thread, after the project is loaded and before workers are forked. The
server itself runs no request. It imports the modules that the request imported, so that workers share that
memory.
"""

from __future__ import annotations

import gc
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module

from django.template import engines
from django.utils import translation
from django.utils.translation import trans_real

from ..machine.proc_memory import MemoryReading
from ..middleware.application import Application, WarmUp, warm_up
from ..project.databases import close_connections
from ..project.footprint import Footprint, measure, memory_after
from ..startup import dry_run
from ..startup.dry_run.databases import MAX_LOCK_SECONDS
from ..startup.fork_safety import kinds_of_threads
from ..utils.fork import ChildLateError, run_in_fork
from . import hooks

TRIAL_SECONDS = 30.0
"""Total seconds that the test process may take."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """The result of the test process."""

    warning: str = ""
    """Why pages will fail."""
    note: str = ""
    """Why some code could not be tested."""
    answered: bool = False
    """Whether the request was completed."""
    modules: tuple[str, ...] = ()
    """The modules that the request has imported."""
    languages: tuple[str, ...] = ()
    """The translations that the request has loaded."""
    threads: tuple[str, ...] = ()
    """Kinds of the threads that run in a fork of this process, and after a request."""
    reading: MemoryReading | None = None
    """The memory of the process after a few more requests, if requested."""


def try_out(application: Application | None, path: str) -> Trial:
    """Send one request in a fork, and return the result; without an application only test the fork."""
    close_connections()
    with scratch_directory() as scratch:
        try:
            return run_in_fork(lambda: rehearse(application, path, scratch), patience=TRIAL_SECONDS)
        except Exception as error:  # a process that cannot be started, or has ended
            return Trial(warning=ended(path, error) if application else "")


def rehearse(
    application: Application | None, path: str, scratch: str | None, *, weighs: bool = False
) -> Trial:
    """Do that in this process, which is discarded; one that ``weighs`` measures itself."""
    loaded, before = {*sys.modules}, Counter(kinds_of_threads())
    answer = WarmUp()
    if application is not None:
        try:
            hold_back(scratch)
        except Exception as error:  # the project has changed what the dry run patches: send no request
            return Trial(warning=f"the warm-up request {path} was not sent: {error!r}")
        answer = warm_up(application, path)
    trial = Trial(
        warning=answer.warning,
        note=answer.note,
        answered=application is not None,
        modules=tuple(_importable(loaded)),
        languages=tuple(getattr(trans_real, "_translations", ())),
        threads=tuple((before | Counter(kinds_of_threads())).elements()),
        reading=memory_after(lambda: warm_up(application, path)) if application and weighs else None,
    )
    dry_run.end()
    return trial


def hold_back(scratch: str | None) -> None:
    """Begin a dry run that the kernel ends in time if it hangs."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, TRIAL_SECONDS)
    dry_run.hold_back(scratch)


def weigh(application: Application, path: str) -> Footprint | None:
    """Measure this process, loaded, with forks that send a few requests; return None if that fails."""

    def prepare() -> None:
        hold_back(scratch)
        warm_up(application, path)
        dry_run.settle()
        close_connections()
        gc.freeze()

    close_connections()
    hooks.freeze_heap()
    with scratch_directory() as scratch, suppress(Exception):  # its time is over, or the dry run cannot begin
        return measure(lambda: warm_up(application, path), prepare)
    return None


def load_as(trial: Trial) -> None:
    """Load in this process what the request had loaded, as far as that runs no middleware."""
    for name in trial.modules:
        with suppress(Exception):  # the request may have handled the error, or prepared the import
            import_module(name)
    for language in trial.languages:
        with suppress(Exception), translation.override(language):  # the project's message catalogues
            translation.gettext("")
    with suppress(Exception):  # settings of template engines; the request has reported their errors
        engines.all()


def _importable(loaded: set[str]) -> Iterator[str]:
    """Yield the modules imported since then, by names that import them again."""
    for name, module in [*sys.modules.items()]:
        spec = getattr(module, "__spec__", None)
        if name not in loaded and spec is not None and spec.name == name and spec.origin:
            yield name


def ended(path: str, error: Exception) -> str:
    """Return the message for a request whose process ended."""
    if isinstance(error, ChildLateError):
        return (
            f"the warm-up request {path} was ended: its limit is {TRIAL_SECONDS:g} s, and "
            f"{MAX_LOCK_SECONDS['']:g} s ({MAX_LOCK_SECONDS['sqlite']:g} s with SQLite) after its first "
            "change of a database"
        )
    return f"the warm-up request {path} failed: {error}"


@contextmanager
def scratch_directory() -> Iterator[str | None]:
    """Yield a directory for the block; None if there is none."""
    directory = None
    with suppress(OSError):
        directory = tempfile.mkdtemp(prefix="prodserve-test-")
    try:
        yield directory
    finally:
        if directory is not None:
            shutil.rmtree(directory, ignore_errors=True)
