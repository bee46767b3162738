"""From facts and options to decisions with reasons. Pure; standard library alone. Start at ``make_plan``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..config import kinds
from ..config.options import option_field
from ..errors import Problem
from ..tls.key_pairs import KeyPair, key_pairs
from ..utils.decision import SET_EXPLICITLY, Decision
from . import further_addresses, tls, warnings, worker_classes
from .database import choose_database
from .learned_advice import LearnedAdvice
from .notes import links, not_started
from .sizing import THREADS, DatabaseLimit, Sizing

if TYPE_CHECKING:
    from ..config.options import Options, SourcedValue
    from ..machine.detect import Machine
    from ..machine.platforms import Platform
    from ..project.detect import Project
    from ..project.footprint import Footprint
    from ..project.learned import Kept
    from ..staticfiles import StaticChoice

UNLIMITED_CPUS = 8  # a container without a CPU limit shares its node with others


@dataclass(frozen=True, kw_only=True)
class PlanInputs:
    """The inputs of a plan: facts, options, and a measurement of the project if there is one."""

    machine: Machine
    platform: Platform
    project: Project
    options: Options
    fork_safe: bool = True
    """Whether this system survives forking a loaded process."""
    footprint: Footprint | None = None
    db_limit: DatabaseLimit | None = None
    """What the databases allow, if a start has asked them."""
    kept: Kept | None = None
    """What was learned about this project; None without --apply-advice."""
    road_table: str = ""
    """How many views run where, in words; empty if all run in threads, or if the project is not loaded."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every decision on how this project is served on this machine. Sizes in bytes, times in seconds."""

    platform: Decision[str]
    settings: Decision[str]
    application: Decision[str]
    bind: Decision[tuple[str, ...]]
    profile: Decision[str]
    cpus: Decision[float]
    memory: Decision[int | None]
    master_memory: Decision[int] = field(metadata={"kind": kinds.SIZE})
    worker_memory: Decision[int] = field(metadata={"kind": kinds.SIZE})
    side_processes: Decision[tuple[str, ...]]
    side_memory: Decision[int] = field(metadata={"kind": kinds.SIZE})
    worker_class: Decision[str]
    queue_timeout: Decision[float]
    concurrency_limit: Decision[str]
    lanes: Decision[str]
    asgi: Decision[str]
    roads: Decision[tuple[str, ...]]
    max_body: Decision[int | None]
    workers: Decision[int]
    threads: Decision[int]
    max_threads: Decision[int]
    leases: Decision[int]
    db_connections: Decision[int | None]
    apply_advice: Decision[bool]
    database: Decision[str]
    static: Decision[str]
    private_static: Decision[bool]
    brotli: Decision[bool] = field(metadata={"kind": kinds.SWITCH})
    preload: Decision[bool]
    warmup: Decision[str]
    speedups: Decision[bool]
    trusted_proxies: Decision[tuple[str, ...]]
    trusted_hops: Decision[int | None]
    client_address_header: Decision[str]
    timeout: Decision[float]
    slow_request: Decision[float]
    graceful_timeout: Decision[float]
    drain_delay: Decision[float]
    keep_alive: Decision[float]
    max_requests: Decision[int]
    max_requests_jitter: Decision[int]
    max_lifetime: Decision[float]
    backlog: Decision[int]
    worker_connections: Decision[int]
    limit_request_line: Decision[int]
    limit_request_fields: Decision[int]
    limit_request_field_size: Decision[int]
    umask: Decision[int]
    certfile: Decision[tuple[str, ...]]
    keyfile: Decision[tuple[str, ...]]
    tls: Decision[str]
    redirect_http: Decision[str | None]
    acme_webroot: Decision[str | None]
    access_log: Decision[str | None]
    log_format: Decision[str]
    log_redact: Decision[tuple[str, ...] | None]
    access_log_sample: Decision[float]
    access_log_min_duration: Decision[float]
    log_level: Decision[str]
    health_paths: Decision[tuple[str, ...]]
    readiness_checks: Decision[tuple[str, ...]]
    management_bind: Decision[str | None]
    server_timing: Decision[bool]
    media: Decision[bool]
    wait_for_db: Decision[float]
    migrate: Decision[bool]
    collectstatic: Decision[bool]
    local: Decision[bool]
    strict: Decision[bool]
    allow_debug: Decision[bool]
    config: Decision[str | None]
    chdir: Decision[str | None]
    supervisor: Decision[bool]
    env_file: Decision[str | None]
    reload: Decision[bool]

    connections: int
    """Connections that this server may open to each database."""
    threads_by: str
    """Which resource sets ``max_threads``: one of those in plan/capacity.py."""
    threads_limit: str
    """The same in words, with the numbers that it then has."""
    static_choice: StaticChoice
    """How static files are served, for the module that prepares them."""
    gunicorn: Mapping[str, SourcedValue]
    """Gunicorn settings that pass through unchanged."""
    notes: tuple[str, ...]
    """Inputs that were seen and not used."""
    details: tuple[str, ...]
    """Facts of the machine that could not be read, shown with -v 2."""
    warnings: tuple[Problem, ...]
    """Problems that the operator should expect, each with its fix."""
    inputs: PlanInputs = field(repr=False, compare=False)
    """The inputs of the decisions."""

    def replan(self, footprint: Footprint) -> Plan:
        """Decide again from the same facts and options, and this measurement of the project."""
        return make_plan(replace(self.inputs, footprint=footprint))

    def with_db_limit(self, limit: DatabaseLimit | None) -> Plan:
        """Decide again, now that it is known how many connections the databases allow."""
        return self if limit is None else make_plan(replace(self.inputs, db_limit=limit))

    def with_road_table(self, table: str) -> Plan:
        """Decide again, now that the project is loaded; the table is empty if all views run in threads."""
        return self if table == self.inputs.road_table else make_plan(replace(self.inputs, road_table=table))

    @property
    def addresses(self) -> tuple[str, ...]:
        """Return every address that the server listens on: the site's, for plain HTTP, for management."""
        return (*self.bind.value, *filter(None, [self.redirect_http.value, self.management_bind.value]))

    @property
    def certificates(self) -> tuple[KeyPair, ...]:
        """Return the certificates with their keys; the first is for clients that name no host."""
        return key_pairs(self.certfile.value, self.keyfile.value)

    @property
    def is_asgi_class(self) -> bool:
        """Whether another project's ASGI server runs in the workers."""
        return self.worker_class.value in worker_classes.LOST

    @property
    def has_loop(self) -> bool:
        """Whether anything of the loaded project runs on an asyncio loop."""
        return self.is_asgi_class or bool(self.inputs.road_table)

    @property
    def has_few_threads(self) -> bool:
        """Whether a limit of the databases leaves fewer threads than the profile asks for."""
        few = self.threads.value < THREADS[self.profile.value] and self.worker_class.value != "sync"
        return few and self.threads.is_computed

    def decisions(self) -> Iterator[tuple[str, Decision[Any]]]:
        """Yield every decision with its name, in the order of their explanation."""
        for row in fields(self):
            decision = getattr(self, row.name)
            if isinstance(decision, Decision):
                yield row.name, decision

    @classmethod
    def show(cls, name: str, value: Any) -> str:
        """Return the text of a value of the decision with this name, for people."""
        row = option_field(name)
        if row is not None:
            return row.show(value)
        kind = cls.__dataclass_fields__[name].metadata.get("kind")
        return kind.show(value) if kind else str(value)


