"""How long the requests of one view may run, where ``--timeout`` does not fit them.

Used by projects. Changes nothing under another server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

MARK = "prodserve_request_timeout"


class RequestTimeout(BaseException):
    """Raised in a request's thread when its time is over, wherever it is in the view.

    No ``Exception``: what a view catches broadly must not keep it alive. ``finally`` and ``with`` run.
    """


def request_timeout(seconds: float) -> Callable[[View], View]:
    """Let this view's requests run so long, instead of ``--timeout``; 0 for ever.

    Works on functions, on what ``as_view()`` returns, and through ``method_decorator(name="dispatch")``.
    """
    if seconds < 0:
        raise ValueError(f"a view cannot run for {seconds} seconds")

    def decorate(view: View) -> View:
        setattr(view, MARK, float(seconds))
        return view

    return decorate
