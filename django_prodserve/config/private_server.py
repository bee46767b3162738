"""The private server of ``prodserve tune``: the project's own options, except what others would notice.

Runs in the command that serves. A variable, which ``tune`` alone sets for the process that it starts, has the
address. No option of the operator can set these values for a server that clients reach.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from .options import Options
from .parsers import ThreadRange

VARIABLE = "_PRODSERVE_TUNE"
SOURCE = "prodserve tune"
SECONDS_TO_STOP = 2.0
NOT_PASSED = ("pidfile", "proxy_protocol", "proxy_allow_ips", "statsd_host", "dogstatsd_tags", "errorlog")
"""Gunicorn settings that concern the operator's own server."""


@dataclass(frozen=True, kw_only=True)
class PrivateServer:
    """What differs from the server that the operator starts."""

    bind: str
    queries: str
    """Directory in which each worker counts its database queries."""
    profile: str = ""
    threads: tuple[int, int] | None = None
    memory: int | None = None
    """Memory to plan for, without that of processes alongside the workers, which do not start."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> PrivateServer | None:
        """Return it if ``tune`` has started this process."""
        text = environ.get(VARIABLE)
        return cls(**json.loads(text)) if text else None

    def as_variable(self) -> dict[str, str]:
        """Return the environment for the process that serves."""
        return {VARIABLE: json.dumps(asdict(self))}

    def options(self, asked: Options) -> Options:
        """Return the operator's options with a private address and without any effect outside.

        No log, TLS, redirect, management address, process, migration or pid file. Its one client is trusted,
        so that its requests may claim to be https.
        """
        ours: dict[str, object] = {
            "bind": (self.bind,),
            "local": False,  # its settings are applied by then
            "supervisor": False,
            "reload": False,
            "trusted_proxies": ("loopback",),
            "trusted_hops": None,
            "client_address_header": "X-Forwarded-For",
            "access_log": None,
            "log_format": "text",
            "management_bind": None,
            "redirect_http": None,
            "acme_webroot": None,
            "certfile": (),
            "keyfile": (),
            "migrate": False,
            "collectstatic": False,
            "side_processes": (),
            "graceful_timeout": SECONDS_TO_STOP,
            "drain_delay": 0.0,
        }
        if self.profile:
            ours["profile"] = self.profile
        if self.threads:
            ours["threads"] = ThreadRange(*self.threads)
        if self.memory is not None:
            ours["memory"] = self.memory
        kept = {name: value for name, value in asked.gunicorn.items() if name not in NOT_PASSED}
        sources = {**asked.sources, **dict.fromkeys(ours, SOURCE)}
        return replace(asked, **ours, gunicorn=kept, sources=sources)  # type: ignore[arg-type]
