"""Decisions on the addresses other than those of ``--bind``: for management, and for plain HTTP. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..config.parsers import LOOPBACK
from ..errors import Problem
from ..utils.decision import Decision


def choose_management(stated: Decision[str | None], worker_class: Decision[str]) -> Decision[str | None]:
    """Return the explicit address; none with Gunicorn's own workers, which have no management server."""
    if stated.value and worker_class.value != "prodserve":
        return Decision(None, f"{worker_class.value} workers have no event loop to answer there")
    return stated


def choose_redirect(
    stated: Decision[str | None], bind: Decision[tuple[str, ...]], worker_class: Decision[str]
) -> Decision[str | None]:
    """Return the explicit address; a port alone means the host of the site's first TCP address."""
    if not stated.value:
        return stated
    if worker_class.value != "prodserve":
        return Decision(None, f"{worker_class.value} workers cannot redirect plain HTTP")
    if not stated.value.startswith(":"):
        return stated
    hosts = (address.rpartition(":")[0] for address in bind.value if not address.startswith(("unix:", "fd:")))
    return replace(stated, value=f"{next(hosts, '0.0.0.0')}{stated.value}")


def warnings(
    management: Decision[str | None], redirect: Decision[str | None], worker_class: Decision[str]
) -> Iterator[Problem]:
    """Yield what an operator should expect of the explicit addresses."""
    if management.value and worker_class.value != "prodserve":
        yield Problem(
            f"Nothing answers on {management.value} ({management.source}): only the worker class prodserve "
            f"has a management server, and this is {worker_class.value}.",
            "Remove the address, or use --worker-class prodserve",
            topic="management-bind",
        )
    elif management.value and not management.value.startswith(LOOPBACK):
        yield Problem(
            f"The management address {management.value} ({management.source}) has no password: anybody who "
            "reaches it sees paths, stack traces and decisions.",
            "Use 127.0.0.1 and an SSH tunnel.",
            topic="management-bind",
        )
    if redirect.value and worker_class.value != "prodserve":
        yield Problem(
            f"Nothing answers on {redirect.value.removeprefix(':')} ({redirect.source}): only the worker "
            f"class prodserve redirects plain HTTP, and this is {worker_class.value}.",
            "Remove the address, or use --worker-class prodserve",
            topic="redirect-http",
        )
