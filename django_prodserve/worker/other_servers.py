"""What the workers of other ASGI servers share: signals of their arbiter alone, and an orderly end.

Lives in a worker, whose main thread runs the loop and everything on it.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from gunicorn.workers import base

from ..middleware.application import Application
from ..middleware.asgi import ASGIApplication


def asgi_of(application: Application) -> ASGIApplication:
    """Return the ASGI side of the application."""
    assert application.asgi is not None, "the plan has another worker class"
    return application.asgi


def init_signals(worker: base.Worker) -> None:
    """Let Python handle signals, not the loop: it would obey those that are not the arbiter's."""
    base.Worker.init_signals(worker)
    signal.set_wakeup_fd(-1)


@asynccontextmanager
async def meanwhile(call: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine in a task as long as the block runs, then cancel it."""
    task = asyncio.ensure_future(call)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
