"""The hosts that Django accepts. Runs in the command, and in workers for plain HTTP. Reads settings alone."""

from __future__ import annotations

from django.conf import settings
from django.http.request import split_domain_port, validate_host

DEVELOPMENT = [".localhost", "127.0.0.1", "[::1]"]
"""The hosts that Django allows with DEBUG if ALLOWED_HOSTS is empty."""


def is_allowed(host: str) -> bool:
    """Return whether Django accepts a request with this Host header; it answers others with 400."""
    allowed = settings.ALLOWED_HOSTS or (DEVELOPMENT if settings.DEBUG else [])
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)


def first_allowed() -> str:
    """Return a host that Django accepts, for requests of this server to itself."""
    return next(filter(is_allowed, (host.lstrip(".") for host in settings.ALLOWED_HOSTS)), "localhost")


def port_of(host: str) -> str:
    """Return the port in a Host header that Django accepts; empty if there is none."""
    return split_domain_port(host)[1]
