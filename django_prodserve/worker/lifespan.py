"""ASGI's lifespan: the project's application learns when its worker starts and stops.

Lives in a worker. ``start`` and ``stop`` run in the main thread, and wait: before the worker serves, and
after its last request. The application runs in a task on the asyncio loop, for as long as the worker lives.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextvars import Context
from typing import Any

from ..asgi.project import ASGIApplication
from ..errors import ProdserveError
from ..utils.tracebacks import project_error
from ..utils.units import format_duration

STARTUP_SECONDS = 30.0
"""Seconds that the startup may take. uvicorn waits without limit; Gunicorn's asgi worker waits as long."""
ENDS_WITHIN = 1.0
"""Seconds in which an application that has failed may end, so that its own error gives the reason."""
LOOK_SECONDS = 0.05
"""Interval at which the main thread, while it waits, looks whether the worker must stop."""
TOPIC = "lifespan"


class Lifespan:
    """The lifespan of one application in one worker."""

    def __init__(
        self,
        application: ASGIApplication,
        name: str,
        state: dict[str, Any],
        loop: asyncio.AbstractEventLoop,
        log: Any,
    ) -> None:
        """``state`` is where the application stores what each scope gets a copy of."""
        self._application, self._name, self._state = application, name, state
        self._loop, self._log = loop, log
        self._is_answered, self._has_ended = threading.Event(), threading.Event()
        self._messages: asyncio.Queue[str] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._answer: dict[str, Any] = {}
        self._has_asked = self._is_running = False
        self._error: BaseException | None = None

    def start(self, is_wanted: Callable[[], bool]) -> None:
        """Run the startup; raise ProdserveError if it fails, or takes too long.

        An application that raises on this scope, or returns without an answer, has no lifespan.
        """
        self._loop.call_soon_threadsafe(self._begin, context=Context())
        deadline = time.monotonic() + STARTUP_SECONDS
        while not self._is_answered.wait(LOOK_SECONDS) and is_wanted():
            if time.monotonic() > deadline:
                raise ProdserveError(
                    f"The lifespan startup of {self._name} did not complete within "
                    f"{format_duration(STARTUP_SECONDS)}.",
                    "Give what it waits for a timeout, or start what takes longer in a task.",
                    topic=TOPIC,
                )
        if self._answer.get("type") == "lifespan.startup.failed":
            self._has_ended.wait(ENDS_WITHIN)
            raise self._failed(str(self._answer.get("message") or ""))
        if isinstance(self._error, SystemExit):
            raise self._failed("")
        self._is_running = self._answer.get("type") == "lifespan.startup.complete"
        if self._error is not None and self._has_asked:
            self._log.warning(
                "%s raised on lifespan.startup. The worker serves without its lifespan.",
                self._name,
                exc_info=self._error,
            )

    def _failed(self, message: str) -> ProdserveError:
        """Return the error of the application, or its own message."""
        what = f"The lifespan startup of {self._name} failed"
        if self._error is not None:
            found = project_error(what, self._error)
            found.topic, found.hint = TOPIC, "Correct that line, or start what it needs."
            return found
        reason = message.strip().rpartition("\n")[2]
        fix = "Correct what the application does at lifespan.startup."
        return ProdserveError(f"{what}: {reason}" if reason else f"{what}.", fix, code="project", topic=TOPIC)

    def stop(self, deadline: float) -> None:
        """Run the shutdown, until the deadline at the latest; log what goes wrong."""
        if not self._is_running or self._has_ended.is_set():
            return
        began = time.monotonic()
        self._is_answered.clear()
        self._loop.call_soon_threadsafe(self._messages.put_nowait, "lifespan.shutdown", context=Context())
        if not self._is_answered.wait(max(0.0, deadline - began)):
            took = format_duration(round(time.monotonic() - began, 1))
            self._log.warning(
                "The lifespan shutdown of %s did not complete within %s: --graceful-timeout ends it.",
                *(self._name, took),
            )
        elif self._answer.get("type") == "lifespan.shutdown.failed":
            message = str(self._answer.get("message") or "").strip()
            self._log.error("The lifespan shutdown of %s failed%s", self._name, message and f": {message}")
        elif self._error is not None:
            self._log.error("The lifespan shutdown of %s failed", self._name, exc_info=self._error)

    # In the loop's thread.

    def _begin(self) -> None:
        self._messages.put_nowait("lifespan.startup")
        self._task = self._loop.create_task(self._run(), name="lifespan")

    async def _run(self) -> None:
        scope = {
            "type": "lifespan",
            "asgi": {"version": "3.0", "spec_version": "2.0"},
            "state": self._state,
        }
        try:
            await self._application(scope, self._receive, self._send)
        except BaseException as error:  # whatever it is, the main thread reports it
            self._error = error
        self._has_ended.set()
        self._is_answered.set()

    async def _receive(self) -> dict[str, Any]:
        self._has_asked = True
        return {"type": await self._messages.get()}

    async def _send(self, message: dict[str, Any]) -> None:
        self._answer = dict(message)
        self._is_answered.set()
