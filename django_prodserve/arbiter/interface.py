"""The methods of the arbiter that its helpers may call. Types alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..scoreboard.board import Scoreboard
    from ..scoreboard.stacks import Stacks
    from ..supervisor.link import SupervisorLink
    from ..tls.contexts import TLSContexts
    from ..tls.renewal import Renewals
    from .policies import MemoryBudget, Verdict
    from .worker_pool import WorkerHandle, WorkerPool


class SideMemory(Protocol):
    """The processes alongside the workers, for the memory guard."""

    @property
    def memory(self) -> int:
        """The memory of all of them at the last measurement."""
        ...

    def measure(self, *, new_alone: bool = False) -> None:
        """Measure each of them, or those that were not measured yet."""
        ...

    def check_memory(self, room: MemoryBudget, now: float) -> None:
        """Restart one if memory is short."""
        ...

    def log_kills(self, was_killer: Callable[[], bool]) -> None:
        """Report those that the kernel has killed."""
        ...

    def complete(self, now: float) -> None:
        """Start what is missing."""
        ...


class ArbiterActions(Protocol):
    """The part of the arbiter that its helpers use."""

    plan: Plan
    pool: WorkerPool
    board: Scoreboard
    stacks: Stacks
    log: Any
    timeout: int
    """Maximum seconds per iteration of a worker's event loop; 0 for no limit. Gunicorn's setting."""
    LISTENERS: list[Any]
    all_ready: bool
    """Whether the first full set of workers has answered."""
    tls: TLSContexts | None
    """None if our workers serve no TLS."""
    renewals: Renewals | None
    generation: SupervisorLink
    cfg: Any
    sides: SideMemory

    def release_sockets(self) -> None:
        """In a fork that is not a worker: close the sockets of the server."""
        ...

    def taken_memory(self) -> int:
        """Return the memory of this server's processes at the last measurement."""
        ...

    def replace(self, member: WorkerHandle, verdict: Verdict) -> bool:
        """Replace a worker, starting its replacement first; False if it must wait or is already marked."""
        ...

    def let_go(self, member: WorkerHandle, reason: str) -> None:
        """Make a worker finish its requests and end."""
        ...

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a signal to a worker."""
        ...

    def record_event(self, kind: str, text: str, stack: str = "") -> None:
        """Record an event on the scoreboard."""
        ...

    def log_line(self, **facts: Any) -> None:
        """Record facts on the scoreboard for ``status``."""
        ...

    def start_failed(self, line: str) -> None:
        """Count a failed round of starts; an empty line logs nothing."""
        ...

    def recovered(self, now: float) -> None:
        """Reset the failed rounds once workers have served for a while."""
        ...

    def start_deferred(self, now: float) -> None:
        """Start workers that wait for memory."""
        ...
