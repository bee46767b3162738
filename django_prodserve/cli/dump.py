"""``dump``: the stacks of a running server, threads with a request first. Runs in a command of its own.

faulthandler writes the stacks (scoreboard/stacks.py); no thread is stopped. Stacks of async requests come
from the worker's main thread.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress

from ..scoreboard.board import Scoreboard
from ..scoreboard.slot import STATES, TASK_ROWS, Request, Slot
from ..scoreboard.stacks import describe, dump_now, stacks_path
from ..utils.units import counted

THREAD = re.compile(r"^(?:Current thread|Thread) 0x([0-9a-f]+)", re.MULTILINE)
FRAME = re.compile(r'^  File "(.*)", line (\d+) in (.*)$', re.MULTILINE)
WAITING = ("/threading.py", "/selectors.py", "/queue.py", "/concurrent/futures/thread.py")
"""Modules of Python's library in which a thread waits on behalf of its caller."""
FRAMEWORK = ("/django_prodserve/", "/gunicorn/")


def dump(board: Scoreboard, now: float) -> Iterator[str]:
    """Yield every worker with its threads: those with requests first, idle server threads on one line."""
    assert board.path is not None
    for slot in board.active_slots():
        if not slot.pid or not os.path.exists(stacks_path(board.path, slot.index)):
            continue
        text = tasks = ""
        with suppress(OSError):
            text, tasks = dump_now(
                board.path, slot.index, slot.pid, tasks=bool(slot.tasks or slot.websockets)
            )
        running = slot.running()
        yield f"worker {slot.pid} ({STATES[slot.state]}), busy {len(running)}/{slot.threads}"
        yield from arranged(text, running, now) or ["(no answer)"]
        yield from on_loop(slot, tasks, now)
        yield ""


def arranged(text: str, running: Sequence[Request], now: float) -> list[str]:
    """Return the threads of a worker: those with a request, then those of the project, then idle ones."""
    requests = {request.ident: request for request in running}
    with_request: list[tuple[float, str]] = []
    others: list[str] = []
    idle: Counter[str] = Counter()
    for ident, stack in threads(text):
        if request := requests.get(ident):
            with_request.append((request.start, f"{describe(request, now)}\n{stack}\n"))
        elif place := idle_place(stack):
            idle[place] += 1
        else:
            others.append(f"{stack}\n")
    lines = [stack for _, stack in sorted(with_request)] + others
    if idle:
        places = ", ".join(
            f"{place} ({times})" if times > 1 else place for place, times in idle.most_common()
        )
        lines.append(f"{counted(idle.total(), 'idle thread')} of the server: {places}")
    return lines


def on_loop(slot: Slot, stacks: str, now: float) -> Iterator[str]:
    """Yield the oldest requests on the asyncio loop with their stacks; without, if the worker sent none."""
    count, parts = slot.tasks + slot.websockets, []
    if not count and not stacks:
        return
    if slot.tasks or not slot.websockets:
        parts.append(counted(slot.tasks, "async request"))
    if slot.websockets:
        parts.append(counted(slot.websockets, "websocket"))
    shown = "" if count <= TASK_ROWS else f"; the oldest {TASK_ROWS} are"
    yield f"{' and '.join(parts)} on the asyncio loop{shown}"
    if stacks:
        yield stacks
        return
    requests = sorted(slot.running_tasks(), key=lambda request: request.start)
    yield from (f"{describe(request, now)}\n(no answer)" for request in requests)


def threads(text: str) -> Iterator[tuple[int, str]]:
    """Yield each thread of a dump with its ident; skip the text before the first thread."""
    starts = [*THREAD.finditer(text)]
    ends = [*(match.start() for match in starts[1:]), len(text)]
    for match, end in zip(starts, ends, strict=False):
        yield int(match[1], 16), text[match.start() : end].strip()


def idle_place(stack: str) -> str:
    """Return where a thread of the server waits for work; empty for a thread that runs project code."""
    frames = [(file, f"{file.rpartition('/')[2]}:{line} {name}") for file, line, name in FRAME.findall(stack)]
    ours = next(((file, place) for file, place in frames if not file.endswith(WAITING)), None)
    if ours is None:
        return frames[0][1] if frames else ""
    return ours[1] if any(part in ours[0] for part in FRAMEWORK) else ""
