"""Facts about a server for operators: the machine, the project, the versions, and since when it runs.

``server_facts`` runs in the arbiter, which stores the facts on the scoreboard. Readers add those in the
server's record. A command reads them without Django.
"""

from __future__ import annotations

import platform
import socket
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..machine.proc import age_of
from ..scoreboard.board import Scoreboard
from ..supervisor import run_directory

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..supervisor.protocol import ServerRecord


def server_facts(plan: Plan) -> dict[str, Any]:
    """Return the facts that the arbiter knows."""
    machine = plan.inputs.machine
    total, limit = machine.memory_total, machine.memory_limit
    is_limited = limit is not None and (total is None or limit <= total)
    return {
        "host": socket.gethostname(),
        "settings": plan.settings.value,
        "memory_limited": is_limited or not plan.memory.is_computed,
        "threads_limit": plan.threads_limit,
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Return the versions that matter for a server, the one of this package first."""
    import django

    try:
        from gunicorn import __version__ as gunicorn
    except ImportError:  # Windows has no use for it
        gunicorn = "not installed"
    return {
        "prodserve": __version__,
        "django": django.get_version(),
        "gunicorn": gunicorn,
        "python": platform.python_version(),
    }


def read_record(board: Scoreboard) -> ServerRecord | None:
    """Return the record of this scoreboard's server; None if there is none."""
    return run_directory.read(board.path.parent) if board.path else None


def known_server(board: Scoreboard, record: ServerRecord | None) -> dict[str, Any]:
    """Return the arbiter's facts, with the directory and the addresses of the server."""
    place = {"project": record["project"], "bind": record["addresses"]} if record else {}
    return {**board.static_info.get("server", {}), **place}


def server_uptime(board: Scoreboard, record: ServerRecord | None, now: float) -> float:
    """Return for how many seconds the server has been running, reloads included."""
    uptime = now - board.started
    if record and record["started"] is not None:
        uptime = max(uptime, age_of(record["started"]))
    return round(uptime, 1)


def failed_reload(record: ServerRecord | None) -> str:
    """Return why the last reload failed; empty if it did not, or if there is no record."""
    outcome = record.get("outcome") if record else None
    return outcome["reason"] if outcome else ""
