"""Keep what ``prodserve tune`` has found, for starts with ``--apply-advice``. Lives in the command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..project import learned_file
from ..project.learned import Learned

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from .result import TuneResult


def keep(result: TuneResult, plan: Plan) -> str:
    """Write the recommendation to the project's private directory; return in words what became of it."""
    wanted = result.recommended
    learned = Learned(
        profile=wanted.profile,
        threads=wanted.threads,
        max_threads=wanted.max_threads,
        workers=wanted.workers,
        requests=result.requests,
        when=result.when,
        source="tune",
        cpus=plan.cpus.value,
        memory=plan.memory.value,
    )
    try:
        learned_file.write(learned)
    except OSError as error:
        return f"cannot keep the result for --apply-advice: {error}"
    return "kept the result: a start with --apply-advice uses it"
