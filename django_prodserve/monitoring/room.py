"""How many requests a second of the present mix this server could serve. Pure; standard library alone.

The CPU time, and the time in threads, of each request follow from the last half minute. What other processes
use of the same CPUs is a constant and a part that rises with the requests, such as a database's. The last
minutes show both, since no traffic is the same in each second. Where they do not, the room is not known.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from ..plan.capacity import CONNECTIONS, CPU, GIL, MEMORY, THREADS, Means, RequestCost, limits
from ..utils.units import counted, format_age, format_count

KEPT_SECONDS = 300.0
"""For how long marks are kept."""
WINDOW_SECONDS, LEAST_SECONDS = 30.0, 15.0
"""Over how many seconds a request's cost is measured, and from how many on a result counts."""
MIN_REQUESTS = 200
"""Requests from which a mean cost counts: they are looked for in all marks that are kept."""
BIN_SECONDS = 3.0
"""Length of the parts in which the CPU time of other processes is compared with our own: it comes later."""
MIN_BINS = 5
IDLE_CPU = 0.001
"""CPUs that a worker without requests uses, until it is measured here. Measured over 30 s: 0.0008, for a new
worker and for one with 16 threads that had served."""
MIN_IDLE_SECONDS = 5.0
MIX_DIFFERS, BESIDE_DIFFERS = 1.35, 1.25
"""Factors from which two estimates contradict each other. The first is for the halves of the window, which
err more than the whole. The second is for the least and the most that other processes may use."""
COLD_SECONDS, WARM_GAP, MAX_COLD = 0.0004, 0.0017, 0.0015
"""A request costs more CPU time after a pause, as caches are cold: COLD_SECONDS x log(pause / WARM_GAP), at
most MAX_COLD. Measured on a virtual machine, at 50 to 100 requests a second and near the maximum: a view of
1 ms 3.3 and 1.9 ms, one that waits 1.8 and 1.1 ms, one with a database 3.4 and 1.6 ms."""
MAX_COLD_SHARE = 0.4
"""Share of a request's CPU time that may be due to that in a result."""
FULL_SHARE = 0.85
"""Share of the CPUs in use from which requests wait for a CPU..."""
COMPUTING_SHARE = 0.2
"""...so that their time in threads proves nothing, if they compute for this share of it."""
THROTTLED_SHARE = 0.02
"""Share of the time that a quota stopped threads, from which their time in threads proves nothing."""
LEAST_SHARE = 1 / 3
"""Share of the CPUs that the scheduler gives to workers at least, where other processes want all of them."""
KNOWN_SHARE = 1 / 2
"""Share of the CPUs that other processes must leave, so that it is known what workers can get."""
EXAMPLE_FACTORS = 10, 4
"""The example is a rate at least so many times the present one, and so many times this server's maximum."""
AT_MAXIMUM = 0.9

WORDS = {
    CPU: "CPU",
    GIL: "GIL",
    THREADS: "threads",
    CONNECTIONS: "database connections",
    MEMORY: "memory",
}
"""Texts for what is short first."""


class Mark(NamedTuple):
    """Counters at one moment; those of seconds are sums since the start."""

    now: float
    requests: int
    cpu: float
    """CPU seconds of the workers."""
    shared: float
    """CPU seconds of all processes on the same CPUs, the workers included."""
    thread: float
    """Seconds for which threads ran requests."""
    throttled: float
    """Seconds for which a CPU quota stopped threads."""


@dataclass(frozen=True, kw_only=True)
class Supply:
    """What the server has: see ``Means``."""

    cpus: float
    shared: float
    """CPUs that other processes use, too: those of a quota, or of the machine."""
    workers: int
    threads: int
    threads_by: str = THREADS


@dataclass(frozen=True, kw_only=True)
class Room:
    """The highest rate in requests a second by resource, or why it is not known."""

    limits: Mapping[str, float] = field(default_factory=dict)
    unknown: str = ""

    @property
    def short(self) -> str:
        """Return what is short first; empty if that is not known."""
        return min(self.limits, key=lambda name: self.limits[name], default="") if not self.unknown else ""

    def facts(self) -> dict[str, Any]:
        """Return it as plain values, for the scoreboard."""
        found = {name: round(rate, 2) for name, rate in self.limits.items() if math.isfinite(rate)}
        return {"limits": {} if self.unknown else found, "unknown": self.unknown}


class _Rates(NamedTuple):
    """The counters of a mark for each second."""

    requests: float
    cpu: float
    shared: float
    thread: float


