"""What a board tells of its server, as plain values: for ``status``, and for who asks a worker.

Lives in a command, and in a worker on the thread that waits for events. Reads the board and /proc.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..footprint import read_memory
from .board import Board
from .processes import cpu_seconds
from .slot import BOUNDS, STATES, Request, Slot, Tally


def of_board(board: Board, now: float) -> dict[str, Any]:
    """Return all that the board tells, for JSON; times in seconds, sizes in bytes."""
    return {
        "arbiter": board.pid,
        "uptime": round(now - board.started, 1),
        **counts(board.totals()),
        "workers": [worker(slot, now) for slot in board.taken()],
        "restarts": board.restarts(),
        **board.note(),
    }


def counts(tally: Tally) -> dict[str, Any]:
    """Return what was counted of requests that have ended."""
    requests = tally.requests
    return {
        "requests": requests,
        "statuses": {f"{number}xx": count for number, count in enumerate(tally.classes, 1) if count},
        "static": tally.static,
        "refused": tally.refused,
        "cut": tally.cut,
        "mean": tally.latency_sum / requests if requests else 0.0,
        "p99_below": quantile(tally.latency, 0.99),
        "mean_queued": tally.queued_sum / requests if requests else 0.0,
    }


def quantile(buckets: Sequence[int], share: float) -> float | None:
    """Return the bound below which this share of what was counted lies; None beyond the last bound."""
    wanted, seen = share * sum(buckets), 0
    for bound, count in zip(BOUNDS, buckets, strict=False):
        seen += count
        if seen >= wanted:
            return bound
    return None


def worker(slot: Slot, now: float) -> dict[str, Any]:
    """Return what one worker does."""
    running = sorted(slot.running(), key=lambda request: request.start)
    return {
        "pid": slot.pid,
        "state": STATES[slot.state],
        "age": round(now - slot.started, 1) if slot.started else 0.0,
        "threads": slot.threads,
        "busy": len(running),
        "queue": slot.queue,
        "connections": slot.connections,
        "requests": slot.tally().requests,
        "memory": _memory(slot),
        "cpu": cpu_seconds(slot.pid) or slot.cpu,
        "oldest": _request(running[0], now) if running else None,
    }


def _request(request: Request, now: float) -> dict[str, Any]:
    age = round(now - request.start, 1)
    return {"method": request.method, "path": request.path, "id": request.id, "age": age}


def _memory(slot: Slot) -> int:
    with suppress(OSError):
        return read_memory(Path(f"/proc/{slot.pid}")).size
    return slot.memory
