"""The format and contents of log lines, for the modules that write them. Pure; standard library alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..plan.plan import Plan


@dataclass(frozen=True)
class LogConfig:
    """``format`` is text, json or auto; ``sample`` a share, ``slow`` seconds or 0.

    ``short`` request lines are for a developer at the terminal.
    """

    format: str = "auto"
    redact: tuple[str, ...] = ()
    sample: float = 1.0
    slow: float = 0.0
    short: bool = False

    @classmethod
    def of(cls, plan: Plan) -> LogConfig:
        """Return the log settings of a plan."""
        return cls(
            plan.log_format.value,
            plan.log_redact.value or (),
            plan.access_log_sample.value,
            plan.access_log_min_duration.value,
            plan.local.value and plan.access_log.is_computed,
        )
