"""The databases of a project, and how many connections to them this server may open. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..utils.decision import Decision

if TYPE_CHECKING:
    from ..project.detect import Project
    from .sizing import Sizing


def choose_database(project: Project, connections: int, leases: int, sizing: Sizing) -> Decision[str]:
    """Return the databases; the reason has the number of connections, so many to each of them."""
    used = [database for database in project.databases if database.vendor != "dummy"]
    if not used:
        return Decision("none", "DATABASES is empty", "settings")
    text = ", ".join(f"{found.alias}: {found.product} {found.where}".rstrip() for found in used)
    servers = sum(found.counts for found in used)
    if not servers:
        return Decision(text, "a file, no connections to count", "settings")
    most = connections * servers
    each = " + ".join(["threads", *["leases"] * bool(leases), *["1"] * sizing.keeps_connections])
    each = f"({each})" if "+" in each else each
    return Decision(text, f"up to {most} connections (workers x {each} x databases)", "settings")
