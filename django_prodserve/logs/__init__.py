"""The log functions for projects: the id of the request, the JSON format, and views without log lines.

Your project imports these. Under another server the id is empty, and no view is left out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, TypeVar

from ..utils.log_lines import as_json

View = TypeVar("View", bound=Callable[..., Any])

MARK = "prodserve_unlogged"

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that this thread or task works for; empty outside of one."""


class RequestIDFilter(logging.Filter):
    """Gives every record a ``request_id``, for log formats in your project: ``-`` outside of a request."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id = request_id.get() or "-"
        return True


_USUAL = {*vars(logging.makeLogRecord({})), "message", "asctime", "request_id"}
_PLAIN = (str, int, float, bool, type(None))


class JSONFormatter(logging.Formatter):
    """Formats each record as one line of JSON: the server's own format, for handlers in your project.

    It includes values passed as ``extra`` if they are text, a number, a boolean or None.
    """

    def format(self, record: logging.LogRecord) -> str:
        extra = {
            name: value
            for name, value in vars(record).items()
            if name not in _USUAL and isinstance(value, _PLAIN)
        }
        if name := request_id.get():
            extra["request_id"] = name
        if record.exc_info and (raised := self.formatException(record.exc_info)):
            extra["exception"] = raised
        if record.stack_info:
            extra["stack"] = self.formatStack(record.stack_info)
        reserved = {"seconds", "level", "logger", "message", "time", "pid"}
        more = {name: value for name, value in extra.items() if name not in reserved}
        return as_json(record.created, record.levelname, record.name, record.getMessage(), **more)


def unlogged(view: View) -> View:
    """Exclude this view's requests from the access log.

    Works on functions, on the result of ``as_view()``, and through ``method_decorator(name="dispatch")``.
    """
    setattr(view, MARK, True)
    return view
