"""``prodserve tune``: the order of the whole. Lives in the command, main thread.

``run`` returns a TuneResult; whoever stores what was learned takes it from there.
"""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from django.conf import settings

from ..config.parsers import ThreadRange
from ..config.private_server import PrivateServer
from ..errors import Interrupted, Problem, ProdserveError, UsageError
from ..plan.capacity import CONNECTIONS, CPU, GIL, MEMORY, Capacity
from ..plan.plan import Plan, make_plan
from ..project.databases import probe_all
from ..project.detect import Project
from ..project.hosts import first_allowed
from ..startup.checks import database_limit
from ..utils.units import counted, format_duration
from . import access_log, measure, page, prediction, report, routes
from .choices import MAX_PATHS, Choice, Choices, evenly
from .costs import Mix, PathCost
from .load import Request
from .prediction import Budget, UnderLoad
from .result import Recommendation, Run, Skipped, TuneResult
from .server import TunedServer, serving

Say = Callable[[str], object]
LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
PROBE_SECONDS = 5.0
MAX_LOG = 64 * 2**20
"""Bytes of an access log that are read, from its end: some 300,000 lines."""
AGREES = 0.15
"""Difference between prediction and measurement from which the prediction names what is short no more."""
FULL_SHARE, GIL_SHARE = 0.85, 0.5
"""Share of the CPUs in use from which they are short. Below it, workers that use so much of one CPU each wait
for their GIL, and others for something that requests share."""
CALIBRATION = 3.5
"""Seconds of a run that only measures costs."""
MUCH_LESS = 0.8
"""If a request under load costs less than this part of what was known, the clients were too few."""


def tune(plan: Plan, project: Project, flags: Mapping[str, Any], write: Say, say: Say) -> TuneResult:
    """Measure, write the report, and return the result. ``say`` writes progress, next to the report."""
    if sys.platform != "linux":
        raise ProdserveError(
            "prodserve tune needs Linux: it reads the CPU time of the workers.", topic="tune"
        )
    choices = Choices.parse(flags["names"], flags)
    html = page.prepare(choices.html, force=choices.force)
    named = _named(choices)
    refuse_other_hosts(other_hosts(settings.DATABASES), choices)
    try:
        result = Tuning(plan, project, choices, flags, say).run(named)
    except KeyboardInterrupt:
        raise Interrupted("Stopped by Ctrl-C: the private server has ended, nothing was changed.") from None
    write(report.as_json(result) if choices.as_json else report.as_text(result))
    if html is not None:
        page.write(html, result, force=choices.force)
        say(f"the page is {html}")
    return result


