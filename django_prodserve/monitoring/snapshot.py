"""The contents of a scoreboard as plain values: for ``status``, and for the management address.

Lives in a command, and in a worker on the thread that waits for events. Reads the scoreboard and /proc.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..machine.families import memory_below
from ..machine.proc import cpu_seconds
from ..machine.proc_memory import read_memory
from ..scoreboard import growth_holds, history
from ..scoreboard.board import Scoreboard
from ..scoreboard.events import BAD
from ..scoreboard.routes import RouteTime
from ..scoreboard.side_slot import STATES as SIDE_STATES
from ..scoreboard.slot import BOUNDS, STATES, Counters, Request, Slot
from ..side_processes.policies import ending
from ..supervisor.protocol import ServerRecord
from ..tls.expiry import read_expiries
from . import room
from .advice import AGREES_WITH_WAITING
from .findings import Finding, Observed, evaluate
from .rates import VERDICT_SECONDS, latest, points, steadily_waiting
from .server_facts import failed_reload, known_server, read_record, server_uptime

ROUTES_SHOWN = 10
"""Routes in the JSON and on the page, those that take the most time."""


def full_snapshot(
    board: Scoreboard, now: float, memory: Callable[[Slot], int] | None = None
) -> dict[str, Any]:
    """Return all data of the scoreboard, for JSON; times in seconds, sizes in bytes."""
    record = read_record(board)
    return {
        **_live(board, now, memory, record),
        "events": [event.as_dict() for event in board.read_events()],
        "server": known_server(board, record),
        "plan": board.static_info.get("plan", {}),
    }


def live_snapshot(board: Scoreboard, now: float) -> dict[str, Any]:
    """Return the data that changes every second; cheap."""
    return _live(board, now, None, read_record(board))


def _live(
    board: Scoreboard, now: float, memory: Callable[[Slot], int] | None, record: ServerRecord | None
) -> dict[str, Any]:
    events, tally = board.read_events(), board.totals()
    sample = board.sample(time.time(), now, tally)
    limit = board.static_info.get("server", {}).get("threads_limit", "")
    workers = [worker(slot, now, memory, limit) for slot in board.active_slots()]
    processes = side_processes(board, now, measured=memory is not None)
    samples = [*history.read(board.history, last=round(VERDICT_SECONDS) + 4), sample]
    failed, summary = board.read_errors(), board.summary()
    point = latest(samples)
    findings = evaluate(
        Observed(
            wall=sample.time,
            workers=workers,
            now=point,
            minute=latest(samples, VERDICT_SECONDS),
            waiting=steadily_waiting(samples),
            events=events,
            errors=failed,
            routes=board.read_routes(now, minutes=2),
            processes=processes,
            memory_used=board.memory_used,
            memory_limit=board.memory_limit,
            failed_reload=failed_reload(record),
            certificates=read_expiries(summary.get("certificates")),
        )
    )
    summary["room"] = room.described(summary.get("room"), point.requests)
    if "advice" in summary:
        findings, summary["advice"] = with_advice(findings, summary)
    return {
        "arbiter": board.pid,
        "uptime": round(now - board.started, 1),
        "server_uptime": server_uptime(board, record, now),
        **counts(tally),
        "workers": workers,
        "processes": processes,
        "restarts": board.restarts(),
        "memory_limit": board.memory_limit or None,
        "memory_used": board.memory_used or None,
        "accept_queue": board.accept_queue_length,
        "rates": asdict(point),
        "findings": [finding._asdict() for finding in findings],
        "recent_errors": [error.as_dict() for error in failed],
        "routes": busiest_routes(board.read_routes(now)),
        "latest_event": [len(events), events[-1].time if events else 0.0],
        "certificates": [],
        **summary,
    }


def with_advice(findings: list[Finding], summary: Mapping[str, Any]) -> tuple[list[Finding], str]:
    """Return findings and advice that do not contradict each other.

    While there is a bad finding, or a resource is short, no advice is shown next to the findings: more
    threads take more memory. Advice on shorter waits becomes the remedy of the finding that requests wait.
    """
    advice, kind = summary.get("advice", ""), summary.get("advice_kind", "")
    waiting = {"overload", "waiting"}
    short = {*waiting, "memory", "leak", "throttled"}
    if advice and kind in AGREES_WITH_WAITING:
        findings = [
            finding._replace(action=advice) if finding.kind in waiting else finding for finding in findings
        ]
    if any(finding.level == BAD or finding.kind in short for finding in findings):
        advice = ""
    return findings, advice


def busiest_routes(found: Sequence[RouteTime]) -> list[dict[str, Any]]:
    """Return the routes on which the last minutes were spent, and each one's share of all requests' time."""
    seconds = sum(route.seconds for route in found)
    return [
        {**route._asdict(), "mean": route.mean, "share": route.seconds / seconds if seconds else 0.0}
        for route in found[:ROUTES_SHOWN]
    ]


def recent_history(board: Scoreboard) -> list[dict[str, Any]]:
    """Return the traffic in each of the last seconds, the oldest first."""
    return [asdict(point) for point in points([*history.read(board.history)])]


def counts(tally: Counters) -> dict[str, Any]:
    """Return the counters of requests that have ended."""
    requests = tally.requests
    return {
        "requests": requests,
        "statuses": {f"{number}xx": count for number, count in enumerate(tally.classes, 1) if count},
        "static": tally.static,
        "refused": tally.refused,
        "aborted": tally.aborted,
        "mean": tally.latency_sum / requests if requests else 0.0,
        "p99_below": quantile(tally.latency, 0.99),
        "mean_queued": tally.queued_sum / requests if requests else 0.0,
    }


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the bound below which this share of the values is; None beyond the last bound."""
    wanted, seen = share * sum(buckets), 0
    for bound, count in zip(BOUNDS, buckets, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


def worker(
    slot: Slot, now: float, memory: Callable[[Slot], int] | None = None, limit: str = ""
) -> dict[str, Any]:
    """Return the state of one worker; its memory as last measured, unless ``memory`` measures it.

    ``limit`` names what sets the maximum of its threads.
    """
    running = sorted(slot.running(), key=lambda request: request.start)
    oldest = min([*running, *slot.running_tasks()], key=lambda request: request.start, default=None)
    return {
        "pid": slot.pid,
        "state": STATES[slot.state],
        "age": round(now - slot.started, 1) if slot.started else 0.0,
        "threads": slot.threads,
        "max_threads": slot.max_threads,
        "growth_hold": growth_holds.reason(slot.growth_hold),
        "growth_held": growth_holds.in_words(slot.growth_hold, limit),
        "concurrency_limit": slot.concurrency_limit,
        "busy": len(running),
        "async": slot.tasks,
        "loop": _loop(slot) if slot.leases else None,
        "websockets": slot.websockets,
        "queue": slot.waiting(),
        "connections": slot.connections,
        "requests": slot.counters().requests,
        "memory": memory(slot) if memory else slot.memory,
        "cpu": cpu_seconds(slot.pid) or slot.cpu,
        "cpu_share": round(slot.cpu_share, 3),
        "oldest": _request(oldest, now) if oldest else None,
    }


def side_processes(board: Scoreboard, now: float, *, measured: bool = False) -> list[dict[str, Any]]:
    """Return the state of each process alongside the workers, in the order of the plan."""
    names = board.static_info.get("processes", ())
    return [
        {
            "name": name,
            "pid": slot.pid or None,
            "state": SIDE_STATES[slot.state],
            "age": round(now - slot.started, 1) if slot.pid else 0.0,
            "restarts": slot.restarts,
            "failing": slot.failing,
            "memory": memory_below(slot.minder) if measured and slot.pid else slot.memory,
            "last_end": None if slot.status is None else ending(slot.status),
        }
        for name, slot in zip(names, board.sides, strict=False)
    ]


def _loop(slot: Slot) -> dict[str, Any]:
    """Return the state of a worker's asyncio loop; its lag was measured while requests ran on it."""
    return {
        "lag": slot.loop_lag,
        "blocked": slot.loop_blocked,
        "leases": slot.leases,
        "leases_busy": slot.leases_busy,
        "leases_waiting": slot.leases_waiting,
    }


def _request(request: Request, now: float) -> dict[str, Any]:
    age = round(max(0.0, now - request.start), 1)  # it may have begun since ``now``
    return {"method": request.method, "path": request.path, "id": request.id, "age": age}


def measured(slot: Slot) -> int:
    """Return a worker's current memory: takes about 1 ms, during which it cannot map any."""
    with suppress(OSError):
        return read_memory(Path(f"/proc/{slot.pid}")).size
    return slot.memory
