"""The whole product in one page. Start reading here.

    the options (flags, variables, settings, platform) -> Options \
    the limits of the machine                          -> Machine  > PlanInputs -> make_plan -> Plan
    the facts of the project                           -> Project /

explain.py explains the plan, gunicorn_settings.py turns it into Gunicorn's settings, and server.py serves it.
Data flows forwards only, and every value carries its reason. A start that has measured the project makes a
second plan from the same inputs (``Plan.replan``). The server applies it in the same way as the first.

Continue with plan.py for the decisions, server.py for the steps of a start, and arbiter/arbiter.py for the
master process. worker/__init__.py describes a request, and .github/CONTRIBUTING.md the way through all of
them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from django.conf import settings

from ..config import gunicorn, parsers, resolve, side_processes
from ..config.options import Options, SourcedValue
from ..config.private_server import PrivateServer
from ..config.resolve import Layer
from ..errors import Problem, ProdserveError, UsageError
from ..machine.detect import Machine
from ..machine.platforms import Platform, detect
from ..project import footprint_cache, learned_file, local_mode
from ..project.detect import Project
from ..utils import working_directory
from ..utils.tracebacks import reason_of
from .plan import Plan, PlanInputs, make_plan


def plan_now(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Plan:
    """Read the options, the machine and the project as they are now, and decide."""
    return inspect_now(flags, environ)[0]


def inspect_now(flags: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> tuple[Plan, Project]:
    """Decide, and return the project's facts too, for the preflight."""
    platform = detect(environ)
    wishes = _options_here(flags, environ, platform)
    if wishes.local:
        local_mode.refuse_in_public(wishes, platform)
        wishes = replace(wishes, notes=(*local_mode.apply(), *wishes.notes))
    if (private := PrivateServer.from_environment(environ)) is not None:
        wishes = private.options(wishes)
    project = Project.inspect(static=wishes.static, collect=wishes.private_static)
    machine = Machine.detect(environ=environ)
    inputs = PlanInputs(
        machine=machine,
        platform=platform,
        project=project,
        options=wishes,
        fork_safe=sys.platform != "darwin",
        kept=learned_file.read() if wishes.apply_advice else None,
    )
    plan = make_plan(inputs)
    reject_shared_address(plan)
    measured = footprint_cache.load(load_key(plan))
    return plan.replan(measured) if measured else plan, project


def with_road_table(plan: Plan) -> Plan:
    """Decide again with the routes and the ASGI application, which this loads; add a note if that fails.

    A start knows more: it has loaded the WSGI application, too. A wrapper around that must see each request.
    """
    if plan.asgi.value == "off":
        return plan.with_road_table("")
    from ..asgi.project import load_application  # late: most commands need no URLconf
    from ..asgi.road_table import RoadTable, observing_hooks

    try:
        table = RoadTable.find(plan.asgi, load_application(), observing_hooks(plan.gunicorn), plan.roads)
    except UsageError:
        raise
    except ProdserveError as error:
        return replace(plan, notes=(*plan.notes, error.message))
    except Exception as error:  # an import of the project may raise anything
        return replace(plan, notes=(*plan.notes, f"The URLconf cannot be loaded: {reason_of(error)}"))
    return plan.with_road_table(table.in_plan)


def plan_for(machine: Machine, flags: Mapping[str, Any], environ: Mapping[str, str]) -> Plan:
    """Decide for another machine with this environment: no size and no platform of this one counts."""
    platform = detect(environ)
    wishes = _options_here(flags, environ, platform)
    project = Project.inspect(static=wishes.static, collect=wishes.private_static)
    plan = make_plan(PlanInputs(machine=machine, platform=platform, project=project, options=wishes))
    reject_shared_address(plan)
    return plan


def _options_here(flags: Mapping[str, Any], environ: Mapping[str, str], platform: Platform) -> Options:
    """Resolve the options, and change to the directory that they name."""
    wishes = collect_options(flags, environ, getattr(settings, "PRODSERVE", {}), platform)
    if wishes.chdir:  # set in a file or in the settings; a flag took effect earlier
        working_directory.enter(wishes.chdir, source=wishes.source("chdir"))
    return wishes


def load_key(plan: Plan) -> tuple[bool, str]:
    """Return the decisions that a measurement depends on."""
    return plan.preload.value, plan.warmup.value


