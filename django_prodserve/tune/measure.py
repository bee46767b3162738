"""The schedule of ``prodserve tune``: what is measured, one after another, in the time that there is.

Lives in the command, main thread. Each step gets a part of the time that is left.
"""

from __future__ import annotations

import http.client
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean

from ..errors import ProdserveError
from ..plan.capacity import CPU, GIL, USABLE_SHARE, Capacity, Means
from . import client, prediction
from .choices import Choice
from .costs import Mix, PathCost
from .load import Measured, Request, run
from .prediction import Budget, UnderLoad
from .result import Run, Skipped
from .server import LOOPBACK, TunedServer

Say = Callable[[str], object]
QUIET_SECONDS = 0.5
QUIET_SHARE = 0.12
"""Share of the planned CPUs that others may use while nothing is measured."""
DRIFT = 0.2
"""Difference in CPU time of the same requests from which the machine is not steady enough: other machines of
the same host share its caches and cores, and nothing here reports that."""
LEAST_SAMPLES = 3
"""Requests that the workers have measured alone, from which their wait is known."""
SLOT, LEAST_SLOT = 2.5, 0.4
"""Seconds for one path."""
RUN, LEAST_RUN = 5.0, 1.5
"""Seconds for one run of the mix; a third of them is for warming up."""
WARM_SHARE = 0.35
ORDER = 997
"""Length of the sequence in which the clients send paths, by their shares."""
QUEUES = 1.3
"""Times that a request takes longer under load than alone, from which the server is full."""


@dataclass
class Timetable:
    """How much time is left."""

    deadline: float

    @property
    def left(self) -> float:
        """Return the seconds until the end."""
        return max(0.0, self.deadline - time.monotonic())

    def part(self, share: float, least: float, most: float) -> float:
        """Return a part of what is left, within bounds."""
        return max(least, min(most, share * self.left))


@dataclass
class Quiet:
    """What others use of these CPUs while the server has nothing to do."""

    budget: float
    seen: list[float] = field(default_factory=list)

    def look(self) -> None:
        """Measure one moment."""
        before, began = client.Clocks([]), time.monotonic()
        time.sleep(QUIET_SECONDS)
        self.seen.append(client.Clocks([]).since(before)["machine"] / (time.monotonic() - began))

    @property
    def cpus(self) -> float:
        """Return the CPUs in use on average."""
        return mean(self.seen) if self.seen else 0.0

    def compare(self, costs: Sequence[float]) -> str:
        """Return that the CPUs changed their speed: CPU seconds of a request in runs that filled them."""
        drift = max(costs) / min(costs) - 1 if costs and min(costs) > 0 else 0.0
        if drift < DRIFT:
            return ""
        return f"the CPU time of a request differed by {100 * drift:.0f} % between runs of the same load"

    @property
    def trouble(self) -> str:
        """Return why nothing can be concluded; empty if the machine is quiet."""
        there = len(os.sched_getaffinity(0))
        if there - self.cpus >= (1 - QUIET_SHARE) * min(self.budget, there):
            return ""
        return (
            f"other programs use {self.cpus:.1f} of {there} CPUs, and the measurement needs "
            f"{min(self.budget, there):.3g}"
        )


def probe(request: Request, targets: Sequence[str], port: int, timeout: float) -> Iterator[Skipped | float]:
    """Yield for each address how long it takes, or why it is not measured."""
    for target in targets:
        connection = http.client.HTTPConnection(LOOPBACK, port, timeout=timeout)
        try:
            for _ in range(2):  # the first request may import, connect and compile
                began = time.monotonic()
                headers = {"Host": request.host, "User-Agent": "prodserve-tune", **dict(request.headers)}
                connection.request("GET", target, headers=headers)
                answer = connection.getresponse()
                answer.read()
            if answer.status == 200:
                yield time.monotonic() - began
            else:
                to = answer.getheader("Location") or ""
                yield Skipped(path=target, why=f"{answer.status} {answer.reason}{f' to {to}' if to else ''}")
        except TimeoutError:
            yield Skipped(path=target, why=f"no complete response within {timeout:.0f} s")
        except (OSError, http.client.HTTPException) as error:
            yield Skipped(path=target, why=f"no response: {error or type(error).__name__}")
        finally:
            connection.close()


def idle_cpu(server: TunedServer) -> float:
    """Return the CPUs that the workers use without requests."""
    pids = server.pids
    before, began = client.Clocks(pids), time.monotonic()
    time.sleep(QUIET_SECONDS)
    return client.Clocks(pids).since(before)["server"] / (time.monotonic() - began)


