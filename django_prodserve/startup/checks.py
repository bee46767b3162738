"""Problems that production will expose, as Django system checks with ids and hints. Data first, then rules.

They run before serving, for ``prodserve check``, and under ``manage.py check --deploy``. An error prevents
serving, and with ``--strict`` a warning does, too. ``SILENCED_SYSTEM_CHECKS`` silences each of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from django.core.checks import CheckMessage, Error, Warning, register

from ..errors import Problem, ProdserveError, UsageError
from ..plan.sizing import DatabaseLimit
from ..project.databases import DatabaseProbe, probe_all
from ..project.dotted_paths import BrokenPath, broken_paths
from ..utils.units import counted
from . import async_checks, certificate_checks

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..project.async_facts import AsyncFacts
    from ..project.detect import Database, Project
    from ..tls.expiry import Expiry

DEBUG_ON = Error(
    "DEBUG is on: visitors would see settings and source code, and memory would grow with every query.",
    hint="In the settings: DEBUG = False. To try this project here: prodserve --local",
    id="prodserve.E001",
)
NO_HOSTS = Error(
    "ALLOWED_HOSTS is empty: every request would be answered with 400.",
    hint='In the settings: ALLOWED_HOSTS = ["shop.example"]. To try this project here: prodserve --local',
    id="prodserve.E002",
)


@dataclass(frozen=True, kw_only=True)
class CheckContext:
    """The facts that the rules read."""

    plan: Plan
    project: Project
    probes: tuple[DatabaseProbe, ...] = ()
    user_id: int = 0
    somaxconn: int | None = None
    allow_debug: bool = False
    broken_paths: tuple[BrokenPath, ...] = ()
    certificates: tuple[Expiry, ...] = ()
    loaded: AsyncFacts | None = None
    """The facts of a loaded project; None before, and where no view runs on the asyncio loop."""

    @property
    def several(self) -> bool:
        """Whether more than one process serves."""
        return self.plan.workers.value > 1

    @property
    def slots(self) -> int:
        """The number of requests that run at the same time."""
        return self.plan.workers.value * self.plan.threads.value

    @property
    def proxied(self) -> bool:
        """Whether a proxy on another machine is trusted."""
        return is_proxied(self.plan)

    @property
    def public(self) -> bool:
        """Whether the operator set an address that other machines can reach."""
        return not self.plan.bind.is_computed and any(map(_is_public, self.plan.bind.value))


def is_proxied(plan: Plan) -> bool:
    """Return whether a proxy on another machine is trusted."""
    return bool(set(plan.trusted_proxies.value) - {"loopback", "unix", "none"})


Rule = Callable[[CheckContext], Iterator[CheckMessage]]


def _is_public(address: str) -> bool:
    local = ("127.", "localhost:", "[::1]", "unix:", "fd://")
    return not address.startswith(local)


def run_rules(seen: CheckContext) -> list[CheckMessage]:
    """Return every message that applies and is not silenced."""
    return [message for rule in RULES for message in rule(seen) if not message.is_silenced()]


def _debug(seen: CheckContext) -> Iterator[CheckMessage]:
    if seen.project.debug and not seen.allow_debug:
        yield DEBUG_ON


def _hosts(seen: CheckContext) -> Iterator[CheckMessage]:
    # With DEBUG Django allows localhost; without it, which is the next step, it allows no host.
    if not seen.project.allowed_hosts and not (seen.project.debug and seen.allow_debug):
        yield NO_HOSTS


def _host_names(seen: CheckContext) -> Iterator[CheckMessage]:
    for entry in seen.project.allowed_hosts:
        host = _host_of(entry)
        if host != entry:
            yield Warning(
                f"ALLOWED_HOSTS holds {entry!r}, which no request matches: an entry is a host name without "
                "scheme, port or path.",
                hint=f"In ALLOWED_HOSTS: {host!r}" if host else "Write the host name alone",
                id="prodserve.W022",
            )


def _host_of(entry: str) -> str:
    """Return the host in an entry that may be a URL; the entry itself if it is a host."""
    host = entry.rpartition("://")[2].partition("/")[0].rpartition("@")[2]
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host if host.count(":") > 1 else host.partition(":")[0]


PATH_IDS = {
    "ROOT_URLCONF": "E005",
    "WSGI_APPLICATION": "E006",
    "MIDDLEWARE": "E007",
    "READINESS_CHECKS": "E008",
    "TEMPLATES": "E009",
    "ASGI_APPLICATION": "E010",
}


def _dotted_paths(seen: CheckContext) -> Iterator[CheckMessage]:
    for broken_path in seen.broken_paths:
        name, holds, place = broken_path.setting, "is", f"{broken_path.setting} in the settings"
        if name == "ASGI_APPLICATION" and seen.plan.asgi.value == "off":
            continue
        if name == "READINESS_CHECKS":
            name = place = seen.plan.readiness_checks.source
        if broken_path.setting not in ("ROOT_URLCONF", "WSGI_APPLICATION", "ASGI_APPLICATION"):
            holds = "holds"
        yield Error(
            f"{name} {holds} {broken_path.path!r}, but {broken_path.problem}.",
            hint=f"Did you mean {broken_path.guess!r}?" if broken_path.guess else f"Correct {place}",
            id=f"prodserve.{PATH_IDS[broken_path.setting]}",
        )


def _sqlite(seen: CheckContext) -> Iterator[CheckMessage]:
    for database in seen.project.databases:
        if database.deferred and seen.slots > 1:
            yield Warning(
                f"Database {database.alias!r}: SQLite with deferred transactions fails with 'database is "
                "locked' when two requests write at the same time.",
                hint=f'DATABASES["{database.alias}"]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE", '
                '"timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}',
                id="prodserve.W001",
            )


def _memory(seen: CheckContext) -> Iterator[CheckMessage]:
    if not seen.several:
        return
    workers = f"each of the {seen.plan.workers.value} workers has its own"
    for alias in seen.project.local_caches:
        yield Warning(
            f"Cache {alias!r} is in the memory of one process; {workers}.",
            hint="Use Redis, Memcached, the database or files as BACKEND, or --workers 1",
            id="prodserve.W002",
        )
    if seen.project.local_sessions:
        yield Warning(
            f"Sessions are in the memory of one process; {workers}, so users are logged out at random.",
            hint='SESSION_ENGINE = "django.contrib.sessions.backends.db"',
            id="prodserve.W003",
        )
    if seen.project.local_channels:
        yield Warning(
            f"CHANNEL_LAYERS uses InMemoryChannelLayer; {workers}, so messages get lost.",
            hint='"BACKEND": "channels_redis.core.RedisChannelLayer"',
            id="prodserve.W004",
        )


def _proxy(seen: CheckContext) -> Iterator[CheckMessage]:
    tls = bool(seen.plan.certfile.value)
    elsewhere = any(map(_is_public, seen.plan.bind.value))
    if seen.project.ssl_redirect and not tls and elsewhere and not seen.proxied:
        yield Warning(
            "SECURE_SSL_REDIRECT is on, but no proxy on another machine is trusted: behind a TLS proxy "
            "every request redirects to itself.",
            hint="Trust the proxy: --trusted-proxies private, or its address",
            id="prodserve.W005",
        )
    everyone = "*" in seen.plan.trusted_proxies.value
    if everyone and seen.public and seen.plan.platform.value == "none":
        yield Warning(
            f"Every peer is trusted (*) on {', '.join(seen.plan.bind.value)}: any client can forge its "
            "IP address.",
            hint="Name the proxy: --trusted-proxies 10.0.0.5, or listen on 127.0.0.1",
            id="prodserve.W006",
        )
    if seen.public and not tls and not seen.proxied and seen.plan.bind.source != "PORT":
        yield Warning(
            f"{', '.join(seen.plan.bind.value)} is public, without TLS and without a trusted proxy: "
            "traffic is not encrypted.",
            hint="Use --certfile and --keyfile, or a proxy: --bind 127.0.0.1:8000 or --trusted-proxies",
            id="prodserve.W007",
        )


def _answers(seen: CheckContext) -> Iterator[CheckMessage]:
    for answer in seen.probes:
        if answer.error:
            yield Warning(
                f"Database {answer.alias!r} does not answer: {answer.error}",
                hint=answer.fix or "Start it, or correct DATABASES. Pages that need it fail until then",
                id="prodserve.W016",
            )
        if answer.pending:
            yield Warning(
                f"Database {answer.alias!r} has unapplied migrations: {answer.pending}.",
                hint="Run manage.py migrate, or start with prodserve --migrate",
                id="prodserve.W008",
            )


def _connections(seen: CheckContext) -> Iterator[CheckMessage]:
    costs = {answer.alias: answer for answer in seen.probes if not answer.error}
    servers = [database for database in seen.project.databases if database.counts]
    for database in servers:
        yield from _persistence(seen, database, costs.get(database.alias))
        limit = costs[database.alias].max_connections if database.alias in costs else None
        most = _most_connections(seen, database)
        if limit is not None and most > limit:
            yield Warning(
                f"Database {database.alias!r} allows {limit} connections; this server may open {most}.",
                hint=f"Set --db-connections {limit // 2}: it leaves the rest to deploys and other services",
                id="prodserve.W012",
            )


def database_limit(probes: Sequence[DatabaseProbe], project: Project) -> DatabaseLimit | None:
    """Return the limit of the database that allows the fewest connections; None if it is not known.

    A database that does not answer may allow few: then no limit is known.
    """
    pooled = {database.alias for database in project.databases if database.pool_size}
    asked = [probe for probe in probes if probe.alias not in pooled]
    found = [
        DatabaseLimit(probe.alias, probe.max_connections, probe.used)
        for probe in asked
        if probe.max_connections is not None
    ]
    is_known = not any(probe.error for probe in asked)
    return min(found, key=lambda limit: limit.room, default=None) if is_known else None


def _most_connections(seen: CheckContext, database: Database) -> int:
    if database.pool_size is None:
        return seen.plan.connections
    return min(seen.plan.connections, seen.plan.workers.value * database.pool_size)


def _kept(plan: Plan) -> int:
    """Return how many connections CONN_MAX_AGE would keep; our thread that waits for clients has one, too."""
    own = plan.worker_class.value == "prodserve"
    return plan.workers.value * (plan.max_threads.value + plan.leases.value + own)


def _persistence(
    seen: CheckContext, database: Database, answer: DatabaseProbe | None
) -> Iterator[CheckMessage]:
    entry = f'DATABASES["{database.alias}"]'
    threads = seen.plan.max_threads.value + seen.plan.leases.value
    if database.pool_size is not None:
        if database.pool_size < threads:
            yield Warning(
                f"Database {database.alias!r}: the pool holds {database.pool_size} connections for {threads} "
                "threads: requests wait for one, then fail.",
                hint=f'{entry}["OPTIONS"]["pool"] = {{"min_size": 1, "max_size": {threads}}}',
                id="prodserve.W011",
            )
    elif database.max_age == 0 and database.vendor == "postgresql":
        cost = f" ({answer.seconds * 1000:.0f} ms here)" if answer else ""
        yield Warning(
            f"Database {database.alias!r} gets a new connection for every request{cost}.",
            hint=f'{entry} |= {{"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}}, which keeps up to '
            f"{_kept(seen.plan)} connections open",
            id="prodserve.W010",
        )
    elif database.max_age != 0 and not database.health_checks:
        yield Warning(
            f"Database {database.alias!r} keeps connections open without health checks: after a restart of "
            "the database, the first request on each one fails.",
            hint=f'{entry}["CONN_HEALTH_CHECKS"] = True',
            id="prodserve.W009",
        )


def _machine(seen: CheckContext) -> Iterator[CheckMessage]:
    if seen.user_id == 0:
        yield Warning(
            "The server runs as root: a bug in the project can compromise the whole machine.",
            hint="Start it as an unprivileged user; for a port below 1024, put a proxy in front",
            id="prodserve.W013",
        )
    backlog = seen.plan.backlog
    if seen.somaxconn is not None and backlog.value > seen.somaxconn and backlog.source != "default":
        yield Warning(
            f"--backlog {backlog.value} exceeds net.core.somaxconn: the kernel uses {seen.somaxconn}.",
            hint=f"sysctl net.core.somaxconn={backlog.value}, or a smaller --backlog",
            id="prodserve.W014",
        )
    if seen.project.prodserver:
        yield Warning(
            "django-prodserver is installed too; its commands are called prodserver and server.",
            hint='Remove "django_prodserver" from INSTALLED_APPS, unless both are wanted',
            id="prodserve.W015",
        )
    if seen.project.daphne:
        yield Warning(
            "daphne is in INSTALLED_APPS: it only replaces runserver, and loads Twisted, 23 MiB that "
            "prodserve does not use.",
            hint='Remove "daphne" from INSTALLED_APPS in the settings of production',
            id="prodserve.W026",
        )


def _static(seen: CheckContext) -> Iterator[CheckMessage]:
    choice = seen.plan.static_choice
    if choice.elsewhere and not seen.plan.collectstatic.value:
        yield Warning(
            f"STATIC_URL is on another host, {choice.elsewhere}, and STATIC_ROOT is empty: pages link to "
            "files there that were not collected.",
            hint=f"Run manage.py collectstatic and put STATIC_ROOT on {choice.elsewhere}. It fetches "
            f'{choice.url} from this server: SILENCED_SYSTEM_CHECKS = ["prodserve.W021"]. If another '
            "service uploads them: --no-static",
            id="prodserve.W021",
        )


def _certificates(seen: CheckContext) -> Iterator[CheckMessage]:
    yield from certificate_checks.run(seen.certificates)


def _async(seen: CheckContext) -> Iterator[CheckMessage]:
    if seen.loaded is not None:
        yield from async_checks.run(seen.plan, seen.loaded)


RULES: tuple[Rule, ...] = (
    *(_debug, _hosts, _host_names, _dotted_paths, _sqlite, _memory, _proxy),
    *(_answers, _connections, _machine, _static, _certificates, _async),
)


def raise_on_errors(plan: Plan, project: Project) -> None:
    """Raise ProdserveError if the server must not serve; queries no database, none is prepared yet."""
    seen = CheckContext(
        plan=plan,
        project=project,
        allow_debug=plan.allow_debug.value,
        broken_paths=tuple(broken_paths(plan.readiness_checks.value)),
    )
    errors = [message for message in run_rules(seen) if message.is_serious()]
    if errors:
        typed = all(message.id == f"prodserve.{PATH_IDS['READINESS_CHECKS']}" for message in errors)
        raise (UsageError if typed else ProdserveError).of(map(_problem, errors))


class Checks(NamedTuple):
    """The checks of a start, in their order; all raise on errors. The first and the last return warnings."""

    settings: Callable[[Plan], tuple[Plan, list[Problem]]] = lambda plan: (plan, [])
    """Of settings, machine and databases; what databases allow decides the number of threads."""
    project: Callable[[], None] = lambda: None
    """Django's own."""
    loaded: Callable[[Plan], list[Problem]] = lambda plan: []
    """Of a project that is loaded and has an asyncio loop."""


