"""Where a view runs, if its kind does not decide: in threads, or on the asyncio loop.

Used by projects. Changes nothing under another server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

View = TypeVar("View", bound=Callable[..., Any])

MARK = "prodserve_road"


def run_in_threads(view: View) -> View:
    """Run an async view in a thread, with a loop of its own: it computes, or calls code that waits.

    Works on functions, on classes, on the result of ``as_view()``, and through
    ``method_decorator(name="dispatch")``.
    """
    setattr(view, MARK, "threads")
    return view


def run_on_loop(view: View) -> View:
    """Handle the requests for a sync view on the asyncio loop: it reads ``request.scope``.

    The view itself is called in a leased thread. Works on the same objects as ``run_in_threads``.
    """
    setattr(view, MARK, "loop")
    return view
