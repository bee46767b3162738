"""Plan -> Gunicorn's settings. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..config.options import option_fields
from ..config.trust import parse_trust

if TYPE_CHECKING:
    from .plan import Plan

# What our layers decide: Gunicorn must not believe a peer before them (see middleware/proxy_headers.py).
DECIDED_BY_LAYERS: dict[str, Any] = {
    "forwarded_allow_ips": "",
    "secure_scheme_headers": {},
    "forwarder_headers": "",
}

HEARTBEAT = 20
"""Seconds without a turn of a worker's event loop after which it is replaced: it serves nobody meanwhile."""


def gunicorn_settings(plan: Plan) -> dict[str, Any]:
    """Return every setting that differs from Gunicorn's defaults, but for the hooks of ours."""
    settings = {name: _as_gunicorn(value) for name, value in _from_rows(plan)}
    settings |= DECIDED_BY_LAYERS
    if plan.worker_class.value == "prodserve":
        settings["worker_class"] = "django_prodserve.worker.ProdserveWorker"
    kind = "StatsdLogger" if "statsd_host" in plan.gunicorn else "Logger"
    settings["logger_class"] = f"django_prodserve.logs.gunicorn_logger.{kind}"
    settings["proc_name"] = f"prodserve {plan.settings.value}"
    # With threads the heartbeat only tells that Python runs; sync has nothing else to end a request with.
    settings["timeout"] = math.ceil(plan.timeout.value) if plan.worker_class.value == "sync" else HEARTBEAT
    # Its default place fails in containers without HOME, and a second server would steal it.
    settings["control_socket_disable"] = True
    if not plan.preload.value:
        del settings["preload_app"]
    passed = {name: sourced.value for name, sourced in plan.gunicorn.items()}
    if passed.keys() & {"secure_scheme_headers", "forwarder_headers"}:
        # Who names headers of their own wants Gunicorn to read them from the same peers.
        trust = parse_trust(plan.trusted_proxies.value)
        settings["forwarded_allow_ips"] = "*" if trust.everyone else ",".join(map(str, trust.networks))
    return settings | passed


def _from_rows(plan: Plan) -> Iterator[tuple[str, Any]]:
    """Yield Gunicorn's name and the decided value of every option that is a Gunicorn setting."""
    for row in option_fields():
        name = row.gunicorn
        if name and name not in {*DECIDED_BY_LAYERS, "config", "chdir"}:
            value = getattr(plan, row.name).value
            if value is not None:
                yield name, value


def _as_gunicorn(value: Any) -> Any:
    """Gunicorn counts whole seconds; a part of one is rounded up. Lists are lists there."""
    if isinstance(value, float):
        return math.ceil(value)
    return list(value) if isinstance(value, tuple) else value
