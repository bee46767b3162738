"""The processes that the server does not start: each gets a home of its own in an exported file. Pure.

A process that ``--with`` names is a part of the server, and its flag is in the command of the file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..plan.sizing import Sizing
from ..project.interpreter import find_program

if TYPE_CHECKING:
    from ..config.side_processes import SideProcess
    from ..plan.plan import Plan
    from .site import Site

PYTHON = re.compile(r"python(3(\.\d+)?)?")


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of these processes."""

    name: str
    words: tuple[str, ...]
    """Its command on a host, with full paths."""
    image_words: tuple[str, ...]
    """Its command in an image, whose PATH begins with the environment of the project."""
    memory: int
    """A limit kills, so a guess is twice what the plan for a server has."""
    is_guess: bool
    why: str
    """The reason for the memory."""
    is_single: bool
    """Whether only one of all hosts may run it."""


def find(plan: Plan, site: Site, *, has_manage: bool) -> Iterator[Side]:
    """Yield the processes of the settings that the server does not start."""
    options = plan.inputs.options
    guess = 2 * Sizing.guess(plan.master_memory.value, plan.worker_memory.value)
    for process in options.processes.values():
        if process.name not in options.side_processes:
            key = f"PRODSERVE['PROCESSES'][{process.name!r}]"
            why = f"{key}['memory']" if process.memory else f"a guess: set a 'memory' in {key}"
            yield Side(
                name=process.name,
                words=_on_a_host(process, site),
                image_words=_in_an_image(process, has_manage=has_manage),
                memory=process.memory or guess,
                is_guess=not process.memory,
                why=why,
                is_single=process.one_host,
            )


def _on_a_host(process: SideProcess, site: Site) -> tuple[str, ...]:
    first, *rest = process.command
    python = site.program[0]
    if not PYTHON.fullmatch(os.path.basename(python)):
        python = os.path.join(os.path.dirname(python), "python")
    if PYTHON.fullmatch(first):
        return (python, *rest)
    if os.path.basename(first) == "manage.py":
        return (python, first, *rest)
    if os.sep in first:
        return (os.path.join(site.directory, first), *rest)
    beside = os.path.join(os.path.dirname(python), first)
    found = find_program(first)
    is_of_project = os.path.dirname(found) == os.path.dirname(find_program("python")) or found == first
    return (beside if is_of_project else found, *rest)


def _in_an_image(process: SideProcess, *, has_manage: bool) -> tuple[str, ...]:
    first, *rest = process.command
    if os.path.basename(first) == "manage.py":
        return ("python", *((first,) if has_manage else ("-m", "django")), *rest)
    return process.command
