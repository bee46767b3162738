"""What a project may use of the server's log: the id of the request, and leaving a view out.

Used by projects. Under another server there is no id, and nothing is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

MARK = "prodserve_unlogged"

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that this thread or task works for; empty outside of one."""


class RequestIDFilter(logging.Filter):
    """Gives every record a ``request_id``, for formats of the project's own: ``-`` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or "-"
        return True


def unlogged(view: View) -> View:
    """Leave this view's requests out of the access log.

    Works on functions, on what ``as_view()`` returns, and through ``method_decorator(name="dispatch")``.
    """
    setattr(view, MARK, True)
    return view