class Preflight:
    """The checks of one start, in two parts: of settings and databases, and of the loaded project."""

    def __init__(self, plan: Plan, project: Project) -> None:
        self._plan, self._project = plan, project
        self._seen: CheckContext | None = None
        self._told: set[str | None] = set()

    def settings(self, plan: Plan) -> tuple[Plan, list[Problem]]:
        """Return the plan for what the databases allow, and the warnings; raise ProdserveError if there are
        any and --strict is on.

        ``raise_on_errors`` has looked for errors before.
        """
        self._seen = seen = build_context(plan, self._project, allow_debug=plan.allow_debug.value)
        return seen.plan, self._warnings(seen)

    def loaded(self, plan: Plan) -> list[Problem]:
        """Return the warnings that only a loaded project with an asyncio loop has; raise like ``settings``.

        Its plan may open more connections than the one that ``settings`` has seen.
        """
        seen = self._seen or build_context(plan, self._project, allow_debug=plan.allow_debug.value)
        return self._warnings(_with_loaded(replace(seen, plan=plan)))

    def _warnings(self, seen: CheckContext) -> list[Problem]:
        found = [each for each in run_rules(seen) if not each.is_serious() and each.id not in self._told]
        self._told.update(each.id for each in found)
        warnings = [_problem(message) for message in found]
        if warnings and seen.plan.strict.value:
            count = counted(len(warnings), "warning")
            first = Problem(
                f"{count}, and {seen.plan.strict.source} refuses to serve with warnings.",
                "Do what each of them recommends, silence it, or remove --strict.",
                topic="strict",
            )
            raise ProdserveError.of([first, *warnings])
        return warnings


