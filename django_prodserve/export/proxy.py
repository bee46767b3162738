"""What all files of proxies share: the certificate, the command of the server, what to do by hand. Pure."""

from __future__ import annotations

import shlex

from .facts import Facts


def certificate_files(facts: Facts) -> tuple[str, str]:
    """Return the certificate and the key: those that were set for the server, or certbot's."""
    place = f"/etc/letsencrypt/live/{facts.site.domain}"
    if facts.certificate:
        return facts.certificate, facts.key or facts.certificate
    return f"{place}/fullchain.pem", f"{place}/privkey.pem"


OF_TLS = ("--certfile=", "--keyfile=", "--redirect-http=", "--acme-webroot=")
"""Flags that a server behind a proxy with TLS must not have."""


def server_command(facts: Facts) -> str:
    """Return the command of the server behind; the proxy has its certificate."""
    kept = [flag for flag in facts.flags if not flag.startswith(OF_TLS)]
    return shlex.join(["prodserve", *facts.bind, *kept])


def by_hand(facts: Facts) -> list[str]:
    """Return what no project knows, for every proxy."""
    found = []
    if not facts.site.domains:
        found.append(f"{facts.site.domain}: the domain of the site, also in ALLOWED_HOSTS")
    if facts.certificate:
        found.append("the proxy has the certificate now: start the server without --certfile and --keyfile")
    if facts.address.is_unix:
        found.append(
            f"{facts.address.path}: the proxy's account must be in the group of the server's account"
        )
    elif not facts.address.reached.startswith(("127.", "[::1]", "localhost:")):
        found.append("the server needs --trusted-proxies with the address of this proxy")
    return found
