"""Speedups of library code, used if the code is as tested: one switch, ``--speedups``, for all of them."""

from __future__ import annotations

import sys

import asgiref
import django

from ..utils.decision import Decision
from . import asgiref_locals

IMMORTAL = ((3, 12), (3, 13))
"""CPythons for which immortal.py was tested; others may count references in another way."""


def speedups() -> Decision[bool]:
    """Inspect the code loaded in this process, and return which speedups may be used. Changes nothing."""
    found = (
        ("Local without a lock", f"asgiref {asgiref.__version__}", asgiref_locals.why_not()),
        ("connections", f"Django {django.__version__}", asgiref_locals.why_not_connections()),
        ("immortal code", f"CPython {_dotted(sys.version_info[:2])}", why_no_immortals()),
    )
    words = [f"{name} off ({off})" if off else f"{name} ({tested} as tested)" for name, tested, off in found]
    return Decision(not all(off for _, _, off in found), "; ".join(words))


def why_no_immortals() -> str:
    """Return why this Python makes no objects immortal; empty if it can."""
    if sys.implementation.name != "cpython":
        return f"{sys.implementation.name} is not CPython"
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return "without the GIL references are counted another way"
    if sys.version_info[:2] in IMMORTAL:
        return ""
    known = " and ".join(map(_dotted, IMMORTAL))
    return f"tested with CPython {known}, and this is {_dotted(sys.version_info[:2])}"


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
