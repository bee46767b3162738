"""The scoreboard as text for Prometheus (exposition format 0.0.4). Any worker reports for all of them.

Lives in a worker, on the thread that waits for events. Reads the scoreboard, /proc and the listeners: about 1
ms.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from ..machine.cgroups import Cgroups, FileRoot
from ..machine.proc import cpu_seconds
from ..machine.proc_memory import read_memory
from ..machine.quota import throttling
from ..machine.tcp_info import accept_queue
from ..scoreboard.board import REASONS, Scoreboard
from ..scoreboard.growth_holds import GROWTH_HOLDS
from ..scoreboard.side_slot import RUNNING
from ..scoreboard.slot import (
    BOUNDS,
    CLASSES,
    HANDSHAKE_FAILURES,
    METHODS,
    STATES,
    Counters,
    Slot,
)
from ..tls.expiry import read_expiries
from .server_facts import versions

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
ESCAPED = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Sample(NamedTuple):
    """One line: the suffix of its name, its labels, its value."""

    value: float
    labels: Mapping[str, str] = {}
    suffix: str = ""


class Metrics:
    """The metrics of one server, reported by one worker."""

    def __init__(self, board: Scoreboard, listeners: Sequence[Any], generation: int) -> None:
        self.board, self.listeners, self.generation = board, listeners, generation
        self.started = round(time.time() - time.monotonic() + board.started, 3)
        self.cgroups = Cgroups.find(FileRoot(Path("/")))

    def text(self, *, ready: bool) -> bytes:
        """Return all metrics; ``ready`` is the result of the readiness probe."""
        tally, slots = self.board.totals(), self.board.active_slots()
        lines = [*requests(tally), *now(slots), *self.waiting(), *workers(slots, self.board.restarts())]
        lines += [*self.quota(), *self.room(), *self.certificates(), *processes(self.board)]
        lines += self.server(ready)
        return "".join(lines).encode()

    def waiting(self) -> Iterator[str]:
        """Yield the lengths of the kernel's accept queues."""
        queues = [(listener, accept_queue(listener)) for listener in self.listeners]
        found = [({"address": _name(listener)}, queue) for listener, queue in queues if queue]
        yield from gauge(
            "accept_queue_connections",
            "Connections that wait in the kernel to be accepted.",
            [Sample(depth, labels) for labels, (depth, _) in found],
        )
        yield from gauge(
            "accept_queue_limit_connections",
            "Maximum number of connections that can wait in the kernel.",
            [Sample(limit, labels) for labels, (_, limit) in found],
        )

    def quota(self) -> Iterator[str]:
        """Yield how the CPU quota has throttled the server's control group."""
        told = throttling(self.cgroups)
        yield from counter("cpu_quota_periods", "Elapsed periods of the CPU quota.", [Sample(told.periods)])
        yield from counter(
            "cpu_quota_throttled_periods",
            "Periods in which the CPU quota throttled the server.",
            [Sample(told.throttled)],
        )
        yield from counter(
            "cpu_quota_throttled_seconds",
            "Time for which the CPU quota stopped threads.",
            [Sample(told.seconds)],
        )

    def room(self) -> Iterator[str]:
        """Yield the requests each second that the server could serve; no sample while that is not known."""
        rates = self.board.summary().get("room", {}).get("limits", {})
        yield from gauge(
            "room_requests_per_second",
            "Requests of the present mix each second that a resource allows; the lowest one is the room.",
            [Sample(rate, {"resource": resource}) for resource, rate in rates.items()],
        )

    def certificates(self) -> Iterator[str]:
        """Yield until when the certificates are valid."""
        found = read_expiries(self.board.summary().get("certificates"))
        yield from gauge(
            "tls_certificate_expires_seconds",
            "Unix time until which a certificate is valid.",
            [Sample(one.expires, {"certificate": one.name, "file": one.file}) for one in found],
        )

    def server(self, ready: bool) -> Iterator[str]:
        """Yield the metrics of the server as a whole."""
        yield from gauge("ready", "Whether /readyz answers 200.", [Sample(ready)])
        yield from gauge("generation", "Generation that serves: 1 until a reload.", [Sample(self.generation)])
        yield from gauge(
            "start_time_seconds",
            "Unix time at which this generation and its counters started.",
            [Sample(self.started)],
        )
        found = versions()
        labels = {"version": found.pop("prodserve"), **found}
        yield from gauge(
            "build_info", "Versions of prodserve, Django, Gunicorn and Python.", [Sample(1, labels)]
        )


