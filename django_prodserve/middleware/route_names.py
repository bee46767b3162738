"""Store in the environ which route a request took, and its exception: Django publishes neither.

Lives in every worker, on the thread that runs the request. A route costs 0.2 us; an exception costs only when
it occurs.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

from asgiref.sync import async_to_sync
from django.core.handlers.base import BaseHandler
from django.core.signals import got_request_exception

from ..logs import MARK
from ..logs.environ_keys import EXCEPTION, ROUTE, UNLOGGED

NOTES = "_prodserve_notes"
"""Marks our method: a library that traces requests may also have wrapped Django's."""
COROUTINE_MARKS = ("_is_coroutine", "_is_coroutine_marker")
"""What ``markcoroutinefunction`` sets on a view, in Python and in asgiref."""

_alone: dict[int, Any] = {}
"""Async views whose coroutine must not run on the worker's loop, by their ids."""


def run_alone(views: dict[int, Any]) -> None:
    """Give these views a loop of their own wherever a thread runs them."""
    _alone.clear()
    _alone.update(views)


def record_route_names() -> None:
    """Make Django's handler note each route, and each exception that a view did not handle."""
    got_request_exception.connect(record_exception, dispatch_uid=NOTES)
    original = BaseHandler.resolve_request
    if hasattr(original, NOTES):
        return

    @functools.wraps(original)
    def resolve_request(self: Any, request: Any) -> Any:
        match = original(self, request)
        meta = notes_of(request)
        meta[ROUTE] = match.view_name
        if getattr(match.func, MARK, False):
            meta[UNLOGGED] = True
        if _alone and id(match.func) in _alone and meta is request.META:
            return _with_view(match, alone(match.func))
        return match

    setattr(resolve_request, NOTES, True)
    BaseHandler.resolve_request = resolve_request  # type: ignore[method-assign]


def _with_view(match: Any, view: Any) -> Any:
    """Return the same match with another view; Django's class cannot be copied."""
    found = object.__new__(type(match))
    found.__dict__.update(match.__dict__, func=view)
    return found


def alone(view: Any) -> Any:
    """Return a sync view that runs an async one on a new loop, and not on the worker's."""
    run = async_to_sync(view, force_new_loop=True)

    @functools.wraps(view)
    def in_thread(*args: Any, **kwargs: Any) -> Any:
        return run(*args, **kwargs)

    for mark in COROUTINE_MARKS:
        in_thread.__dict__.pop(mark, None)
    return in_thread


def record_exception(request: Any = None, **kwargs: Any) -> None:
    """Note the class of the exception that Django answers with a 500."""
    kind = sys.exc_info()[0]
    if request is not None and kind is not None:
        notes_of(request)[EXCEPTION] = name_of(kind)


def notes_of(request: Any) -> dict[str, Any]:
    """Return where the notes on a request go: its environ, or its ASGI scope."""
    notes: dict[str, Any] = getattr(request, "scope", None) or request.META
    return notes


def name_of(kind: type[BaseException]) -> str:
    """Return the name of an exception class as a traceback shows it."""
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
