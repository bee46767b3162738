"""Plan -> Gunicorn's settings. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..config.kinds import FILES
from ..config.options import option_fields
from ..config.trust import parse_trust
from .worker_classes import IMPORTED

if TYPE_CHECKING:
    from .plan import Plan

# Our middleware decides these: Gunicorn must not trust a peer before it (see middleware/proxy_headers.py).
DECIDED_BY_LAYERS: dict[str, Any] = {
    "forwarded_allow_ips": "",
    "secure_scheme_headers": {},
    "forwarder_headers": "",
}

HEARTBEAT = 20
"""Seconds without an iteration of a worker's event loop before the arbiter replaces it as unresponsive."""


def gunicorn_settings(plan: Plan) -> dict[str, Any]:
    """Return every setting that differs from Gunicorn's defaults, except prodserve's own hooks."""
    settings = {name: _as_gunicorn(value) for name, value in _from_rows(plan)}
    settings |= DECIDED_BY_LAYERS
    settings["worker_class"] = IMPORTED.get(plan.worker_class.value, plan.worker_class.value)
    if plan.worker_class.value == "asgi":
        # gunicorn_h1c 0.6.10 closes keep-alive connections after bodies of 64 KiB (measured: 15 to 78 %).
        settings["http_parser"] = "python"
    kind = "StatsdLogger" if "statsd_host" in plan.gunicorn else "Logger"
    settings["logger_class"] = f"django_prodserve.logs.gunicorn_logger.{kind}"
    settings["proc_name"] = f"prodserve {plan.settings.value}"
    # With threads the heartbeat only proves that Python runs; sync has no other way to end a request.
    settings["timeout"] = math.ceil(plan.timeout.value) if plan.worker_class.value == "sync" else HEARTBEAT
    # Its default path fails in containers without HOME, and a second server would overwrite it.
    settings["control_socket_disable"] = True
    if not plan.preload.value:
        del settings["preload_app"]
    passed = {name: sourced.value for name, sourced in plan.gunicorn.items()}
    if passed.keys() & {"secure_scheme_headers", "forwarder_headers"}:
        # An operator who names extra headers wants Gunicorn to read them from the same peers.
        trust = parse_trust(plan.trusted_proxies.value)
        settings["forwarded_allow_ips"] = "*" if trust.everyone else ",".join(map(str, trust.networks))
    return settings | passed


def _from_rows(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Yield Gunicorn's name and the decided value of every option that is a Gunicorn setting."""
    for row in option_fields():
        name = row.gunicorn
        if name and name not in {*DECIDED_BY_LAYERS, "config", "chdir"}:
            value = getattr(plan, row.name).value
            if row.kind is FILES:
                value = next(iter(value), None)  # Gunicorn has one certificate
            if value is not None:
                yield name, value


def _as_gunicorn(value: Any) -> Any:
    """Return a value as Gunicorn expects it: whole seconds, fractions rounded up; lists for tuples."""
    if isinstance(value, float):
        return math.ceil(value)
    return list(value) if isinstance(value, tuple) else value