def requests(tally: Counters) -> Iterator[str]:
    """Yield the request counters, of all workers that ever ran."""
    yield from counter("requests", "Requests that the application answered.", _answers(tally))
    yield from counter(
        "static_files",
        "Static files that were sent from memory, all with status 200.",
        [Sample(tally.static)],
    )
    yield from counter(
        "requests_refused",
        "Requests that were rejected with 503 because of an overload.",
        [Sample(tally.refused)],
    )
    yield from counter(
        "responses_aborted", "Responses that were aborted before they were complete.", [Sample(tally.aborted)]
    )
    yield from counter("websockets_opened", "Websockets that were opened.", [Sample(tally.websockets)])
    yield from counter(
        "websocket_messages",
        "Messages on websockets, by direction.",
        [
            Sample(tally.messages_received, {"direction": "received"}),
            Sample(tally.messages_sent, {"direction": "sent"}),
        ],
    )
    yield from handshakes(tally)
    yield from histogram(
        "request_duration_seconds", "Time for which requests ran.", tally.latency, tally.latency_sum
    )
    yield from histogram(
        "request_queue_seconds",
        "Time for which requests waited for a thread.",
        tally.queued,
        tally.queued_sum,
    )


def handshakes(tally: Counters) -> Iterator[str]:
    """Yield the counters of TLS; all are 0 without --certfile."""
    new = tally.handshakes - tally.resumed_handshakes
    yield from counter(
        "tls_handshakes",
        "TLS handshakes that were completed, by whether the client resumed a session.",
        [Sample(new, {"resumed": "no"}), Sample(tally.resumed_handshakes, {"resumed": "yes"})],
    )
    yield from counter(
        "tls_handshakes_failed",
        "TLS handshakes that failed, by reason.",
        [
            Sample(count, {"reason": reason})
            for reason, count in zip(HANDSHAKE_FAILURES, tally.failed_handshakes, strict=True)
        ],
    )


