"""``status``: the state of the running server, its verdict first. Runs in a command without a project.

Reads /proc and the scoreboard (scoreboard/board.py) that the server shares. Needs no settings, no Django and
no network, so it takes 0.2 s and works while the settings are broken. Stops and changes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ..errors import ProdserveError
from ..monitoring.server_facts import failed_reload
from ..monitoring.snapshot import full_snapshot, measured
from ..scoreboard.board import Scoreboard, board_path
from ..scoreboard.slot import BOUNDS
from ..scoreboard.stacks import format_request
from ..tls.expiry import read_expiries
from ..utils import terminal
from ..utils.units import counted, format_age, format_size
from . import control
from .dump import dump
from .lines import (
    Line,
    clock,
    loop_words,
    printable,
    process_lines,
    route_lines,
    verdict,
    verdict_lines,
    wrapped,
)

Say = Callable[[str], object]
EVENTS = 5
"""Number of recent events shown."""
LONG_SECONDS = 1.0
"""From this age of a request on, the status shows how to see its stack."""


def run(
    action: str, binds: Sequence[str] | None, say: Say, *, as_json: bool = False, live: bool = False
) -> bool:
    """Show the server of the project that this command belongs to; ``live`` refreshes it each second.

    Return whether the server has a problem.
    """
    if live:
        from .watch import watch

        watch(binds, sys.stdout)
        return False
    server = control.find_here(binds)
    board = open_board(server)
    now = time.monotonic()
    if action == "dump":
        for line in dump(board, now):
            say(line)
        return False
    known = collect(server, board, now)
    if as_json:
        say(json.dumps(known, indent=2))
    else:
        colour, columns = terminal.colours(sys.stdout), terminal.width(sys.stdout)
        for style, line in format_text(known, time.time()):
            for part in wrapped(printable(line), columns):
                say(terminal.styled(part, style, on=colour))
    return bool(known["verdict"] == "bad")


def open_board(server: control.RunningServer) -> Scoreboard:
    """Return the scoreboard of the generation that serves."""
    path = board_path(server.directory, server.generation)
    try:
        return Scoreboard.open(path)
    except FileNotFoundError:
        raise ProdserveError(
            f"The server ({server}) is starting or stopping: it has no scoreboard.",
            "Try again in a moment.",
            code="starting",
        ) from None
    except (OSError, ValueError) as error:
        raise ProdserveError(f"The scoreboard of the server ({server}) cannot be read: {error}") from error


def collect(server: control.RunningServer, board: Scoreboard, now: float) -> dict[str, Any]:
    """Return all known facts of a server, for JSON."""
    snapshot = full_snapshot(board, now, measured)
    return {
        "verdict": verdict(snapshot["findings"]),
        "pid": server.pid,
        "project": server.project,
        "bind": list(server.binds),
        "generation": server.generation,
        "failed_reload": failed_reload(server.record) or None,
        **snapshot,
    }


def format_text(known: dict[str, Any], wall: float) -> Iterator[Line]:
    """Yield the same for people: problems first. ``wall`` is the time in seconds since 1970."""
    yield from verdict_lines(known["findings"])
    who = f"pid {known['pid']} on {', '.join(known['bind'])}"
    yield "", f"{'server':<10}{who}, up {format_age(known['server_uptime'])}"
    loaded = f"loaded {format_age(known['uptime'])} ago"
    yield "", f"{'release':<10}generation {known['generation']}, {loaded}"
    yield "", f"{'requests':<10}{_of_requests(known)}"
    if room := known.get("room"):
        yield "", f"{'room':<10}{room['text']}"
    for number, expiry in enumerate(read_expiries(known.get("certificates"))):
        yield "", f"{'' if number else 'tls':<10}{expiry.name} {expiry.when(wall)}"
    for worker in known["workers"]:
        yield "", f"{'worker':<10}{_of_worker(worker)}"
        if words := loop_words(worker):
            yield "", f"{'':<10}asyncio loop: {words}"
    yield from process_lines(known["processes"])
    if any(worker["oldest"] and worker["oldest"]["age"] >= LONG_SECONDS for worker in known["workers"]):
        yield "", f"{'stacks':<10}prodserve dump shows what these requests do"
    yield from route_lines(known["routes"])
    if known["restarts"]:
        counts = ", ".join(f"{reason} {count}" for reason, count in known["restarts"].items())
        yield "", f"{'restarts':<10}{counts}"
    if known.get("advice"):
        yield "", f"{'advice':<10}{known['advice']}"
    for number, event in enumerate(reversed(known["events"][-EVENTS:])):
        ago = format_age(max(0.0, wall - event["time"]))
        when = f"{'' if number else 'events':<10}{clock(event['time'])}, {ago} ago"
        line = f"{when}, {event['kind']}: {event['text']}"
        yield event.get("level", ""), printable(line)


def _of_requests(known: dict[str, Any]) -> str:
    parts = [f"{known['requests']:,}"]
    parts += [f"{count:,} x {name}" for name, count in known["statuses"].items()]
    parts += [
        f"{known[name]:,} {word}"
        for name, word in (("refused", "rejected"), ("aborted", "aborted"))
        if known[name]
    ]
    if known["requests"]:
        below = known["p99_below"]
        slow = f"99 % below {below * 1000:g} ms" if below else f"1 % above {BOUNDS[-1]:g} s"
        parts += [
            f"mean {known['mean'] * 1000:.1f} ms, {slow}",
            f"queued {known['mean_queued'] * 1000:.1f} ms",
        ]
    return ", ".join(parts)


def _growth(worker: dict[str, Any]) -> str:
    """Return the maximum of a worker's threads and what keeps them from growing, if there are fewer."""
    if worker["max_threads"] == worker["threads"] and not worker["growth_hold"]:
        return ""
    held = f", {worker['growth_held']}" if worker["growth_hold"] else ""
    return f" of {worker['max_threads']}{held}"


def _of_worker(worker: dict[str, Any]) -> str:
    share = f" (now {100 * worker['cpu_share']:.0f} %)" if worker["cpu_share"] else ""
    parts = [
        f"pid {worker['pid']} {worker['state']}",
        f"age {format_age(worker['age'])}",
        f"busy {worker['busy']}/{worker['threads']}{_growth(worker)}",
        *([f"{worker['async']:,} async"] if worker["async"] else []),
        *([counted(worker["websockets"], "websocket")] if worker["websockets"] else []),
        f"limit {worker['concurrency_limit']}",
        *([f"{worker['queue']} wait"] if worker["queue"] else []),
        counted(worker["connections"], "connection"),
        counted(worker["requests"], "request"),
        format_size(worker["memory"]),
        f"CPU {worker['cpu']:.1f} s{share}",
    ]
    if oldest := worker["oldest"]:
        name = format_request(oldest["method"], oldest["path"], oldest["id"])
        parts.append(f"oldest {name} for {oldest['age']:.1f} s")
    return ", ".join(parts)
