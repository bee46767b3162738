"""The effect of SecurityMiddleware on files that bypass it, computed in advance.

Built in the command's process before the fork; used in every worker.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.conf import settings
from whitenoise.string_utils import decode_path_info

from .place import Place

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

    Header = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class SecurityHeaders:
    """The effect that SecurityMiddleware would have on these responses, computed in advance."""

    headers: tuple[Header, ...] = (("X-Content-Type-Options", "nosniff"),)
    hsts: tuple[Header, ...] = ()
    redirect: bool = False
    exempt: tuple[re.Pattern[str], ...] = ()
    proxy_header: tuple[str, str] | None = None
    script_name: str | None = None

    @classmethod
    def from_settings(cls) -> SecurityHeaders:
        """Read the settings of a SecurityMiddleware in the project; without one, only nosniff applies.

        A SecurityMiddleware below WhiteNoise's place handles no file under other servers either.
        """
        place = Place.from_settings()
        if not place.secured:
            return cls()
        if place.above:  # it adds its headers itself, after the middleware in between
            return cls(headers=())
        policy = settings.SECURE_REFERRER_POLICY or ()
        policies = policy.split(",") if isinstance(policy, str) else policy
        headers = {
            "X-Content-Type-Options": "nosniff" if settings.SECURE_CONTENT_TYPE_NOSNIFF else "",
            "Referrer-Policy": ",".join(value.strip() for value in policies),
            "Cross-Origin-Opener-Policy": settings.SECURE_CROSS_ORIGIN_OPENER_POLICY or "",
        }
        return cls(
            headers=tuple((name, value) for name, value in headers.items() if value),
            hsts=_hsts(),
            redirect=bool(settings.SECURE_SSL_REDIRECT),
            exempt=tuple(re.compile(pattern) for pattern in settings.SECURE_REDIRECT_EXEMPT),
            proxy_header=settings.SECURE_PROXY_SSL_HEADER,
            script_name=settings.FORCE_SCRIPT_NAME,
        )

    def is_secure(self, environ: WSGIEnvironment) -> bool:
        """Return the value of Django's ``request.is_secure()``."""
        if self.proxy_header:
            name, secure = self.proxy_header
            said = environ.get(name)
            if said is not None:
                return bool(said.split(",", 1)[0].strip() == secure)
        return environ.get("wsgi.url_scheme") == "https"

    def is_exempt(self, environ: WSGIEnvironment, path: str) -> bool:
        """Return whether clients may request this path without TLS."""
        script = self.script_name or decode_path_info(environ.get("SCRIPT_NAME", ""))
        full = script.rstrip("/") + path
        return any(pattern.search(full.lstrip("/")) for pattern in self.exempt)


def _hsts() -> tuple[Header, ...]:
    if not settings.SECURE_HSTS_SECONDS:
        return ()
    value = f"max-age={settings.SECURE_HSTS_SECONDS}"
    value += "; includeSubDomains" if settings.SECURE_HSTS_INCLUDE_SUBDOMAINS else ""
    value += "; preload" if settings.SECURE_HSTS_PRELOAD else ""
    return (("Strict-Transport-Security", value),)
