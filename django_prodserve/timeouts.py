"""Timeouts for the requests of one view, if ``--timeout`` does not suit them.

Used by projects. Changes nothing under another server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

MARK = "prodserve_request_timeout"


class RequestTimeout(BaseException):
    """Raised in a request's thread when its time is over, at any point in the view.

    It is not an ``Exception``, so that a broad ``except`` in a view does not catch it. ``finally`` and
    ``with`` run.
    """


def request_timeout(seconds: float) -> Callable[[View], View]:
    """Limit this view's requests to so many seconds, instead of ``--timeout``; 0 means no limit.

    Works on functions, on the result of ``as_view()``, and through ``method_decorator(name="dispatch")``.
    """
    if seconds < 0:
        raise ValueError(f"a view cannot run for {seconds} seconds")

    def decorate(view: View) -> View:
        setattr(view, MARK, float(seconds))
        return view

    return decorate