def make_plan(inputs: PlanInputs) -> Plan:
    """Decide everything."""
    machine, project, options = inputs.machine, inputs.project, inputs.options
    wishes = ResolvedOptions(options, inputs.platform)
    cpus = choose_cpus(machine, wishes)
    memory = choose_memory(machine, wishes)
    worker_class = worker_classes.choose(wishes.computed("worker_class"), options.gunicorn)
    advice = LearnedAdvice(wishes, inputs.kept, cpus.value, memory.value, worker_class.value)
    profile = advice.profile()
    sizing = Sizing(
        cpus=cpus.value,
        memory=memory.value,
        profile=profile.value,
        worker_class=worker_class.value,
        databases=max(1, sum(database.counts for database in project.databases)),
        stated_workers=wishes.stated("workers"),
        stated_threads=wishes.stated("threads"),
        db_connections=wishes.stated("db_connections"),
        footprint=inputs.footprint,
        db_limit=inputs.db_limit,
        learned=advice.learned,
        pool_size=min((found.pool_size for found in project.databases if found.pool_size), default=None),
        counts_connections=any(found.counts and not found.pool_size for found in project.databases),
        has_async=bool(inputs.road_table),
        keeps_connections=worker_class.value == "prodserve" and project.keeps_connections,
        beside=options.beside,
    )
    workers = sizing.workers()
    threads, max_threads = sizing.thread_range(workers.value)
    leases = sizing.leases(workers.value, threads.value)
    certfile = wishes.computed("certfile")
    connections = workers.value * sizing.connections(max_threads.value, leases.value)
    bind = choose_bind(machine, wishes)
    management, redirect = wishes.computed("management_bind"), wishes.computed("redirect_http")
    thought: dict[str, Decision[Any]] = {
        "platform": _platform(inputs.platform),
        "settings": Decision(project.settings_module, "already loaded; wsgi.py cannot change it", "Django"),
        "application": _application(project),
        "bind": bind,
        "profile": profile,
        "apply_advice": advice.decision(),
        "cpus": cpus,
        "memory": memory,
        "master_memory": sizing.master_memory(),
        "worker_memory": sizing.worker_memory(),
        "side_memory": sizing.side_memory(),
        "worker_class": worker_class,
        "workers": workers,
        "threads": threads,
        "max_threads": max_threads,
        "leases": leases,
        "database": choose_database(project, connections, leases.value, sizing),
        "static": Decision(project.static.mode, project.static.why, wishes.source("static")),
        "brotli": _brotli(project),
        "preload": _preload(wishes, inputs.fork_safe),
        "warmup": _warmup(wishes),
        "speedups": _speedups(wishes, project),
        "trusted_hops": _hops(wishes),
        "supervisor": _supervisor(wishes, project, linux=inputs.fork_safe),
        "max_requests_jitter": _jitter(wishes),
        "management_bind": further_addresses.choose_management(management, worker_class),
        "redirect_http": further_addresses.choose_redirect(redirect, bind, worker_class),
        "server_timing": _server_timing(wishes),
        "access_log": _access_log(wishes),
        "concurrency_limit": choose_concurrency_limit(wishes, worker_class),
        "asgi": choose_asgi(wishes, worker_class, inputs.road_table),
        "tls": tls.choose_tls(certfile, worker_class),
    }
    plain = {
        row.name: wishes.computed(row.name)
        for row in fields(Plan)
        if row.name not in thought and str(row.type).startswith("Decision")
    }
    return Plan(
        **thought,
        **plain,
        connections=connections,
        threads_by=sizing.threads_by(workers.value, threads.value),
        threads_limit=sizing.threads_limit(workers.value, threads.value, max_threads.value, connections),
        static_choice=project.static,
        gunicorn=options.gunicorn,
        notes=(
            *options.notes,
            *tls.notes(thought["tls"], worker_class, options.gunicorn),
            *links(project, supervised=thought["supervisor"].value),
            *not_started(options),
        ),
        details=machine.notes,
        inputs=inputs,
        warnings=(
            *warnings.about_machine(machine, cpus),
            *warnings.about_memory(machine, options, worker_class),
            *warnings.about_stop(machine, inputs.platform, options),
            *sizing.warnings(workers, max_threads, leases),
            *warnings.about_project(project, options),
            *further_addresses.warnings(management, redirect, worker_class),
            *worker_classes.warnings(worker_class),
            *tls.warnings(certfile, worker_class, options.gunicorn, workers.value * threads.value),
        ),
    )


