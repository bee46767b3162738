"""``--local``: try a project on this machine before its settings are ready for production.

Runs in the command, right after django.setup(): before any check, template engine or URLconf exists, because
those remember DEBUG.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from django.conf import settings

from ..config.parsers import LOOPBACK
from ..errors import UsageError

if TYPE_CHECKING:
    from ..config.options import Options
    from ..machine.platforms import Platform

HOSTS = ["localhost", ".localhost", "127.0.0.1", "[::1]"]

# Cookies, redirects and headers that require https would make http://localhost unusable.
CHANGES: dict[str, Any] = {
    "DEBUG": False,
    "ALLOWED_HOSTS": HOSTS,
    "SECURE_SSL_REDIRECT": False,
    "SECURE_HSTS_SECONDS": 0,
    "SESSION_COOKIE_SECURE": False,
    "CSRF_COOKIE_SECURE": False,
}


def refuse_in_public(options: Options, platform: Platform) -> None:
    """Raise UsageError if other machines could reach a server that is meant for its owner."""
    said = options.source("local")
    if platform.name not in {"", "systemd"}:
        raise UsageError(
            f"{said} is for trying a project on your own machine; this is {platform.name}, because "
            f"{platform.marker} is set.",
            "Remove it, and correct the settings: prodserve check lists what is missing.",
            code="local-only",
            topic="local",
        )
    stated = [("bind", address) for address in options.bind or ()]
    for name, address in (*stated, ("management_bind", options.management_bind or ":")):
        if not address.startswith((*LOOPBACK, ":")):
            raise UsageError(
                f"{said} serves this machine only, but {options.source(name)} asks for {address}.",
                "Remove one of them.",
                code="local-only",
                topic="local",
            )


def apply() -> tuple[str, ...]:
    """Change the loaded settings for local use, and return the lines that production needs, for printing."""
    lines = list(_needed())
    for name, value in CHANGES.items():
        setattr(settings, name, value)
    told = "--local: this machine only, DEBUG off, localhost allowed, http without redirects"
    if not lines:
        return (told,)
    return (
        "\n    ".join((f"{told}. For production, in the settings:", *lines)),
        "settings computed from DEBUG, such as EMAIL_BACKEND, keep their development values",
    )


def _needed() -> Iterator[str]:
    """Yield the lines that the settings lack for production."""
    if settings.DEBUG:
        yield "DEBUG = False"
    if not settings.ALLOWED_HOSTS:
        yield 'ALLOWED_HOSTS = ["shop.example"]'
    if str(settings.SECRET_KEY).startswith("django-insecure-"):
        yield 'SECRET_KEY = os.environ["SECRET_KEY"]'
