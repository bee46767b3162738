"""What the running server does: ``status`` and ``dump``. Lives in a command of its own, not in the server.

Reads the scoreboard (scoreboard/board.py) that the server shares, and /proc. Needs no settings, no Django and
no network, so it takes 0.2 s and works while settings are broken. Stops nothing and changes nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from ..errors import ProdserveError, UsageError
from ..monitoring.snapshot import full_snapshot, measured
from ..scoreboard.board import Scoreboard, board_path
from ..scoreboard.slot import BOUNDS, STATES
from ..scoreboard.stacks import dump_now, format_request, stacks_path, with_requests
from ..utils.units import format_age, format_size
from . import control

Say = Callable[[str], object]


def run(
    action: str, binds: Sequence[str] | None, say: Say, *, as_json: bool = False, live: bool = False
) -> None:
    """Tell of the server of the project that this command belongs to; ``live`` anew each second."""
    if live:
        refuse_live(action, as_json=as_json)
        from .watch import watch

        watch(binds, sys.stdout)
        return
    server = control.find_here(binds)
    board = open_board(server)
    now = time.monotonic()
    if action == "dump":
        for line in dump(board, now):
            say(line)
    elif as_json:
        say(json.dumps(collect(server, board, now), indent=2))
    else:
        for line in format_text(collect(server, board, now)):
            say(line)


def refuse_live(action: str, *, as_json: bool = False) -> None:
    """Raise ProdserveError where --watch has no meaning."""
    if action != "status":
        raise UsageError(f"--watch works with status, not with {action}.", "prodserve status --watch")
    if as_json:
        raise UsageError("--watch is for people and --json for scripts.", "Use one of them.")


def open_board(server: control.RunningServer) -> Scoreboard:
    """Return the board of the generation that serves."""
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
    """Return all there is to tell, for JSON."""
    return {
        "pid": server.pid,
        "project": server.project,
        "bind": list(server.binds),
        "generation": server.generation,
        **full_snapshot(board, now, measured),
    }


def format_text(known: dict[str, Any]) -> Iterator[str]:
    """Yield the same for people."""
    who = f"pid {known['pid']} on {', '.join(known['bind'])}"
    yield f"{'server':<10}{who}, up {format_age(known['uptime'])}, generation {known['generation']}"
    yield f"{'requests':<10}{_of_requests(known)}"
    for each in known["workers"]:
        yield f"{'worker':<10}{_of_worker(each)}"
    if known["restarts"]:
        told = ", ".join(f"{reason} {count}" for reason, count in known["restarts"].items())
        yield f"{'restarts':<10}{told}"
    if known.get("advice"):
        yield f"{'advice':<10}{known['advice']}"


def _of_requests(known: dict[str, Any]) -> str:
    parts = [f"{known['requests']}"]
    parts += [f"{count} x {name}" for name, count in known["statuses"].items()]
    parts += [f"{known[name]} {name}" for name in ("refused", "aborted") if known[name]]
    if known["requests"]:
        below = known["p99_below"]
        slow = f"99 % below {below * 1000:g} ms" if below else f"1 % above {BOUNDS[-1]:g} s"
        parts += [
            f"mean {known['mean'] * 1000:.1f} ms, {slow}",
            f"queued {known['mean_queued'] * 1000:.1f} ms",
        ]
    return ", ".join(parts)


def _of_worker(each: dict[str, Any]) -> str:
    share = f" ({100 * each['cpu'] / each['age']:.0f} %)" if each["age"] >= 1 else ""
    parts = [
        f"pid {each['pid']} {each['state']}",
        f"age {format_age(each['age'])}",
        f"busy {each['busy']}/{each['threads']}",
        f"limit {each['concurrency_limit']}",
        *([f"{each['queue']} wait"] if each["queue"] else []),
        f"{each['connections']} connections",
        f"{each['requests']} requests",
        format_size(each["memory"]),
        f"CPU {each['cpu']:.1f} s{share}",
    ]
    if oldest := each["oldest"]:
        name = format_request(oldest["method"], oldest["path"], oldest["id"])
        parts.append(f"oldest {name} for {oldest['age']:.1f} s")
    return ", ".join(parts)


def dump(board: Scoreboard, now: float) -> Iterator[str]:
    """Yield every thread's stack with its request, worker by worker; nothing is stopped."""
    assert board.path is not None
    for slot in board.active_slots():
        if not slot.pid or not stacks_path(board.path, slot.index).exists():
            continue
        text = ""
        with suppress(OSError):
            text = dump_now(board.path, slot.index, slot.pid)
        yield f"worker {slot.pid} ({STATES[slot.state]}), busy {len(slot.running())}/{slot.threads}"
        yield with_requests(text, slot.running(), now) or "(no answer)"
        yield ""
