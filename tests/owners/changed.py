"""What a server changes in code of others, made here as it does before it forks workers."""

from __future__ import annotations

import gc
import os

CHANGED, REPORT = "PRODSERVE_OWNERS", "PRODSERVE_OWNERS_REPORT"
"""Variables: whether the changes are wanted (``with`` or ``without``), and the file for what failed."""


def replace_asgi_handler() -> None:
    """Let our ASGI handler stand in for Django's, before Django's tests import it."""
    if os.environ[CHANGED] != "with":
        return
    import django.core.asgi
    from django.core.handlers import asgi
    from django.test import client

    from django_prodserve.asgi import handler
    from django_prodserve.asgi.leases import Leases, why_not

    assert not handler.why_not(), handler.why_not()
    assert not why_not(), why_not()

    class Handler(handler.Handler):
        leases = Leases(16, 10.0)

    class AsyncClientHandler(handler.ShortChain, client.AsyncClientHandler):
        """Of the test client: more tests use it than the handler for servers."""

    asgi.ASGIHandler = django.core.asgi.ASGIHandler = Handler  # type: ignore[misc]
    client.AsyncClientHandler = AsyncClientHandler  # type: ignore[misc]


def change(*, immortal: bool) -> None:
    """Change what a server changes, where that is wanted; fail where it would leave something out."""
    if os.environ[CHANGED] != "with":
        return
    from django_prodserve.speedups import asgiref_locals
    from django_prodserve.speedups.availability import why_no_immortals
    from django_prodserve.speedups.immortal import make_immortal

    assert not asgiref_locals.why_not(), asgiref_locals.why_not()
    asgiref_locals.install()
    if immortal:
        assert not asgiref_locals.why_not_connections(), asgiref_locals.why_not_connections()
        asgiref_locals.install_connections()
        from django_prodserve.middleware import route_names

        route_names.record_route_names()
        gc.collect()
        assert bool(make_immortal()) != bool(why_no_immortals())
        gc.freeze()