def path_cost(
    server: TunedServer, request: Request, choice: Choice, usual: float, slot: float, idle: float
) -> PathCost:
    """Measure one path: requests one after another, over one connection."""
    counted, queries = server.counters(), server.read_queries()
    found = run(
        request,
        choice.targets,
        order=range(len(choice.targets)),
        port=server.port,
        pids=server.pids,
        warm=min(0.3 * slot, 3 * usual),
        seconds=max(0.7 * slot, 1.1 * usual),
        timeout=max(5.0, 10 * usual),
        drain=2 * usual + 0.2,
    )
    if not found.requests:
        raise ProdserveError(f"{choice.name} answers no more: {_failures(found)}.", topic="tune")
    now, asked = server.counters(), server.read_queries()
    sent = max(1, now.requests - counted.requests)
    cpu = max(0.0, found.server_cpu - idle * found.seconds) / found.requests
    wait = max(0.0, found.mean - cpu)
    samples = now.samples - counted.samples
    if samples >= LEAST_SAMPLES:
        # While a request runs, its worker also works by the clock: 76 ms in a second of sleeping requests.
        cpu = (now.cpu_sum - counted.cpu_sum) / samples
        wait = (now.wait_sum - counted.wait_sum) / samples
    return PathCost(
        path=choice.name,
        share=choice.share,
        cpu=cpu,
        wait=wait,
        seconds=found.mean,
        queries=(asked.number - queries.number) / sent,
        query_seconds=(asked.seconds - queries.seconds) / sent,
        thread=samples > 0 or not os.access("/proc/self/schedstat", os.R_OK),
        requests=sent,
        statuses=tuple(sorted(found.statuses)),
    )


def order_of(choices: Sequence[Choice]) -> tuple[list[str], list[int]]:
    """Return all addresses, and a sequence of them in which each path has its share."""
    targets = [target for choice in choices for target in choice.targets]
    order: list[int] = []
    first = 0
    for choice in choices:
        count = max(1, round(choice.share * ORDER))
        order += [first + number % len(choice.targets) for number in range(count)]
        first += len(choice.targets)
    random.Random(0).shuffle(order)
    return targets, order


class MixRun:
    """Runs of all paths together on one server."""

    def __init__(
        self,
        server: TunedServer,
        request: Request,
        choices: Sequence[Choice],
        costs: Sequence[PathCost],
        quiet: Quiet,
        *,
        counts_others: bool,
    ) -> None:
        self.server, self.request, self.quiet = server, request, quiet
        self.mix, self.slowest = Mix.of(costs), max(cost.seconds for cost in costs)
        self.counts_others = counts_others
        """Whether a database of this machine works for the requests: its CPU time is part of their cost."""
        self.targets, self.order = order_of(choices)

    def measure(self, clients: int, seconds: float) -> Measured:
        """Keep so many clients busy; a part of the time is for warming up."""
        warm = WARM_SHARE * seconds
        seen = run(
            self.request,
            self.targets,
            order=self.order,
            clients=clients,
            port=self.server.port,
            pids=self.server.pids,
            warm=warm,
            seconds=seconds - warm,
            timeout=max(10.0, 10 * self.slowest),
            drain=min(5.0, 2 * self.slowest + 0.2),
        )
        if not self.counts_others:
            self.quiet.seen.append(seen.others_cpu() / seen.seconds)
        return seen

    def calibrate(self, before: UnderLoad, budget: Budget, seconds: float, say: Say) -> UnderLoad:
        """Measure what a request costs while the CPUs are as full as the mix can fill them."""
        most = prediction.predict(before, budget.means())
        clients = prediction.concurrencies(before.mix, budget, most)[2]
        say(f"the mix with {clients} clients, to see what requests cost under load")
        seen = self.measure(clients, seconds)
        if not seen.requests:
            raise ProdserveError(f"Under load no request succeeds: {_failures(seen)}.", topic="tune")
        other = 0.0
        if self.counts_others:
            other = max(0.0, seen.others_cpu() - self.quiet.cpus * seen.seconds) / seen.requests
        mix = self.mix.under_load(seen.server_cpu / seen.requests, other)
        used = (seen.server_cpu + seen.client_cpu + other * seen.requests) / seen.seconds / budget.cpus
        is_full = most.short in (CPU, GIL) and seen.mean >= QUEUES * (mix.cpu + mix.wait)
        return UnderLoad(
            mix=mix,
            client=seen.client_cpu / seen.requests,
            usable=min(USABLE_SHARE, used) if is_full else USABLE_SHARE,
        )

    def confirm(self, clients: int, seconds: float, load: UnderLoad, means: Means, most: Capacity) -> Run:
        """Measure with so many clients what was predicted for them."""
        rate, latency = prediction.closed_loop(load.mix, means, most, clients)
        seen = self.measure(clients, seconds)
        return Run(
            clients=clients,
            predicted_rate=rate,
            predicted_latency=latency,
            rate=seen.rate,
            mean=seen.mean,
            p50=seen.p50,
            p95=seen.p95,
            p99=seen.p99,
            failed=seen.failed,
            cpus=seen.server_cpu / seen.seconds,
            client_cpus=seen.client_cpu / seen.seconds,
            other_cpus=seen.others_cpu() / seen.seconds,
        )


def _failures(seen: Measured) -> str:
    """Return what came instead of a 2xx, in words."""
    parts = [f"{number:,} x {status}" for status, number in sorted(seen.statuses.items()) if status]
    parts += [f"{number:,} x {kind}" for kind, number in sorted(seen.errors.items())]
    return ", ".join(parts) or "no response"