def collect_options(
    flags: Mapping[str, Any], environ: Mapping[str, str], block: object, platform: Platform
) -> Options:
    """Resolve every source of options in the order of precedence; one error lists every problem."""
    problems: list[Problem] = []
    notes: list[str] = []
    typed = resolve.flag_layer(flags)
    variables = resolve.environment_layer(environ, problems)
    settings_block = resolve.settings_layer(block, problems)
    raw_block = block.get("GUNICORN", {}) if isinstance(block, Mapping) else {}
    ours_in_block, rest_of_block = _split(gunicorn.read_block(raw_block, problems))
    ours_in_args, rest_of_args = _split(_cmd_args(environ, problems))
    file = _config_file((typed, variables, settings_block, ours_in_block, ours_in_args))
    ours_in_file, rest_of_file = _split(gunicorn.read_config_file(file, problems, notes) if file else {})
    rest = {**rest_of_file, **rest_of_args, **rest_of_block}
    return resolve.resolve(
        [
            typed,
            variables,
            settings_block,
            ours_in_block,
            ours_in_args,
            ours_in_file,
            platform_variables(environ, notes),
            resolve.platform_layer(platform.name, platform.values),
        ],
        gunicorn=gunicorn.validated(rest, problems, notes),
        processes=side_processes.read(block, problems),
        problems=problems,
        notes=notes,
    )


def platform_variables(environ: Mapping[str, str], notes: list[str]) -> Layer:
    """Return the values of the variables that every Python server on a platform reads."""
    layer: dict[str, SourcedValue] = {}
    count = environ.get("LISTEN_FDS", "")
    if count.isdecimal() and environ.get("LISTEN_PID") == str(os.getpid()):
        # sd_listen_fds(3): the sockets of a .socket unit are the descriptors from 3 on.
        layer["bind"] = SourcedValue([f"fd://{3 + number}" for number in range(int(count))], "LISTEN_FDS")
    elif "PORT" in environ:
        layer["bind"] = SourcedValue(_port(environ["PORT"]), "PORT")
    if "FORWARDED_ALLOW_IPS" in environ:
        layer["trusted_proxies"] = SourcedValue(environ["FORWARDED_ALLOW_IPS"], "FORWARDED_ALLOW_IPS")
    if "WEB_CONCURRENCY" in environ:
        author = environ.get("WEB_CONCURRENCY_SET_BY")
        if author:
            guess = environ["WEB_CONCURRENCY"]
            notes.append(f"WEB_CONCURRENCY={guess} is a guess by {author}, so it is not used.")
        else:
            layer["workers"] = SourcedValue(environ["WEB_CONCURRENCY"], "WEB_CONCURRENCY")
    return layer


def _port(text: str) -> str:
    """Return PORT as an address. A number alone means every interface; the parser rejects other texts."""
    return f":{text.strip()}" if text.strip() else text


def _cmd_args(environ: Mapping[str, str], problems: list[Problem]) -> gunicorn.Settings:
    text = environ.get(gunicorn.CMD_ARGS, "")
    return gunicorn.read_cmd_args(text, problems) if text.strip() else {}


def _split(found: gunicorn.Settings) -> tuple[Layer, gunicorn.Settings]:
    layer, rest = resolve.gunicorn_layer(found)
    return layer, dict(rest)


def _config_file(layers: tuple[Layer, ...]) -> SourcedValue | None:
    """Return the gunicorn.conf.py that the strongest source names; None if none does.

    A value that is not a path is left to the parser of the option, which reports it.
    """
    named = next((layer["config"] for layer in layers if "config" in layer), None)
    with suppress(ValueError, TypeError):
        return SourcedValue(parsers.path(named.value), named.source) if named else None
    return None


def reject_shared_address(plan: Plan) -> None:
    """Raise UsageError if one address has two purposes."""
    taken = [(address, "the site itself") for address in plan.bind.value]
    further = (
        ("--redirect-http", plan.redirect_http.value, "the redirects to https", "0.0.0.0:8080"),
        ("--management-bind", plan.management_bind.value, "the management server", "9001"),
    )
    for flag, stated, purpose, other in further:
        for address, owner in taken if stated else ():
            if stated and _is_same(address, stated):
                raise UsageError(
                    f"{flag} {stated} is the address of {owner} ({address}).",
                    f"Choose another port: {flag} {other}",
                    code="conflict",
                    topic=flag[2:],
                )
        if stated:
            taken.append((stated, purpose))


def _is_same(one: str, other: str) -> bool:
    if one.startswith("unix:") and other.startswith("unix:"):
        return os.path.abspath(one.removeprefix("unix:")) == os.path.abspath(other.removeprefix("unix:"))
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    hosts = {name.replace("localhost", "127.0.0.1") for name in (host, other_host)}
    return port == other_port != "0" and (len(hosts) == 1 or bool(hosts & {"0.0.0.0", "[::]"}))
