"""How long a thread may keep the GIL while another one wants it. Whatever needs a shorter time asks here.

Lives in a worker: ``shorten`` in any thread, ``restore`` in the main thread. Each system call releases the
GIL. A thread that refuses requests would then wait behind every thread that computes, and so would the
asyncio loop. Measured with one worker, 8 clients of a view that computes for 10 ms, and one of an async view:

    interval    async view, p50 and p99    CPU of the view that computes
    5 ms        26 ms, 118 ms              10.7 ms
    1 ms        10 ms, 56 ms               10.7 ms
    0.5 ms      8 ms, 47 ms                11.6 ms
    0.2 ms      7 ms, 34 ms                11.9 ms
"""

from __future__ import annotations

import math
import sys

SWITCH_SECONDS = 0.005
"""CPython's own interval."""
SHORT_SECONDS = 0.001
OVERLOAD, LOOP = "requests are refused", "the asyncio loop has work"


class SwitchInterval:
    """The interval of one worker; one that the project has set stays."""

    def __init__(self) -> None:
        self._is_ours = math.isclose(sys.getswitchinterval(), SWITCH_SECONDS)
        self._reasons: set[str] = set()

    def shorten(self, reason: str) -> None:
        """Let threads switch more often, until each reason has been restored."""
        if reason not in self._reasons:
            self._reasons.add(reason)
            self._apply()

    def restore(self, reason: str) -> None:
        """Remove a reason. Called about once a second: another thread may have set the interval meanwhile."""
        self._reasons.discard(reason)
        self._apply()

    def _apply(self) -> None:
        now, wanted = sys.getswitchinterval(), SHORT_SECONDS if self._reasons else SWITCH_SECONDS
        other = SWITCH_SECONDS if self._reasons else SHORT_SECONDS
        if self._is_ours and math.isclose(now, other):  # the project may set one at any time
            sys.setswitchinterval(wanted)
