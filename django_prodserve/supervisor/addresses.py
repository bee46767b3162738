"""Bind the addresses of a plan, or take over the sockets of a supervisor.

Runs in the command's process, before the application is loaded.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from ..errors import ProdserveError
from ..plan.plan import Plan
from ..startup import listeners
from ..utils.notice import note
from . import launch
from .link import Supervised

Say = Callable[[str], object]


def try_out(plan: Plan, say: Say) -> None:
    """Bind the addresses as a test, except those that the running server of this project holds."""
    held: set[str] = set()
    for record in launch.servers_here(plan.settings.value):
        known = {*record.get("binds", ()), *record.get("addresses", ())}
        known |= {record.get("management", ""), record.get("redirect", "")}
        if ours := known & set(plan.addresses):
            where = ", ".join(address for address in plan.addresses if address in ours)
            text = f"This project's server (pid {record['pid']}) serves {where}; prodserve reload updates it"
            say(note(text, event="check", running=record["pid"]))
        held |= ours
    further = (plan.management_bind.value, plan.redirect_http.value)
    free = [address for address in plan.bind.value if address not in held]
    listeners.try_bind(free, plan.umask.value, *(None if other in held else other for other in further))


def bind_in_time(plan: Plan, say: Say) -> list[socket.socket]:
    """Bind; if a server of this project was just killed, wait until its last requests are answered."""
    deadline = 0.0
    while True:
        try:
            return _bind(plan)
        except ProdserveError:
            if not deadline:
                seconds = launch.predecessor_drain_seconds(plan)
                deadline = time.monotonic() + seconds
                if seconds:
                    say(f"waiting for the addresses of a server that was killed, up to {seconds:g} s")
            if time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


def take_inherited(plan: Plan, kept: Supervised) -> list[socket.socket]:
    """Return the sockets that a supervisor holds for this plan."""
    return kept.take(plan.addresses)


def _bind(plan: Plan) -> list[socket.socket]:
    further = (plan.management_bind.value, plan.redirect_http.value)
    return listeners.bind(plan.bind.value, plan.umask.value, *further)