def _answers(tally: Counters) -> Iterator[Sample]:
    for number, count in enumerate(tally.answers):
        method, status = METHODS[number // CLASSES], number % CLASSES + 1
        if count or status == 2:
            yield Sample(count, {"method": method, "code": f"{status}xx"})


def now(slots: Sequence[Slot]) -> Iterator[str]:
    """Yield the current load."""
    busy = [(slot, slot.count_running()) for slot in slots]
    queued = sum(slot.queue for slot in slots)
    running = sum(count for _, count in busy) + sum(slot.tasks for slot in slots)
    yield from gauge(
        "requests_in_flight", "Requests that run or wait for a thread.", [Sample(running + queued)]
    )
    yield from gauge("requests_queued", "Requests that wait for a thread.", [Sample(queued)])
    yield from gauge(
        "connections",
        "Open connections, including idle ones.",
        [Sample(sum(slot.connections for slot in slots))],
    )
    yield from gauge(
        "threads", "Threads that may run requests.", [Sample(slot.threads, _worker(slot)) for slot in slots]
    )
    yield from gauge(
        "threads_max",
        "Threads that a worker may have for requests.",
        [Sample(slot.max_threads, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "threads_held",
        "Whether this reason keeps the threads of a worker from growing.",
        [
            Sample(int(slot.growth_hold == number), {**_worker(slot), "reason": reason})
            for slot in slots
            for number, reason in enumerate(GROWTH_HOLDS)
            if reason
        ],
    )
    yield from gauge(
        "concurrency_limit",
        "Maximum number of requests that a worker runs at a time.",
        [Sample(slot.concurrency_limit, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "async_requests",
        "Requests that run on the asyncio loop.",
        [Sample(slot.tasks, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "websockets", "Open websockets.", [Sample(slot.websockets, _worker(slot)) for slot in slots]
    )
    yield from gauge(
        "asyncio_lag_seconds",
        "Time that the asyncio loop took to run a callback, when it was last measured.",
        [Sample(slot.loop_lag, _worker(slot)) for slot in slots],
    )
    yield from counter(
        "asyncio_blocked",
        "Times that a request blocked the asyncio loop.",
        [Sample(slot.loop_blocked, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "leases",
        "Threads that async requests may lease for what may block.",
        [Sample(slot.leases, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "leases_busy",
        "Threads that async requests have leased.",
        [Sample(slot.leases_busy, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "leases_waiting",
        "Async requests that wait for a leased thread.",
        [Sample(slot.leases_waiting, _worker(slot)) for slot in slots],
    )
    yield from gauge(
        "threads_busy", "Threads that run a request.", [Sample(count, _worker(slot)) for slot, count in busy]
    )


def workers(slots: Sequence[Slot], ended: Mapping[str, int]) -> Iterator[str]:
    """Yield the metrics of each worker, and why workers ended."""
    states = [STATES[slot.state] for slot in slots]
    yield from gauge(
        "workers",
        "Worker processes by state.",
        [Sample(states.count(state), {"state": state}) for state in STATES[1:]],
    )
    yield from counter(
        "workers_ended",
        "Workers that ended or were replaced, by reason.",
        [Sample(ended.get(reason, 0), {"reason": reason}) for reason in REASONS],
    )
    yield from gauge(
        "worker_memory_bytes",
        "Memory of a worker (PSS), measured every 15 s.",
        [Sample(_memory(slot), _worker(slot)) for slot in slots if slot.pid],
    )
    yield from counter(
        "worker_cpu_seconds",
        "CPU time of a worker.",
        [Sample(cpu_seconds(slot.pid), _worker(slot)) for slot in slots if slot.pid],
    )


def processes(board: Scoreboard) -> Iterator[str]:
    """Yield the metrics of the processes alongside the workers."""
    names = board.static_info.get("processes", ())
    sides = [({"name": name}, slot) for name, slot in zip(names, board.sides, strict=False)]
    yield from gauge(
        "process_running",
        "Whether a process alongside the workers runs: 1 or 0.",
        [Sample(slot.state == RUNNING, labels) for labels, slot in sides],
    )
    yield from counter(
        "process_restarts",
        "Times that a process alongside the workers was started again.",
        [Sample(slot.restarts, labels) for labels, slot in sides],
    )
    yield from gauge(
        "process_memory_bytes",
        "Memory of a process and all that it has started (PSS), measured every 15 s.",
        [Sample(slot.memory, labels) for labels, slot in sides if slot.pid],
    )
    yield from gauge(
        "process_start_time_seconds",
        "Unix time at which a process alongside the workers was started.",
        [
            Sample(round(time.time() - time.monotonic() + slot.started, 3), labels)
            for labels, slot in sides
            if slot.pid
        ],
    )


def _worker(slot: Slot) -> dict[str, str]:
    """Return a worker's label: its slot, which its successor reuses. Pids would add ever more labels."""
    return {"worker": str(slot.index)}


def _memory(slot: Slot) -> int:
    """Return the memory that the arbiter has measured; a new worker has no measurement yet."""
    with suppress(OSError):
        return slot.memory or read_memory(Path(f"/proc/{slot.pid}")).size
    return 0


def gauge(name: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    return _family(name, "gauge", about, samples)


def counter(name: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    return _family(f"{name}_total", "counter", about, samples)


def histogram(name: str, about: str, buckets: Sequence[int], seconds: float) -> Iterator[str]:
    """Yield a histogram; ``buckets`` count values between two bounds, the last one all beyond."""
    bounds, counts = [*(f"{bound:g}" for bound in BOUNDS), "+Inf"], [*accumulate(buckets)]
    samples = [Sample(count, {"le": bound}, "_bucket") for bound, count in zip(bounds, counts, strict=True)]
    samples += [Sample(seconds, suffix="_sum"), Sample(counts[-1], suffix="_count")]
    return _family(name, "histogram", about, samples)


def _family(name: str, kind: str, about: str, samples: Iterable[Sample]) -> Iterator[str]:
    yield f"# HELP prodserve_{name} {about}\n# TYPE prodserve_{name} {kind}\n"
    for sample in samples:
        labels = ",".join(f'{key}="{text.translate(ESCAPED)}"' for key, text in sample.labels.items())
        braces = f"{{{labels}}}" if labels else ""
        yield f"prodserve_{name}{sample.suffix}{braces} {float(sample.value)!r}\n"


def _name(listener: Any) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
