"""Problems of async views that production will expose: rules for what is known once the project is loaded.

checks.py runs them behind its own rules. Each names what costs or fails on the asyncio loop, and the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from django.core.checks import CheckMessage, Warning

from ..utils.units import counted

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..project.async_facts import AsyncFacts

WHITENOISE = "whitenoise.middleware.WhiteNoiseMiddleware"
"""A middleware that prodserve replaces by one that can be async, if it serves the static files."""


def run(plan: Plan, facts: AsyncFacts) -> Iterator[CheckMessage]:
    """Yield what applies to a project with async views or websockets."""
    takes_all = plan.is_asgi_class or plan.asgi.value == "asgi"
    if takes_all or (plan.leases.value and facts.async_views):
        yield from _middleware(plan, facts)
        yield from _transactions(facts)
        yield from _receivers(facts, has_environs=not takes_all)
    if facts.foreign and (plan.asgi.value == "asgi" or plan.asgi.source == "default"):
        yield from _connections(plan, facts)
    yield from _origin(facts)


def _middleware(plan: Plan, facts: AsyncFacts) -> Iterator[CheckMessage]:
    replaced = {WHITENOISE} if plan.static.value not in ("off", "project") else set()
    found = [path for path in facts.sync_only if path not in replaced]
    if found:
        yield Warning(
            f"Middleware that cannot be async ({', '.join(found)}): each async request holds a thread for "
            "its whole view, and takes about twice the CPU.",
            hint="Use a version that is async_capable, or write it with Django's MiddlewareMixin or "
            "sync_and_async_middleware",
            id="prodserve.W023",
        )


def _transactions(facts: AsyncFacts) -> Iterator[CheckMessage]:
    if facts.atomic:
        count = counted(len(facts.atomic), "async view")
        yield Warning(
            f"ATOMIC_REQUESTS is on for database {facts.atomic_alias!r}: Django fails each request of "
            f"{count}, for example {facts.atomic[0]}.",
            hint="Decorate the view with @transaction.non_atomic_requests, and call code that needs a "
            "transaction through sync_to_async",
            id="prodserve.W024",
        )


def _connections(plan: Plan, facts: AsyncFacts) -> Iterator[CheckMessage]:
    for database in plan.inputs.project.databases:
        if database.keeps_connections:
            entry = f'DATABASES["{database.alias}"]'
            yield Warning(
                f"Database {database.alias!r} keeps its connections, but in {facts.foreign} each request has "
                "threads of its own: no other request uses its connection, which stays open.",
                hint=f'{entry}["CONN_MAX_AGE"] = 0, or with PostgreSQL {entry}["OPTIONS"] = {{"pool": True}}',
                id="prodserve.W028",
            )


def _receivers(facts: AsyncFacts, *, has_environs: bool) -> Iterator[CheckMessage]:
    for found in facts.receivers:
        if found.parameter == "scope" and not has_environs:
            continue  # every request sends it
        lacks = "requests of sync views" if found.parameter == "scope" else "requests of async views"
        result = "each of them fails" if found.is_required else "it learns nothing about them"
        yield Warning(
            f"{found.name} receives request_started with {found.parameter!r}, which {lacks} do not send: "
            f"{result}.",
            hint="def receiver(sender, environ=None, scope=None, **kwargs), and read the one that is set",
            id="prodserve.W025",
        )


def _origin(facts: AsyncFacts) -> Iterator[CheckMessage]:
    if facts.open_sockets:
        yield Warning(
            f"{facts.open_sockets} opens websockets for pages of any site: nobody checks the Origin header, "
            "and a browser sends the visitor's cookies.",
            hint='"websocket": AllowedHostsOriginValidator(...), from channels.security.websocket',
            id="prodserve.W027",
        )
