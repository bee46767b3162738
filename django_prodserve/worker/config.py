"""The part of the plan that workers use.

The server builds it when it applies a plan, before the fork. Under plain Gunicorn a worker builds it after
loading the application. Each field is an option of the same name, whose row marks it as used by workers
(config/options.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..config.options import option_fields

if TYPE_CHECKING:
    from ..plan.plan import Plan


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """The decisions that workers act on; without a plan, the defaults of Gunicorn's own workers."""

    queue_timeout: float = 2.0
    """Seconds that a request may wait for a thread."""
    concurrency_limit: str = "auto"
    """Whether a worker limits concurrent requests by measurement: auto or off."""
    lanes: str = "on"
    """Whether a route is limited to half of the threads while others wait for it."""
    max_body: int | None = None
    """Maximum size of a request body in bytes."""
    timeout: float = 0.0
    """Seconds that a request may run; 0 for no limit."""
    max_threads: int = 0
    """Threads that a worker may have for requests; 0 for no more than it starts with."""
    slow_request: float = 0.0
    """Seconds after which the worker logs the stack of a running request; 0 disables it."""
    cpus: float = 1.0
    """CPUs for all workers together."""
    acme_webroot: str | None = None
    """The directory with the files for a certificate authority."""

    @classmethod
    def from_plan(cls, plan: Plan | None) -> WorkerConfig:
        """Return the decisions of this plan."""
        if plan is None:
            return cls()
        taken: dict[str, Any] = {
            row.name: getattr(plan, row.name).value for row in option_fields() if row.worker
        }
        return cls(**taken, max_threads=plan.max_threads.value)