def other_hosts(databases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the databases on other hosts, in words."""
    return [
        f"{alias} is on {entry['HOST']}"
        for alias, entry in databases.items()
        if not _is_local(str(entry.get("HOST") or ""))
    ]


def refuse_other_hosts(others: Sequence[str], choices: Choices) -> None:
    """Raise UsageError if load would reach a database of another host, unless the operator agrees."""
    if others and not choices.may_load_others:
        raise UsageError(
            f"The load would reach a database on another host: {', '.join(others)}.",
            "Use settings with a database of this machine, or add --yes if that database may be busy.",
            code="conflict",
            topic="tune",
        )


def _is_local(host: str) -> bool:
    hosts = [part.strip() for part in host.split(",")]
    return all(part in LOCAL_HOSTS or part.startswith(("/", "127.", "@")) for part in hosts)


def _named(choices: Choices) -> tuple[Choice, ...]:
    """Return the paths that the operator names, or the log; none if the URLconf decides."""
    if choices.paths:
        return tuple(evenly(choices.paths))
    if not choices.log:
        return ()
    try:
        with open(choices.log, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MAX_LOG))
            text = file.read().decode("utf-8", "replace")
    except OSError as error:
        raise UsageError(
            f"--from {choices.log} cannot be read: {error.strerror or error}.",
            "Name an access log that exists. prodserve writes one with --access-log PATH.",
            code="file",
            topic="tune",
        ) from error
    found = access_log.read(text.splitlines())
    if not found.groups:
        what = f"none of its {found.requests:,} requests is a GET with a 2xx"
        if not found.requests:
            what = f"no line of {found.lines:,} is in a known format" if found.lines else "it is empty"
        raise UsageError(
            f"--from {choices.log} has no request to measure: {what}.",
            "Formats: combined, as of nginx and Gunicorn, and the text and JSON lines of prodserve.",
            code="file",
            topic="tune",
        )
    return tuple(found.choices(MAX_PATHS))


class Tuning:
    """One measurement."""

    def __init__(
        self, plan: Plan, project: Project, choices: Choices, flags: Mapping[str, Any], say: Say
    ) -> None:
        self.project, self.choices, self.flags, self.say = project, choices, flags, say
        self.plan = plan.with_db_limit(database_limit(probe_all(), project))
        self.began = time.monotonic()
        self.table = measure.Timetable(self.began + choices.seconds)
        self.here = min(plan.cpus.value, plan.inputs.machine.cpus)
        self.quiet = measure.Quiet(self.here)
        self.requests = 0
        self.others = other_hosts(settings.DATABASES)
        self.notes: list[str] = []
        secure = getattr(settings, "SECURE_PROXY_SSL_HEADER", None)
        headers = {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"}
        if secure:
            headers[secure[0].removeprefix("HTTP_").replace("_", "-").title()] = secure[1]
        self.request = Request(host=first_allowed(), headers=tuple(headers.items()))

    def run(self, named: tuple[Choice, ...]) -> TuneResult:
        """Measure everything, and conclude."""
        plan = self.plan
        what = counted(len(named), "path") if named else "every route without arguments"
        self.say(
            f"starts this project on a private port of 127.0.0.1, with {plan.workers.value} workers x "
            f"{plan.threads.value} threads, and ends it afterwards"
        )
        self.say(f"sends GET requests to {what}, for at most {format_duration(self.choices.seconds)}")
        self.quiet.look()
        with ExitStack() as stack:
            server = stack.enter_context(self.serving())
            self.say(f"ready after {time.monotonic() - self.began:.1f} s")
            usable, usual, skipped = self.usable(server, named)
            costs = self.costs(server, usable, usual)
            load = UnderLoad(mix=Mix.of(costs))
            load = self.calibrate(server, usable, costs, load, self.budget(plan))
            profile = prediction.profile(load.mix)
            wanted = self.computed(profile)
            budget = self.budget(wanted)
            threads = prediction.recommended_threads(load.mix, budget)
            if threads != (plan.threads.value, plan.max_threads.value):
                self.requests += server.counters().requests
                stack.close()
                self.quiet.look()
                self.note_step(f"the project again, with {ThreadRange(*threads)} threads")
                server = stack.enter_context(self.serving(profile=profile, threads=threads))
            load = self.calibrate(server, usable, costs, load, budget)
            means = budget.means()
            most = prediction.predict(load, means)
            numbers = prediction.concurrencies(load.mix, budget, most)
            mixed = self.mixed(server, usable, costs)
            runs = [*self.confirm(mixed, numbers, load, budget, most)]
            memory = server.memory()
            self.requests += server.counters().requests
        self.quiet.look()
        best = max(runs, key=lambda run: run.rate)
        short = self.short(most, best, budget)
        expected = best.rate
        if short in (CPU, GIL):
            every = load.mix.cpu + load.mix.other
            expected *= (every + load.client) / every
        full = [load.mix.cpu, *(run.cpus / run.rate for run in runs[-1:] if run.rate)]
        recommended = self.recommendation(wanted, profile, threads, load.mix, budget, memory)
        return TuneResult(
            when=time.time(),
            seconds=time.monotonic() - self.began,
            requests=self.requests,
            settings=plan.settings.value,
            python=platform.python_version(),
            cpus=self.here,
            planned_cpus=plan.cpus.value,
            paths=tuple(costs),
            skipped=tuple(skipped),
            mix=load.mix,
            predicted=most.rate,
            short=short,
            runs=tuple(runs),
            curve=tuple(prediction.curve(load.mix, means, most, numbers[2])),
            expected=expected,
            expected_per_replica=expected * (plan.cpus.value / self.here if short == CPU else 1),
            recommended=recommended,
            busy=self.quiet.trouble or self.quiet.compare(full),
            notes=tuple(self.notes),
        )

    def serving(self, profile: str = "", threads: tuple[int, int] | None = None) -> Any:
        """Serve the project with the plan, or with this profile and these threads."""
        side = self.plan.side_memory.value
        memory = self.plan.memory.value
        private = PrivateServer(
            bind="",
            queries="",
            profile=profile,
            threads=threads,
            memory=memory - side if side and memory else None,
        )
        return serving(self.flags, private, self.table.deadline, lambda step: None)

    def note_step(self, text: str) -> None:
        """Write a line of progress with the time since the start."""
        self.say(f"{time.monotonic() - self.began:4.1f} s  {text}")

    def budget(self, plan: Plan) -> Budget:
        """Return what a plan allows here."""
        return Budget(
            cpus=self.here,
            workers=plan.workers.value,
            threads=plan.threads.value,
            max_threads=plan.max_threads.value,
            threads_by=plan.threads_by,
        )

    def usable(
        self, server: TunedServer, named: tuple[Choice, ...]
    ) -> tuple[list[Choice], dict[str, float], list[Skipped]]:
        """Return the paths that answer 200, how long each takes, and the others with the reason."""
        asked = list(named)
        if not asked:
            asked = evenly(routes.without_arguments() or ["/"])
        timeout = min(PROBE_SECONDS, self.table.left / 4)
        if self.choices.paths:
            timeout = self.table.left / 4
        usual, skipped = dict[str, float](), list[Skipped]()
        good: list[Choice] = []
        for choice in asked:
            if len(good) == MAX_PATHS:
                self.notes.append(
                    f"{len(asked) - MAX_PATHS} routes were left out: at most {MAX_PATHS} are measured"
                )
                break
            if self.table.left < self.choices.seconds / 2:
                self.notes.append("the other routes were left out: there was no time for more")
                break
            kept = []
            for found, target in zip(
                measure.probe(self.request, choice.targets, server.port, timeout), choice.targets, strict=True
            ):
                if isinstance(found, Skipped):
                    skipped.append(server.explained(found))
                else:
                    kept.append(target)
                    usual[choice.name] = max(found, usual.get(choice.name, 0.0))
            if kept:
                good.append(replace(choice, targets=tuple(kept)))
                usual[kept[0]] = usual[choice.name]
        if not good:
            raise ProdserveError.of(_nothing_usable(skipped, named=bool(named)))
        total = sum(choice.share for choice in good)
        return [replace(choice, share=choice.share / total) for choice in good], usual, skipped

    def costs(self, server: TunedServer, usable: list[Choice], usual: Mapping[str, float]) -> list[PathCost]:
        """Measure each path alone."""
        idle = measure.idle_cpu(server)
        slot = self.table.part(0.3 / len(usable), measure.LEAST_SLOT, measure.SLOT)
        found = []
        for number, choice in enumerate(usable, 1):
            cost = measure.path_cost(server, self.request, choice, usual[choice.name], slot, idle)
            self.note_step(f"{number} of {len(usable)}: {report.cost_line(cost)}")
            found.append(cost)
        return found

    def mixed(self, server: TunedServer, usable: list[Choice], costs: list[PathCost]) -> measure.MixRun:
        """Return what runs all paths together."""
        here = any(database.counts for database in self.project.databases)
        return measure.MixRun(
            server, self.request, usable, costs, self.quiet, counts_others=here and not self.others
        )

    def calibrate(
        self,
        server: TunedServer,
        usable: list[Choice],
        costs: list[PathCost],
        load: UnderLoad,
        budget: Budget,
    ) -> UnderLoad:
        """Measure the cost under load; again if it was much lower than alone, as the server was not full."""
        mixed = self.mixed(server, usable, costs)
        seconds = self.table.part(0.12, measure.LEAST_RUN, CALIBRATION)
        found = mixed.calibrate(load, budget, seconds, self.note_step)
        if found.mix.cpu < MUCH_LESS * load.mix.cpu:
            found = mixed.calibrate(found, budget, seconds, self.note_step)
        return found

    def confirm(
        self,
        mixed: measure.MixRun,
        numbers: tuple[int, int, int],
        load: UnderLoad,
        budget: Budget,
        most: Capacity,
    ) -> Iterator[Run]:
        """Run the mix with each number of clients."""
        for number, clients in enumerate(numbers):
            seconds = self.table.part(0.9 / (len(numbers) - number), measure.LEAST_RUN, measure.RUN)
            done = mixed.confirm(clients, seconds, load, budget.means(), most)
            self.note_step(report.run_line(done))
            yield done

    def short(self, most: Capacity, best: Run, budget: Budget) -> str:
        """Return what is short first: what the prediction names, unless the CPUs were idle."""
        used = best.cpus + best.client_cpus + best.other_cpus
        if most.short not in (CPU, GIL) and best.rate >= (1 - AGREES) * most.rate:
            return most.short
        if used >= FULL_SHARE * budget.cpus:
            return CPU
        return GIL if best.cpus >= GIL_SHARE * min(budget.workers, budget.cpus) else report.SHARED

    def computed(self, profile: str) -> Plan:
        """Return the plan for a profile, without a number of threads that the operator has set."""
        inputs = self.plan.inputs
        sources = {name: source for name, source in inputs.options.sources.items() if name != "threads"}
        options = replace(inputs.options, profile=profile, threads=None, sources=sources)
        return make_plan(replace(inputs, options=options))

    def recommendation(
        self,
        plan: Plan,
        profile: str,
        threads: tuple[int, int],
        mix: Mix,
        budget: Budget,
        memory: int,
    ) -> Recommendation:
        """Return how to serve, with what that needs."""
        options = plan.inputs.options
        sources = {**options.sources, "threads": "prodserve tune"}
        asked = replace(options, threads=ThreadRange(*threads), sources=sources)
        served = make_plan(replace(plan.inputs, options=asked))
        useful = prediction.useful_threads(mix, budget)
        is_held = useful > budget.max_threads and budget.threads_by in (CONNECTIONS, MEMORY)
        flags = []
        if profile != self.plan.profile.value:
            flags.append(f"--profile {profile}")
        if threads != (plan.threads.value, plan.max_threads.value):
            flags.append(f"--threads {ThreadRange(*threads)}")
        elif not self.plan.threads.is_computed:
            flags.append("without --threads")
        return Recommendation(
            profile=profile,
            workers=served.workers.value,
            threads=threads[0],
            max_threads=threads[1],
            held_by=budget.threads_by if is_held else "",
            connections=served.connections * sum(database.counts for database in self.project.databases),
            memory=memory,
            flags=" ".join(flags),
        )


def _nothing_usable(skipped: list[Skipped], *, named: bool) -> Iterator[Problem]:
    """Yield why no path can be measured."""
    fix = "Name a path that answers 200 without a login: prodserve tune /shop/"
    what = "None of these paths answers 200." if named else "No route without arguments answers 200."
    yield Problem(what, fix, "\n  ".join(f"{each.path}: {each.why}" for each in skipped[:10]), topic="tune")
