"""A request without lasting effects: writes, network messages and mail of its middleware are held back.

Runs in a temporary process (``arbiter/trial.py``), main thread, before its first request. Nothing is undone
here: the process ends.
"""

from __future__ import annotations

import logging
import os
import sys

from . import caches, databases, mail, outside
from .refusal import REFUSALS, Refused, cause

__all__ = ["REFUSALS", "Refused", "cause", "end", "hold_back", "settle"]


def hold_back(scratch: str | None) -> None:
    """Start. Files go to the directory ``scratch``; without one, no file may be written."""
    sys.dont_write_bytecode = True  # the server imports the same modules, and writes bytecode itself
    logging.disable(logging.CRITICAL)  # handlers send mail, and send to services
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115, until the process ends
    databases.hold_back()
    caches.hold_back()
    mail.hold_back()
    outside.hold_back(scratch)


def settle() -> None:
    """Roll back open transactions; the dry run continues."""
    databases.roll_back()


def end() -> None:
    """Settle, and allow this process to write again: its result, and its coverage."""
    settle()
    outside.let_go()
