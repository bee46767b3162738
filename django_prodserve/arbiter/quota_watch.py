"""Detect when the CPU quota begins to throttle the server, and when it no longer does. Pure.

The monitor calls this about once a second, with the counters of the control group (machine/quota.py).
"""

from __future__ import annotations

from collections import deque

from ..machine.quota import Throttling
from ..monitoring.advice import THROTTLED_SHARE

WINDOW_SECONDS = 15.0
"""Seconds over which the share counts. So long must the quota suffice before throttling counts as over."""
MIN_PERIODS = 20
"""Minimum periods before throttling begins: 2 s of work, longer than the boot of workers usually takes."""


class QuotaWatch:
    """The counters of the last seconds."""

    def __init__(self) -> None:
        self.share = 0.0
        """Share of the quota's periods that were throttled when this began; 0.0 while the quota suffices."""
        self._marks: deque[tuple[float, int, int]] = deque()

    def tick(self, now: float, told: Throttling) -> bool:
        """Process the counters of one tick; return whether throttling begins or ends with it."""
        marks = self._marks
        marks.append((now, told.periods, told.throttled))
        while now - marks[0][0] > WINDOW_SECONDS:
            marks.popleft()
        _, periods, throttled = marks[0]
        elapsed = told.periods - periods
        share = (told.throttled - throttled) / elapsed if elapsed > 0 else 0.0
        if self.share:
            if share >= THROTTLED_SHARE or now - marks[0][0] < WINDOW_SECONDS - 2:
                return False
            self.share = 0.0
            return True
        if share < THROTTLED_SHARE or elapsed < MIN_PERIODS:
            return False
        self.share = share
        return True
