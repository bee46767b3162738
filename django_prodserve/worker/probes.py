"""Liveness and readiness probes, answered without a thread.

Lives in a worker: the answers in the thread that waits for events, ``tick`` in the main thread. No probe ever
waits: middleware/readiness.py runs slow checks beforehand, and the scoreboard holds the state of other
workers.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ..http.environ import EnvironBuilder, Responder
from ..middleware.health import HealthMiddleware
from ..scoreboard import stop_flags
from ..scoreboard.board import Scoreboard
from ..scoreboard.slot import REFUSES, SERVING, WAITS, Slot
from .management.responses import Page, Reply, respond, text

if TYPE_CHECKING:
    from ..http.parser import RequestHead
    from .scheduler import Scheduler

SATURATED_SECONDS = 10.0
"""Seconds for which all workers must be saturated until the readiness probe fails."""
SATURATED_WAIT = 1.0
"""Seconds for which requests must wait in a saturated worker. Busy threads alone do not mean saturation: a
well-used server has them all the time."""


class Probes:
    """The probes of one worker."""

    def __init__(self, worker: Any, board: Scoreboard, slot: Slot, scheduler: Scheduler) -> None:
        self._worker, self._board, self._slot, self._scheduler = worker, board, slot, scheduler
        self._layer: HealthMiddleware = worker.application.health
        self._saturated_since = math.inf
        live, ready = self._layer.paths.everywhere
        self.pages: dict[str, Page] = {live: self.live, ready: self.ready}
        """Both probes, for the management address."""
        ours: dict[str, Responder] = {
            below + path: partial(respond, self.pages[path])
            for path in self._layer.paths.enabled
            for below in ("", os.environ.get("SCRIPT_NAME", ""))
        }
        self.page = ours.get
        """Returns the function that answers a probe at a path, or None.

        Below a script name the probes have the same paths as under Gunicorn's own workers.
        """

    def environs(self, config: Any, listeners: Sequence[Any]) -> dict[int, EnvironBuilder]:
        """Return the builders of environs for the site's listeners, where the probes are answered."""
        return {
            listener.fileno(): EnvironBuilder(config, listener.getsockname(), self.page)
            for listener in listeners
        }

    def tick(self, now: float) -> None:
        """Once a second: publish whether this worker is saturated, and note since when all workers are."""
        state = self._scheduler.state()
        self._slot.queue_wait = state.overload_delay if state.is_overloaded else state.delay
        self._slot.saturated = (
            REFUSES if state.is_overloaded else WAITS if state.delay > SATURATED_WAIT else 0
        )
        serving = [slot for slot in self._board.slots if slot.state == SERVING]
        if serving and all(slot.saturated for slot in serving):
            self._saturated_since = min(self._saturated_since, now)
        else:
            self._saturated_since = math.inf

    def live(self, request: RequestHead) -> Reply:
        """Answer the liveness probe: this worker runs its event loop."""
        return text("200 OK", "ok")

    def ready(self, request: RequestHead) -> Reply:
        """Answer the readiness probe; if not ready, give each reason in a word."""
        reasons = self.reasons(time.monotonic())
        return text("503 Service Unavailable", *reasons) if reasons else text("200 OK", "ok")

    def reasons(self, now: float) -> list[str]:
        """Return why requests should go elsewhere. The replacement of a worker is not a reason."""
        reasons = []
        alone = not stop_flags.installed() and not self._worker.alive
        if stop_flags.draining() or stop_flags.closing() or alone:
            reasons.append("draining")
        if now - self._saturated_since >= SATURATED_SECONDS:
            reasons.append("saturated")
        return [*reasons, *self._layer.readiness.failing()]
