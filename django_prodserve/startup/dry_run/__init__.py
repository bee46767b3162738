"""A request that leaves nothing behind: what its middleware writes, sends and mails is held back.

Lives in a process that is thrown away (arbiter/trial.py), main thread, from before its first request on.
Nothing here is ever undone: the process ends.
"""

from __future__ import annotations

import logging
import os
import sys

from . import caches, databases, mail, outside
from .refusal import REFUSALS, Refused, cause

__all__ = ["REFUSALS", "Refused", "cause", "end", "hold_back", "settle"]


def hold_back(scratch: str | None) -> None:
    """Begin. Files go to the directory ``scratch``; without one, none may be written."""
    sys.dont_write_bytecode = True  # the server imports the same modules, and writes it
    logging.disable(logging.CRITICAL)  # handlers mail, and send to services
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    databases.hold_back()
    caches.hold_back()
    mail.hold_back()
    outside.hold_back(scratch)


def settle() -> None:
    """Roll back what is still open; the dry run goes on."""
    databases.roll_back()


def end() -> None:
    """Settle, and let this process write again: its result, and its coverage."""
    settle()
    outside.let_go()
