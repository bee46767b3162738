"""Reasons why a browser cannot open the address that a start has printed.

Runs in the command's process, after the project is loaded. Reads settings and the URLconf.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..project.hosts import is_allowed
from ..project.routes import first_page, lacks_front_page
from .checks import is_proxied
from .listeners import url

if TYPE_CHECKING:
    from ..plan.plan import Plan


def browser_notes(plan: Plan, sockets: Sequence[socket.socket], *, tls: bool, loaded: bool) -> Iterator[str]:
    """Yield why one of these addresses would show an error; ``loaded`` means that the URLconf is loaded."""
    addresses = [
        url(listener, tls=tls).partition(" ")[0] for listener in sockets if listener.family != socket.AF_UNIX
    ]
    for address in () if is_proxied(plan) else addresses:
        host = address.partition("://")[2]
        if not is_allowed(host):
            name = host.rpartition(":")[0]
            yield (
                f"{address} answers 400 to a browser: {name!r} is not in ALLOWED_HOSTS. Add it there, "
                "unless a proxy in front sends the site's own host"
            )
    if plan.local.value and loaded and addresses and lacks_front_page():
        page = first_page()
        yield f"/ has no route{f': try {addresses[0]}{page}' if page else ''}"
