"""What a worker takes of the plan.

Made by the server when it applies a plan, before the fork; under plain Gunicorn in a worker, when that has
loaded the application. Each field is an option of the same name, whose row says
that workers take it (config/options.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.options import option_fields

if TYPE_CHECKING:
    from ..plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The decisions that workers act on; without a plan those that Gunicorn's own workers would make."""

    queue_timeout: float = 2.0
    """Seconds that a request may wait for a thread."""
    concurrency_limit: str = "auto"
    """Whether a worker limits how many requests run at a time by what it measures: auto or off."""
    max_body: int | None = None
    """Bytes."""
    timeout: float = 0.0
    """Seconds that a request may run; 0 for any time."""
    slow_request: float = 0.0
    """Seconds after which the stack of a request is logged; 0 for never."""
    cpus: float = 1.0
    """CPUs for all workers together."""

    @classmethod
    def from_plan(cls, plan: Plan | None) -> WorkerConfig:
        """Return what this plan has decided."""
        if plan is None:
            return cls()
        taken: dict[str, Any] = {
            row.name: getattr(plan, row.name).value for row in option_fields() if row.worker
        }
        return cls(**taken)
