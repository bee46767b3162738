"""A signal to stop works from our first instruction on, and ends the start without a traceback.
Standard output and standard error, whatever they are, stop no start from then on.

Called when the package is imported, if the command is ours. PID 1 of a container has no default action for
signals. Without a handler the kernel drops them, and the server would start despite the signal.
"""

from __future__ import annotations

import os
import signal
import sys

from .command_line import is_script

EXIT_CODE = 128  # plus the number of the signal, as in shells
AGAIN_SECONDS = 0.01
PRINTING = {
    *("plan", "check", "export", "tune", "reload", "stop", "status", "dump"),
    *("help", "explain", "completion", "version"),
    *("-h", "--help", "--version"),
}
"""Words on the command line of commands that do not serve."""


def stop(number: int, frame: object) -> None:
    """End a process that does not serve yet."""
    raise Stopped(EXIT_CODE + number)


class Stopped(SystemExit):
    """A signal to stop the start has arrived."""


def raise_again(dropped: sys.UnraisableHookArgs) -> None:
    """Raise the exception of a signal again if Python has dropped it: this is ``sys.unraisablehook``.

    Python drops every exception of a finalizer, and a signal may arrive in one: a migration drops thousands
    of models. Python would drop an exception raised here, too, so a timer raises it in the code that runs
    next.
    """
    error = dropped.exc_value
    if not isinstance(error, (Stopped, KeyboardInterrupt)):
        sys.__unraisablehook__(dropped)
        return

    def raise_it(number: int, frame: object) -> None:
        signal.signal(signal.SIGALRM, before)
        raise error

    before = signal.signal(signal.SIGALRM, raise_it)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)


def watch() -> None:
    """Handle the signals to stop, if this process runs our command."""
    by_name = sys.argv[:1] == ["-m"] and "django_prodserve" in sys.orig_argv
    by_script = is_script(*sys.argv[:1] or [""])
    if os.name != "posix" or not (by_name or by_script or sys.argv[1:2] == ["prodserve"]):
        return
    import threading  # late: the supervisor imports this package, and does not need it

    from . import standard_streams

    if PRINTING & {*sys.argv, *sys.orig_argv}:
        standard_streams.complete()
        standard_streams.encode_anything()
    else:
        standard_streams.shield()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
        sys.unraisablehook = raise_again
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # see reexec.prepared
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, stop)


def hand_over() -> None:
    """Let Ctrl-C be an exception again: the command reports which step it has interrupted."""
    if signal.getsignal(signal.SIGINT) is stop:
        signal.signal(signal.SIGINT, signal.default_int_handler)
