"""Lines for people: the verdict, and text wrapped for a terminal without control characters. Pure.

Used by ``status`` and ``status --watch``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..utils import terminal
from ..utils.units import counted, format_age, format_latency, format_share, format_size

Line = tuple[str, str]
"""A style, or none, and a text."""
ROUTES = 3
"""Number of routes shown, those that took the most time of the last minutes."""


def verdict(findings: Sequence[dict[str, Any]]) -> str:
    """Return ``bad``, ``warn`` or ``ok``: the level of the worst finding."""
    levels = {finding["level"] for finding in findings}
    return next((level for level in ("bad", "warn") if level in levels), "ok")


def verdict_lines(findings: Sequence[dict[str, Any]]) -> list[Line]:
    """Return each finding and what to do about it, the worst first; or one line if there is none."""
    lines: list[Line] = []
    for finding in findings:
        lines.append((finding["level"], f"{'!!' if finding['level'] == 'bad' else '! '} {finding['text']}"))
        if finding["action"]:
            lines.append(("", f"   {finding['action']} More: prodserve help {finding['help']}"))
    return lines or [("ok", "Serving normally")]


def route_lines(routes: Sequence[dict[str, Any]]) -> list[Line]:
    """Return a line for each of the routes that took the most time of the last minutes."""
    return [
        ("", f"{'' if number else 'routes':<10}{_of_route(route)}")
        for number, route in enumerate(routes[:ROUTES])
    ]


def _of_route(route: dict[str, Any]) -> str:
    parts = [
        f"{route['route']}: {format_share(route['share'])} of the time",
        counted(route["requests"], "request"),
        f"mean {format_latency(route['mean'])}",
        f"max {format_latency(route['maximum'])}",
    ]
    return ", ".join(parts)


def loop_words(worker: dict[str, Any]) -> str:
    """Return the state of a worker's asyncio loop; empty if it has none, or if that is idle."""
    loop, parts = worker["loop"], []
    if not loop:
        return ""
    if worker["async"]:
        parts.append(counted(worker["async"], "async request"))
    if worker["async"] or worker["websockets"]:
        parts.append(f"lag {format_latency(loop['lag'])}")
    if loop["leases_busy"]:
        parts.append(f"leased threads {loop['leases_busy']}/{loop['leases']}")
    if loop["leases_waiting"]:
        parts.append(f"{loop['leases_waiting']} wait for one")
    if loop["blocked"]:
        parts.append(f"blocked {counted(loop['blocked'], 'time')}")
    return ", ".join(parts)


def process_lines(processes: Sequence[dict[str, Any]]) -> list[Line]:
    """Return a line for each process alongside the workers."""
    return [("warn" if each["failing"] else "", f"{'process':<10}{_of_process(each)}") for each in processes]


def _of_process(process: dict[str, Any]) -> str:
    pid = f"pid {process['pid']} " if process["pid"] else ""
    parts = [f"{process['name']}: {pid}{process['state']}"]
    if process["pid"]:
        parts += [f"age {format_age(process['age'])}", format_size(process["memory"])]
    if process["restarts"]:
        parts.append(counted(process["restarts"], "restart"))
    if process["last_end"]:
        parts.append(f"last {process['last_end']}")
    return ", ".join(parts)


def wrapped(line: str, columns: int) -> list[str]:
    """Return a line in parts that fit, all but the first indented below the text; long words are split."""
    if not columns or len(line) <= columns:
        return [line]
    is_finding = line.startswith("!") or (line.startswith("   ") and not line.startswith("    "))
    indent = " " * (3 if is_finding else 10)
    return terminal.wrapped(line, columns, indent, whole_words=False)


def printable(text: str) -> str:
    """Return a text without terminal control characters: a path comes from a client."""
    return "".join(character if character.isprintable() else "?" for character in text)


def clock(seconds: float) -> str:
    """Write a time of day as the log does, from seconds since 1970: ``14:03:22Z``."""
    return time.strftime("%H:%M:%SZ", time.gmtime(seconds))
