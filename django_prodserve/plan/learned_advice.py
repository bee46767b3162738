"""Which part of what was learned about a project this plan uses, and why not the rest. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from ..utils.decision import LEARNED, Decision

if TYPE_CHECKING:
    from ..project.learned import Kept, Learned


class StatedOptions(Protocol):
    """The options as decisions."""

    def stated(self, name: str) -> Decision[Any] | None:
        """Return the value that a source sets, or None."""
        ...

    def computed(self, name: str) -> Decision[Any]:
        """Return the explicit value or the row's default."""
        ...


class LearnedAdvice:
    """What ``--apply-advice`` changes in a plan for so many CPUs and so much memory."""

    def __init__(
        self, options: StatedOptions, kept: Kept | None, cpus: float, memory: int | None, worker_class: str
    ) -> None:
        self.options, self.worker_class = options, worker_class
        self.learned: Learned | None = None
        self.why = "nothing learned yet"
        if kept is None:
            return
        if worker_class != "prodserve":
            self.why = f"{worker_class} workers do not measure requests"
        elif kept.learned is None:
            self.why = f"not used: {kept.problem}" if kept.problem else kept.why_nothing
        elif reason := kept.learned.why_not_on(cpus, memory):
            self.why = f"not used: {reason}"
        else:
            self.learned, self.why = kept.learned, str(kept.learned)

    def profile(self) -> Decision[str]:
        """Return the explicit profile, the learned one, or the default."""
        if self.learned is None or self.options.stated("profile"):
            return self.options.computed("profile")
        return Decision(self.learned.profile, str(self.learned), LEARNED)

    def decision(self) -> Decision[bool]:
        """Return whether the plan uses what was learned, with its source or the reason against it."""
        found = self.options.computed("apply_advice")
        return replace(found, why=f"{self.why}{self._explicit()}") if found.value else found

    def _explicit(self) -> str:
        """Return what the operator has set, which counts more."""
        names = [f"--{name}" for name in ("profile", "threads") if self.options.stated(name)]
        if self.learned is None or not names:
            return ""
        return f"; set explicitly: {' and '.join(names)}"