class ResolvedOptions:
    """The options as decisions: an explicit value with its source and reason, or the row's default."""

    def __init__(self, options: Options, platform: Platform) -> None:
        self.options = options
        self.platform = platform

    def source(self, name: str) -> str:
        return self.options.source(name) or "computed"

    def stated(self, name: str) -> Decision[Any] | None:
        """Return the value that a source sets, or None if the plan must compute it."""
        value = getattr(self.options, name)
        if value is None or not self.options.source(name):
            return None
        source = self.options.source(name)
        why = self.platform.why.get(name, SET_EXPLICITLY) if source == self.platform.name else SET_EXPLICITLY
        return Decision(value, why, source)

    def computed(self, name: str) -> Decision[Any]:
        """Return the explicit value or the row's default, for an option without a computation."""
        row = option_field(name)
        assert row is not None, name
        return self.stated(name) or Decision(getattr(self.options, name), row.why, "default")


def choose_cpus(machine: Machine, wishes: ResolvedOptions) -> Decision[float]:
    """Return the explicit CPUs, or the machine's; a container without a limit gets no whole large node."""
    unlimited = machine.container and machine.quota is None and machine.cpus > UNLIMITED_CPUS
    if unlimited and not wishes.stated("cpus"):
        hint = f" ({machine.cpu_weight})" if machine.cpu_weight else ""
        why = f"{machine.cpus:g} are visible, but this container has no CPU limit{hint}"
        return Decision(float(UNLIMITED_CPUS), why)
    return wishes.stated("cpus") or Decision(machine.cpus, machine.cpus_why)


def choose_memory(machine: Machine, wishes: ResolvedOptions) -> Decision[int | None]:
    """Return the explicit memory, or the tightest limit; None if neither is known."""
    return wishes.stated("memory") or Decision(machine.memory_effective, machine.memory_effective_why)


def choose_concurrency_limit(wishes: ResolvedOptions, worker_class: Decision[str]) -> Decision[str]:
    """Return the explicit limit, or one that the worker measures; Gunicorn's own workers have no limit."""
    if worker_class.value != "prodserve":
        return Decision("off", f"{worker_class.value} workers run a request on every thread")
    return wishes.computed("concurrency_limit")


