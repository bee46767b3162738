"""Notifications to systemd (``Type=notify``): sd_notify(3) without a library.

Used by the process that systemd watches: the supervisor, or the arbiter if there is none. Standard library
alone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Notifier:
    """Writes to the socket that systemd named; does nothing if systemd named none."""

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self.address = address
        self.watchdog = watchdog
        """Seconds after which systemd kills a silent service; 0 if it does not."""
        self._beaten = 0.0

    def ready(self, status: str) -> None:
        self._send("READY=1", f"STATUS={_line(status)}")

    def reloading(self) -> None:
        # systemd distinguishes this state from an older one by the time (Type=notify-reload).
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        self._send("STOPPING=1", "STATUS=stopping")

    def status(self, status: str) -> None:
        self._send(f"STATUS={_line(status)}")

    def alive(self) -> None:
        """Notify the watchdog that all is well, at most four times in its interval."""
        now = time.monotonic()
        if self.watchdog and now - self._beaten >= self.watchdog / 4:
            self._beaten = now
            self._send("WATCHDOG=1")

    def _send(self, *lines: str) -> None:
        if not self.address:
            return
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.connect(address)
            speaker.sendall("\n".join(lines).encode())


def take(environ: MutableMapping[str, str]) -> Notifier:
    """Return the notifier of this process, and remove systemd's variables from the environment.

    Gunicorn would send READY=1 by itself, before there is any worker; and a child must not notify for us.
    """
    address, usec, pid = (environ.pop(name, "") for name in VARIABLES)
    ours = pid in {"", str(os.getpid())}
    return Notifier(address, int(usec) / 1e6 if usec.isdecimal() and ours else 0.0)


def _line(text: str) -> str:
    return " ".join(text.split())