class _Beside(NamedTuple):
    """The CPU time of other processes: a constant in CPUs, and a factor of the workers' CPU time."""

    constant: float
    each: float


def room(marks: Sequence[Mark], supply: Supply) -> Room:
    """Return what the server could serve, from marks of about each second, the oldest first."""
    window = _window(marks)
    if len(window) < 2 or (seconds := window[-1].now - window[0].now) < LEAST_SECONDS:
        return Room(unknown="workers have just started")
    requests = window[-1].requests - window[0].requests
    if requests < MIN_REQUESTS:
        few = counted(requests, "request")
        return Room(unknown=f"{few} in {format_age(seconds)}, {MIN_REQUESTS} are enough")
    idle = _idle(marks, supply.workers)
    least, likely, most = _beside(marks, window)
    rates = _rates(window)
    whole = _limits(window, idle, likely, supply)
    middle = window[len(window) // 2]
    halves = [part for part in (_until(window, middle), _since(window, middle)) if len(part) > 1]
    if _differ([_limits(part, idle, likely, supply) for part in halves], MIX_DIFFERS):
        return Room(unknown="the mix of requests changes")
    if _differ([_limits(window, idle, beside, supply) for beside in (least, most)], BESIDE_DIFFERS):
        cpus = format_count(likely.constant + likely.each * rates.cpu)
        return Room(unknown=f"other processes use {cpus} CPUs, perhaps more with more requests")
    found = Room(limits=whole)
    if found.short == CPU and supply.shared - likely.constant < KNOWN_SHARE * supply.shared:
        cpus = format_count(likely.constant)
        return Room(unknown=f"other processes use {cpus} CPUs, and would leave some of it to more requests")
    computes = found.short in (CPU, GIL)
    warm = _warm(rates, idle, supply.workers) * rates.requests
    if computes and warm < (1 - MAX_COLD_SHARE) * (rates.cpu - idle):
        return Room(unknown="at so low a load, a request costs more CPU time than it would under load")
    stopped = (window[-1].throttled - window[0].throttled) / seconds
    if stopped > THROTTLED_SHARE and not computes:
        return Room(unknown="the CPU quota stops threads, so that their time proves nothing")
    return found


def _window(marks: Sequence[Mark]) -> Sequence[Mark]:
    """Return the last marks: those of WINDOW_SECONDS, or more until there are MIN_REQUESTS."""
    first = len(marks) - 1
    while first > 0 and (
        marks[-1].now - marks[first].now < WINDOW_SECONDS
        or marks[-1].requests - marks[first].requests < MIN_REQUESTS
    ):
        first -= 1
    return marks[max(first, 0) :]


def _until(marks: Sequence[Mark], middle: Mark) -> list[Mark]:
    return [mark for mark in marks if mark.now <= middle.now]


def _since(marks: Sequence[Mark], middle: Mark) -> list[Mark]:
    return [mark for mark in marks if mark.now >= middle.now]


def _rates(marks: Sequence[Mark]) -> _Rates:
    """Return how fast the counters rose between the first mark and the last."""
    first, last = marks[0], marks[-1]
    seconds = max(last.now - first.now, 1e-6)
    return _Rates(
        requests=(last.requests - first.requests) / seconds,
        cpu=(last.cpu - first.cpu) / seconds,
        shared=(last.shared - first.shared) / seconds,
        thread=(last.thread - first.thread) / seconds,
    )


def _idle(marks: Sequence[Mark], workers: int) -> float:
    """Return the CPUs that workers use without requests: as in the seconds in which none ran."""
    quiet = [
        (after.now - before.now, after.cpu - before.cpu)
        for before, after in pairwise(marks)
        if after.requests == before.requests and after.thread == before.thread
    ]
    seconds, cpu = (sum(column) for column in zip(*quiet, strict=True)) if quiet else (0.0, 0.0)
    return cpu / seconds if seconds >= MIN_IDLE_SECONDS else IDLE_CPU * workers


def _bins(marks: Sequence[Mark]) -> Iterator[tuple[float, float]]:
    """Yield the CPUs that the workers and the others used, in each part of BIN_SECONDS."""
    first = marks[0]
    for mark in marks:
        if mark.now - first.now >= BIN_SECONDS:
            rates, first = _rates((first, mark)), mark
            yield rates.cpu, rates.shared - rates.cpu


def _beside(marks: Sequence[Mark], window: Sequence[Mark]) -> tuple[_Beside, _Beside, _Beside]:
    """Return what others use, with a low, a likely and a high part that rises with our own CPU time."""
    rates = _rates(window)
    others = max(0.0, rates.shared - rates.cpu)
    ceiling = others / rates.cpu if rates.cpu > 0 else 0.0
    slope, error = _fit([*_bins(marks)])
    slope = min(ceiling, max(0.0, slope))
    slopes = max(0.0, slope - error), slope, min(ceiling, slope + error)
    least, likely, most = (_Beside(others - each * rates.cpu, each) for each in slopes)
    return least, likely, most


def _fit(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the slope of the line through points, by least squares, and its standard error."""
    count = len(points)
    if count < MIN_BINS:
        return 0.0, math.inf
    mean_x, mean_y = (sum(column) / count for column in zip(*points, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread <= 1e-9:
        return 0.0, math.inf
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return slope, math.sqrt(rest / (count - 2) / spread)


def cold(gap: float) -> float:
    """Return what a request costs more if its worker was idle for so long before."""
    return min(MAX_COLD, COLD_SECONDS * math.log(gap / WARM_GAP)) if gap > WARM_GAP else 0.0


def _warm(rates: _Rates, idle: float, workers: int) -> float:
    """Return the CPU time that a request would cost under load."""
    cost = max(0.0, rates.cpu - idle) / rates.requests
    return max(0.0, cost - cold(max(0.0, workers - rates.cpu) / rates.requests))


def _limits(marks: Sequence[Mark], idle: float, beside: _Beside, supply: Supply) -> dict[str, float]:
    """Return the highest rate by resource, from the cost of the requests between these marks."""
    rates = _rates(marks)
    if rates.requests <= 0:
        return {}
    cpu = _warm(rates, idle, supply.workers)
    cpus = min(supply.cpus, supply.shared)
    is_full = rates.shared >= FULL_SHARE * cpus and rates.cpu >= COMPUTING_SHARE * rates.thread
    thread = 0.0 if is_full else rates.thread / rates.requests
    left = max(supply.shared - beside.constant, LEAST_SHARE * supply.shared)
    means = Means(
        cpus=max(0.01, min(supply.cpus, left) - idle),
        workers=supply.workers,
        threads=supply.threads,
        threads_by=supply.threads_by,
    )
    found = limits(RequestCost(cpu=cpu, beside=beside.each * cpu, thread=thread), means)
    return {limit.short: limit.rate for limit in found}


def _differ(estimates: Sequence[Mapping[str, float]], factor: float) -> bool:
    """Return whether these estimates contradict each other."""
    rates = [min(found.values(), default=math.inf) for found in estimates]
    finite = [rate for rate in rates if math.isfinite(rate)]
    return len(finite) < len(rates) or max(finite, default=0.0) > factor * min(finite, default=0.0)


def described(facts: Mapping[str, Any] | None, rate: float | None) -> dict[str, Any] | None:
    """Return what readers see of the room, with the present rate; None if this server does not measure it."""
    if facts is None:
        return None
    rates: Mapping[str, float] = facts["limits"]
    short = min(rates, key=lambda name: rates[name], default=None)
    known: dict[str, Any] = {
        "rate": rate,
        "room": rates[short] if short else None,
        "short": short,
        "limits": rates,
        "certain": short is not None,
        "reason": facts["unknown"],
        "example": None,
    }
    if short and rate is not None:
        wanted = _one_figure(max(EXAMPLE_FACTORS[0] * rate, EXAMPLE_FACTORS[1] * rates[short]))
        known["example"] = {"rate": wanted, "servers": math.ceil(wanted / rates[short])}
    return {**known, "text": _text(known)}


def _text(known: Mapping[str, Any]) -> str:
    if not known["certain"]:
        return f"not known yet: {known['reason']}"
    rate, most, short = known["rate"], known["room"], WORDS[known["short"]]
    if rate is None:
        return f"room for about {_about(most)}/s ({short})"
    example = known["example"]
    serves = f"serves {format_count(rate)}/s"
    about = f"room for about {_about(most)}/s" if rate < AT_MAXIMUM * most else "about the most that it can"
    needs = f"{format_count(example['rate'])}/s would need {example['servers']} servers like this one"
    return f"{serves}, {about} ({short}); {needs}"


def _about(rate: float) -> str:
    """Write a rate with two figures."""
    digits = 1 - math.floor(math.log10(rate)) if rate > 0 else 0
    return format_count(round(rate, digits))


def _one_figure(rate: float) -> float:
    """Return a rate rounded to one figure."""
    return round(rate, -math.floor(math.log10(rate))) if rate > 0 else 0.0
