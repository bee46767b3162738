"""Facts that a plan points out: what was seen, and is not used or decides silently. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config.options import Options
    from ..project.detect import Project


def links(project: Project, *, supervised: bool) -> Iterator[str]:
    """Yield implicit facts that a reload depends on: which link leads to the code."""
    if not supervised:
        return
    if project.link:
        yield f"reload follows the link {project.link}, which leads here. To follow another: --chdir PATH"
    elif project.links:
        yield f"{' and '.join(project.links)} lead here. Choose the link that a reload follows: --chdir PATH"


def not_started(options: Options) -> Iterator[str]:
    """Yield a line for each process of the project that does not start with this server."""
    for name in options.processes:
        if name not in options.side_processes:
            yield f"PROCESSES {name}: not started here (--with {name})"
