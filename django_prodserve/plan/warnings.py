"""Problems that an operator should expect, each with its fix. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Problem
from ..http.limits import MAX_BODY_IN_MEMORY
from ..machine.platforms import DOCKER_KILLS_AFTER, DOCKER_SETTING, KILLS_AFTER
from ..utils.decision import Decision
from ..utils.units import format_size

if TYPE_CHECKING:
    from ..config.options import Options
    from ..machine.detect import Machine
    from ..machine.platforms import Platform
    from ..project.detect import Project

DOCKER_FILES = ("/.dockerenv ", "/run/.containerenv ")
"""What Docker and Podman leave in a container; the reason of the machine begins with it."""
EXIT = 5
"""Seconds in which workers that exceed the graceful timeout are killed, and the server ends."""
LOGGED_OTHERWISE = {"logconfig", "logconfig_dict", "logconfig_json", "syslog"}


def about_machine(machine: Machine, cpus: Decision[float]) -> Iterator[Problem]:
    """Yield what the machine does not show."""
    if cpus.is_computed and cpus.value < machine.cpus:
        yield Problem(
            f"{machine.cpus:g} CPUs are visible but this container has no CPU limit; planning for "
            f"{cpus.value:g}.",
            f"Set a CPU limit, or --cpus {cpus.value:g}",
            topic="cpus",
        )
    unseen = machine.quota is None and machine.memory_limit is None
    if machine.container and not machine.limits_visible and unseen:
        yield Problem(
            "The cgroup mount does not show this process's own group; limits may be missing.",
            "Set --cpus and --memory",
            topic="cpus",
        )


def about_memory(machine: Machine, options: Options, worker_class: Decision[str]) -> Iterator[Problem]:
    """Yield a warning if request bodies take memory that is limited."""
    counts = machine.temporary and machine.memory_limit and worker_class.value == "prodserve"
    if counts and options.max_body is None:
        yield Problem(
            f"TMPDIR is memory ({machine.temporary}): request bodies above "
            f"{format_size(MAX_BODY_IN_MEMORY)} count against the memory limit.",
            "Set --max-body, such as 10m, or set TMPDIR to a directory on a disk",
            topic="max-body",
        )


def about_project(project: Project, options: Options) -> Iterator[Problem]:
    """Yield what the project has, and the server does not use."""
    choosers = [name for name in ("access_log_sample", "access_log_min_duration") if options.source(name)]
    if (
        choosers
        and not (options.access_log or options.local)
        and not LOGGED_OTHERWISE & set(options.gunicorn)
    ):
        yield Problem(
            f"{options.source(choosers[0])} has no effect without an access log.",
            "Add --access-log -",
            topic="access-log",
        )
    if project.gunicorn_conf and options.config is None:
        yield Problem(
            "gunicorn.conf.py in this directory is not used.",
            "To use it: --config gunicorn.conf.py",
            topic="config",
        )


def about_stop(machine: Machine, platform: Platform, options: Options) -> Iterator[Problem]:
    """Yield a warning if the platform kills the server before the times of a stop that were set."""
    names = ("drain_delay", "graceful_timeout")
    sources = {options.source(name) for name in names} - {"", platform.name}
    platform = _that_kills(machine, platform)
    drain, graceful = (float(getattr(options, name)) for name in names)
    if not sources or not platform.kills_after or drain + graceful < platform.kills_after:
        return
    room = platform.kills_after - 1 - math.ceil(drain)
    fits = f"--graceful-timeout {room}" if room > 0 else "--drain-delay 0 --graceful-timeout 1"
    longer = ""
    if platform.kill_setting:
        need = math.ceil(drain + graceful) + EXIT
        longer = f"; or set {platform.kill_setting} to {need}, and {KILLS_AFTER}={need} for the server"
    takes = f"drain delay {drain:g} s + graceful timeout {graceful:g} s"
    yield Problem(
        f"{platform.name} kills {platform.kills_after} s after the stop signal ({platform.kills_why}): "
        f"before the server has stopped, {takes}.",
        f"{fits}{longer}",
        topic="graceful-timeout",
    )


def _that_kills(machine: Machine, platform: Platform) -> Platform:
    """Return what kills this server: the platform, or the program that runs the container."""
    runs = platform.name or "The program that runs this container"
    if platform.kills_after or not (machine.container or "").startswith(DOCKER_FILES):
        return replace(platform, name=runs)
    return replace(
        platform,
        name=runs,
        kills_after=DOCKER_KILLS_AFTER,
        kills_why=f"by default: {DOCKER_SETTING}",
        kill_setting=DOCKER_SETTING,
    )