def _with_loaded(seen: CheckContext) -> CheckContext:
    """Add the facts of the loaded project, if that has a loop."""
    if not seen.plan.has_loop:
        return seen
    from ..project.async_facts import AsyncFacts  # late: every command of Django imports this module

    return replace(seen, loaded=AsyncFacts.read())


def _problem(message: CheckMessage) -> Problem:
    check = str(message.id)
    code = check.removeprefix("prodserve.")
    return Problem(str(message.msg), str(message.hint or ""), code=code, check=check)


def build_context(
    plan: Plan, project: Project, *, allow_debug: bool = False, paths: Iterable[BrokenPath] = ()
) -> CheckContext:
    """Collect the facts for the rules in addition to plan and project: one short connection per database.

    What the databases allow decides how many threads the plan has.
    """
    probes = probe_all()
    return CheckContext(
        plan=plan.with_db_limit(database_limit(probes, project)),
        project=project,
        probes=probes,
        user_id=os.geteuid(),
        somaxconn=_somaxconn(),
        allow_debug=allow_debug,
        broken_paths=tuple(paths),
        certificates=tuple(certificate_checks.read_expiries(plan.certificates)),
    )


def _somaxconn() -> int | None:
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


@register("prodserve", deploy=True)
def check_deployment(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Run the same rules under ``manage.py check --deploy``, for the plan without command-line flags."""
    from ..plan.pipeline import inspect_now, with_road_table

    try:
        plan, project = inspect_now({})
        plan = with_road_table(plan)
    except ProdserveError as error:
        return [Error(str(error), hint="prodserve plan shows the same error", id="prodserve.E004")]
    seen = build_context(plan, project, paths=broken_paths(plan.readiness_checks.value))
    return run_rules(_with_loaded(seen))
