"""The actions on a running server, for every entry of the command. Lives in a command of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ExitCode
from . import control, status
from .actions import CONTROL_ACTIONS


def run(action: str, flags: Mapping[str, Any], say: Callable[[str], object]) -> None:
    """Run the action; exit with 1 if ``status`` has found a problem."""
    binds = flags.get("bind")
    if action in CONTROL_ACTIONS:
        control.run(action, binds, say)
    elif status.run(action, binds, say, as_json=bool(flags.get("json")), live=bool(flags.get("watch"))):
        sys.exit(ExitCode.FAILED)