def choose_asgi(wishes: ResolvedOptions, worker_class: Decision[str], road_table: str = "") -> Decision[str]:
    """Return how async views run; Gunicorn's own workers have no event loop for them."""
    if worker_class.value in worker_classes.LOST:
        return Decision("off", f"{worker_class.value} workers run every view on a loop of their own")
    if worker_class.value != "prodserve":
        return Decision("off", f"{worker_class.value} workers run async views in threads")
    plain = wishes.computed("asgi")
    return replace(plain, why=road_table) if road_table else plain


def choose_bind(machine: Machine, wishes: ResolvedOptions) -> Decision[tuple[str, ...]]:
    """Return the explicit addresses; else all interfaces in a container, else loopback. So for bare ports."""
    local = wishes.options.local
    host = "0.0.0.0" if machine.container and not local else "127.0.0.1"
    stated = wishes.stated("bind")
    if stated is not None:
        why = "the platform sends requests there" if stated.source == "PORT" else stated.why
        full = tuple(f"{host}{address}" if address.startswith(":") else address for address in stated.value)
        return Decision(full, why, stated.source)
    if local:
        return Decision((f"{host}:8000",), "--local: this machine only")
    if machine.container:
        return Decision((f"{host}:8000",), f"in a container, whose address is private ({machine.container})")
    return Decision((f"{host}:8000",), "this machine only; --bind 0.0.0.0:8000 opens it to others")


def _platform(platform: Platform) -> Decision[str]:
    if not platform.name:
        return Decision("none", "no platform's variables are set")
    return Decision(platform.name, f"{platform.marker} is set", "environment")


def _application(project: Project) -> Decision[str]:
    if project.application:
        return Decision(project.application, "WSGI_APPLICATION", "settings")
    return Decision("django.core.wsgi.get_wsgi_application()", "WSGI_APPLICATION is not set")


def _jitter(wishes: ResolvedOptions) -> Decision[int]:
    # With 5 % jitter 11 to 25 % of replacements overlap, with 100 % 8 to 9 % (simulated, 4 workers).
    most = wishes.options.max_requests
    why = "as wide as --max-requests: fewest workers replaced together" if most else "no --max-requests"
    return wishes.stated("max_requests_jitter") or Decision(most, why)


def _access_log(wishes: ResolvedOptions) -> Decision[str | None]:
    if wishes.options.local and not wishes.stated("access_log"):
        return Decision("-", "--local: each request has a line here")
    return wishes.computed("access_log")


def _server_timing(wishes: ResolvedOptions) -> Decision[bool]:
    if wishes.options.local and not wishes.stated("server_timing"):
        return Decision(True, "--local: the browser's network panel shows it")
    return wishes.computed("server_timing")


def _preload(wishes: ResolvedOptions, fork_safe: bool) -> Decision[bool]:
    why = "workers share the loaded application's memory"
    if not fork_safe:
        why = "macOS frameworks may crash in processes that were forked after loading"
    return wishes.stated("preload") or Decision(fork_safe, why)


def _supervisor(wishes: ResolvedOptions, project: Project, *, linux: bool) -> Decision[bool]:
    platform, missing = wishes.platform, Decision(False, project.no_supervisor)
    if project.no_supervisor_is_certain:
        return missing
    computed = Decision(True, "prodserve reload serves new code, with the same pid and sockets")
    if not linux:
        computed = Decision(False, "reloading needs Linux: restart to serve new code")
    elif project.no_supervisor:
        computed = missing
    elif wishes.options.reload:
        computed = Decision(True, "--reload needs it")
    elif platform.replaces_instances:
        computed = Decision(False, f"{platform.name} replaces the whole instance to serve new code")
    return wishes.stated("supervisor") or computed


def _warmup(wishes: ResolvedOptions) -> Decision[str]:
    why = "a path that no route has: loads middleware and URLconf, runs no view"
    return wishes.stated("warmup") or Decision("/prodserve-warm-up", why)


def _speedups(wishes: ResolvedOptions, project: Project) -> Decision[bool]:
    stated = wishes.stated("speedups")
    if stated is None:
        return project.speedups
    return replace(project.speedups, source=stated.source) if stated.value else stated


def _hops(wishes: ResolvedOptions) -> Decision[int | None]:
    stated = wishes.stated("trusted_hops")
    if stated is not None:
        return stated
    if "*" in wishes.options.trusted_proxies:
        return Decision(1, "with trust * the client is the right-most entry of X-Forwarded-For")
    return Decision(None, "the client is the right-most entry that is not a trusted proxy")


def _brotli(project: Project) -> Decision[bool]:
    if project.brotli:
        return Decision(True, "static files are compressed with br and gzip")
    return Decision(False, "not installed, so gzip only: pip install 'django-prodserve[brotli]'")
