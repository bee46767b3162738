"""Every number, path and name of an exported file, with its reason. No file takes one elsewhere. Pure.

The numbers follow the plan for the target. So the files of one project agree with each other, and with what
the server decides when it starts there.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..config.options import option_fields
from ..errors import Problem, UsageError
from ..http.limits import DISK_RESERVE
from ..machine.platforms import KILLS_AFTER
from ..plan.warnings import EXIT
from ..utils.decision import Decision
from ..utils.units import MIB, format_duration, format_size
from .build import NO_IMAGE, Build
from .sides import Side, find

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from .site import Site
    from .target import Target

ANSWER = 10  # seconds in which a 504 of the server reaches the proxy, also through a loaded machine
IDLE_SHARE = 0.8  # of 240 POSTs at that moment, over a cable of 20 ms, 0 failed; 24 if the proxy waits longer
DAY = 86_400  # seconds
BODIES = 8  # large uploads at the same time

NOT_COMMAND = {"cpus", "memory", "chdir", "local"}
"""Options that a file expresses in another way than by a flag."""


class Address(NamedTuple):
    """The first address of the server: a path, or a host and a port."""

    path: str
    host: str
    port: int

    @property
    def is_unix(self) -> bool:
        """Whether this is a unix socket."""
        return bool(self.path)

    @property
    def reached(self) -> str:
        """HOST:PORT for a proxy on the same machine."""
        return f"{ {'0.0.0.0': '127.0.0.1', '[::]': '[::1]'}.get(self.host, self.host) }:{self.port}"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The facts of one file."""

    made_by: str
    """The command that writes the same file again."""
    site: Site
    target: Target
    flags: tuple[str, ...]
    """The options that were set for this export, as flags of the server, without its address."""
    bind: tuple[str, ...]
    """The addresses that were set for this export, as flags."""
    has_own_address: bool
    """Whether a flag or the settings set the address."""
    address: Address
    size: tuple[str, ...]
    """CPUs and memory that were set, as flags: for a target that cannot limit them itself."""
    settings: Mapping[str, str]
    """Variables that choose the settings: no secrets."""
    workers: str
    """The processes and threads that the plan has for the size of the target."""
    slots: int
    """How many requests run at a time."""

    timeout: Decision[float]
    proxy_timeout: Decision[int]
    keep_alive: Decision[float]
    proxy_idle: Decision[int]
    drain: Decision[float]
    graceful: Decision[float]
    stop: Decision[int]
    start: Decision[int]
    body: Decision[int]
    """Bytes; 0 for no maximum."""
    spool: Decision[int]
    """Bytes of disk for request bodies."""
    cpus: Decision[float]
    memory: Decision[int]
    live: str
    """Path of the liveness probe; empty if probes are off."""
    ready: str
    certificate: str = ""
    """The certificate and the key that were set for the server, which a proxy uses instead."""
    key: str = ""
    redirect: str = ""
    """The address at which the server redirects plain HTTP; empty if it does not."""
    serves_static: bool = True
    has_own_body: bool = True
    """Whether a flag or the settings set a maximum size of a body."""
    trusts_someone: bool = True
    """Whether a flag, the settings or the platform name the trusted proxies."""
    has_proxy_protocol: bool = False
    """Whether the server expects the PROXY protocol."""
    has_database: bool = True
    build: Build = NO_IMAGE
    """What an image of the project needs."""
    sides: tuple[Side, ...] = ()
    """The processes that the server does not start."""
    kills_after: int = 0
    """The platform's own time after the stop signal, which the file may change."""
    is_stated: frozenset[str] = frozenset()
    """Names of the options that were set for this export."""
    servers: tuple[str, ...] = ()
    """HOST:PORT of each machine, if the file names several."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        site: Site,
        target: Target,
        made_by: str,
        build: Build = NO_IMAGE,
        servers: tuple[str, ...] = (),
    ) -> Facts:
        """Derive everything from a plan for the target."""
        stated = frozenset(stated_options(plan))
        probes = [*plan.health_paths.value, "", ""]
        return cls(
            made_by=made_by,
            site=site,
            target=target,
            flags=tuple(flags_of(plan, stated - {"bind"} - NOT_COMMAND)),
            bind=tuple(flags_of(plan, stated & {"bind"})),
            size=tuple(flags_of(plan, stated & {"cpus", "memory"})),
            has_own_address=not plan.bind.is_computed,
            address=parse_address(plan.bind.value[0], site.directory),
            settings=site.variables,
            workers=f"{plan.workers.value} workers x {plan.threads.value} threads",
            slots=plan.workers.value * plan.threads.value,
            timeout=plan.timeout,
            proxy_timeout=proxy_timeout(plan.timeout.value),
            keep_alive=plan.keep_alive,
            proxy_idle=proxy_idle(plan.keep_alive.value),
            drain=plan.drain_delay,
            graceful=plan.graceful_timeout,
            stop=stop_time(plan.drain_delay.value, plan.graceful_timeout.value),
            start=start_time(plan),
            body=body_size(plan, target),
            spool=spool_size(plan, target),
            cpus=plan.cpus,
            memory=Decision(plan.memory.value or 0, plan.memory.why, plan.memory.source),
            live=probes[0],
            ready=probes[1],
            certificate=next(iter(plan.certfile.value), ""),
            key=next(iter(plan.keyfile.value), ""),
            redirect=plan.redirect_http.value or "",
            serves_static=plan.inputs.options.static,
            has_own_body=plan.max_body.value is not None,
            trusts_someone=plan.trusted_proxies.source != "default",
            has_proxy_protocol=has_proxy_protocol(plan),
            has_database=plan.database.value != "none",
            build=build,
            sides=tuple(find(plan, site, has_manage=build is NO_IMAGE or build.has_manage)),
            kills_after=plan.inputs.platform.kills_after,
            is_stated=stated,
            servers=servers,
        )

    def command(self, *, bind: bool = True, size: bool = False) -> list[str]:
        """Return the words that start the server on a host.

        They always name the address: the server computes another in a container, and a proxy must find it.
        """
        address = self.bind if self.has_own_address else (f"--bind={self.address.reached}",)
        return [*self.site.program, *(address if bind else ()), *self.flags, *(self.size if size else ())]

    @property
    def variables(self) -> Mapping[str, str]:
        """Variables of the server: what chooses the settings, and a changed time after the stop signal."""
        is_longer = 0 < self.kills_after <= self.drain.value + self.graceful.value
        return {**self.settings, **({KILLS_AFTER: str(self.stop.value)} if is_longer else {})}

    @property
    def migrates_before(self) -> bool:
        """Whether the platform must migrate before a deploy, because the server does not."""
        return self.has_database and "migrate" not in self.is_stated

    def refuse_slow_stop(self, platform: str, kills_after: int) -> None:
        """Raise UsageError if the server stops later than the platform kills it, which no file can change."""
        need = self.drain.value + self.graceful.value
        if need >= kills_after:
            room = max(1, kills_after - EXIT - math.ceil(self.drain.value))
            raise UsageError(
                f"{platform} kills {kills_after} s after the stop signal, but drain {self.drain.value:g} s + "
                f"graceful timeout {self.graceful.value:g} s is {need:g} s.",
                f"--graceful-timeout {room}",
                code="conflict",
                topic="export",
            )

    def against_router(self) -> Iterator[Problem]:
        """Yield what contradicts the times of the platform's router, which no file can change."""
        target = self.target
        if self.keep_alive.value < target.router_idle:
            idle = format_duration(target.router_idle)
            yield Problem(
                f"{target.router} keeps idle connections for {idle}, longer than the server: keep-alive "
                f"{self.keep_alive.value:g} s.",
                f"Leave --keep-alive out, or set it above {idle}",
                code="conflict",
                topic="export",
            )
        if 0 < target.router_wait < self.timeout.value:
            yield Problem(
                f"{target.router} gives up after {target.router_wait} s, before the server's timeout of "
                f"{self.timeout.value:g} s.",
                f"Leave --timeout out, or set it to {target.router_wait}",
                code="conflict",
                topic="export",
            )

    def refuse_router(self) -> None:
        """Raise UsageError for options that contradict the platform's router."""
        if problems := [*self.against_router()]:
            raise UsageError.of(problems)


