"""What a server changes in code of others, made here as it does before it forks workers."""

from __future__ import annotations

import gc
import os

CHANGED, REPORT = "PRODSERVE_OWNERS", "PRODSERVE_OWNERS_REPORT"
"""Variables: whether the changes are wanted (``with`` or ``without``), and the file for what failed."""


def change(*, immortal: bool) -> None:
    """Change what a server changes, where that is wanted; fail where it would leave something out."""
    if os.environ[CHANGED] != "with":
        return
    from django_prodserve import per_request
    from django_prodserve.runtime.immortal import make_immortal
    from django_prodserve.speedups import why_no_immortals

    assert not per_request.why_not(), per_request.why_not()
    per_request.quicken()
    if immortal:
        assert not per_request.why_not_connections(), per_request.why_not_connections()
        per_request.quicken_connections()
        from django_prodserve import routes

        routes.note_routes()
        gc.collect()
        assert bool(make_immortal()) != bool(why_no_immortals())
        gc.freeze()
