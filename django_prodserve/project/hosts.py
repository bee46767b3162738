"""Which hosts Django answers for. Lives in the command, before workers are forked. Reads settings alone."""

from __future__ import annotations

from django.conf import settings
from django.http.request import split_domain_port, validate_host

DEVELOPMENT = [".localhost", "127.0.0.1", "[::1]"]
"""What Django allows with DEBUG where ALLOWED_HOSTS is empty."""


def is_allowed(host: str) -> bool:
    """Say whether Django answers a request with this Host header; to others it says 400."""
    allowed = settings.ALLOWED_HOSTS or (DEVELOPMENT if settings.DEBUG else [])
    domain, _ = split_domain_port(host)
    return bool(domain) and validate_host(domain, allowed)