def has_proxy_protocol(plan: Plan) -> bool:
    """Return whether the server expects the PROXY protocol of its proxy."""
    setting = plan.gunicorn.get("proxy_protocol")
    return setting is not None and setting.value not in (None, False, "off")


def stated_options(plan: Plan) -> Iterator[str]:
    """Yield the names of the options that flags or variables of this command set.

    The settings hold at the target too, and so do its platform's rules: neither is repeated in a file.
    """
    for name, source in plan.inputs.options.sources.items():
        if source.startswith(("-", "PRODSERVE_")):
            yield name


def flags_of(plan: Plan, names: frozenset[str]) -> Iterator[str]:
    """Yield ``--name=value`` for each of these options, in the order of the reference."""
    for row in option_fields():
        value = getattr(plan.inputs.options, row.name)
        if row.name not in names or value is None:
            continue
        if row.kind.is_switch:
            yield row.flag if value else row.flag.replace("--", "--no-", 1)
        elif row.kind.is_repeated:
            yield from (f"{row.flag}={part}" for part in value)
        else:
            yield f"{row.flag}={row.typed(value)}"


def parse_address(text: str, directory: str) -> Address:
    """Return the address that an option names; raise UsageError for a descriptor of another process."""
    if text.startswith("fd://"):
        raise UsageError(
            f"{text} is a descriptor of the process that starts the server: a file cannot name it.",
            "Give the address itself, such as --bind 127.0.0.1:8000; for a socket unit: systemd-socket",
            topic="export",
        )
    if text.startswith("unix:"):
        return Address(os.path.join(directory, text.removeprefix("unix:")), "", 0)
    host, _, port = text.rpartition(":")
    return Address("", host, int(port))


def proxy_timeout(timeout: float) -> Decision[int]:
    """Return how long a proxy waits for a response: longer than the server's own limit."""
    if not timeout:
        return Decision(DAY, "the server has no request timeout, so the proxy waits for a day")
    why = f"request timeout {timeout:g} s + {ANSWER} s: the server's 504 and its log line come first"
    return Decision(math.ceil(timeout) + ANSWER, why)


def proxy_idle(keep_alive: float) -> Decision[int]:
    """Return how long a proxy may keep an idle connection; 0 for no reuse."""
    idle = math.floor(keep_alive * IDLE_SHARE)
    why = (
        f"{IDLE_SHARE:g} of the server's keep-alive of {keep_alive:g} s: the proxy closes an idle connection "
        "first, so that no request meets one that the server closes"
    )
    return Decision(idle, why if idle else "the server's keep-alive is too short to reuse a connection")


def stop_time(drain: float, graceful: float) -> Decision[int]:
    """Return the time after which a supervisor may kill: later than the server ends by itself."""
    why = f"drain {drain:g} s + graceful timeout {graceful:g} s + {EXIT} s to exit"
    return Decision(math.ceil(drain + graceful) + EXIT, why)


def start_time(plan: Plan) -> Decision[int]:
    """Return the time that a start may take."""
    wait = math.ceil(plan.wait_for_db.value)
    if plan.migrate.value:
        # Servers that start together wait up to ten minutes for the one that migrates (startup/locks.py).
        return Decision(900 + wait, "--migrate: another server may hold the lock for ten minutes")
    why = "loading, static files and the test request; seconds for most projects"
    return Decision(120 + wait, f"{why}; + {wait} s of --wait-for-db" if wait else why)


def body_size(plan: Plan, target: Target) -> Decision[int]:
    """Return the maximum size of a request body. A container always has one: bodies need its disk."""
    if plan.max_body.value is not None:
        return Decision(plan.max_body.value, f"--max-body {format_size(plan.max_body.value)}")
    if target.is_container:
        return Decision(target.body, f"{target.body_why}; --max-body changes it")
    return Decision(0, "no maximum here: the server's --max-body and Django's limits decide")


def spool_size(plan: Plan, target: Target) -> Decision[int]:
    """Return the disk that request bodies need."""
    body = body_size(plan, target).value or target.body
    size = math.ceil((DISK_RESERVE + BODIES * body) / (256 * MIB)) * 256 * MIB
    kept = format_size(DISK_RESERVE)
    why = f"{BODIES} bodies of {format_size(body)}, and {kept} that the server keeps free"
    return Decision(size, why)
