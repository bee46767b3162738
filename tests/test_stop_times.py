"""When a platform kills, and whether the server has stopped by then."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from django_prodserve.config.options import SourcedValue
from django_prodserve.config.resolve import platform_layer, resolve
from django_prodserve.errors import ProdserveError
from django_prodserve.machine.platforms import KILLS_AFTER, RULES, detect
from django_prodserve.plan.plan import Plan, PlanInputs, make_plan

from .exports import exported
from .facts import machine, project
from .test_resolve import options as resolved_options


def planned(environ: Mapping[str, str], container: str | None = None, **stated: Any) -> Plan:
    """Return the plan on a platform, with these options set by flags."""
    platform = detect(environ)
    flags = {name: SourcedValue(value, f"--{name}") for name, value in stated.items()}
    options = resolve([flags, platform_layer(platform.name, platform.values)])
    found = machine(container=container)
    return make_plan(PlanInputs(machine=found, platform=platform, project=project(), options=options))


def about_stop(plan: Plan) -> list[str]:
    return [f"{found.message} {found.fix}" for found in plan.warnings if found.topic == "graceful-timeout"]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_the_platforms_own_times_fit_and_stated_ones_that_do_not_are_warned_about(rule: Any) -> None:
    environ = {rule.marker: "1"}
    own = planned(environ)
    assert own.drain_delay.value + own.graceful_timeout.value < rule.kills_after
    assert about_stop(own) == []
    (warned,) = about_stop(planned(environ, graceful_timeout=rule.kills_after))
    assert f"{rule.name} kills {rule.kills_after} s after the stop signal" in warned
    room = re.search(r"--graceful-timeout (\d+)", warned)
    assert room is not None
    assert about_stop(planned(environ, graceful_timeout=int(room[1]))) == []
    assert (rule.kill_setting or "always") in warned


def test_a_drain_delay_counts_too_and_what_remains_is_named() -> None:
    (warned,) = about_stop(planned({"KUBERNETES_SERVICE_HOST": "1"}, drain_delay=15))
    assert "drain delay 15 s + graceful timeout 22 s" in warned
    assert "--graceful-timeout 14; or set terminationGracePeriodSeconds to 42" in warned


def test_docker_kills_after_ten_seconds_and_other_containers_are_not_known() -> None:
    (warned,) = about_stop(planned({}, "/.dockerenv exists", graceful_timeout=20))
    assert "The program that runs this container kills 10 s after the stop signal" in warned
    assert about_stop(planned({}, "/.dockerenv exists")) == []
    assert (
        about_stop(planned({}, "the environment has ECS_CONTAINER_METADATA_URI", graceful_timeout=20)) == []
    )
    assert about_stop(planned({}, graceful_timeout=600)) == []


@pytest.mark.parametrize(
    ("environ", "graceful"),
    [
        ({"FLY_APP_NAME": "shop", KILLS_AFTER: "60"}, 50),
        ({"KUBERNETES_SERVICE_HOST": "1", KILLS_AFTER: "60"}, 45),
        ({"RAILWAY_ENVIRONMENT": "production", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "60"}, 50),
        ({"RAILWAY_ENVIRONMENT": "production"}, 2),
        ({"RAILWAY_ENVIRONMENT": "production", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "0"}, 1),
    ],
)
def test_a_changed_time_of_the_platform_is_followed(environ: dict[str, str], graceful: int) -> None:
    plan = planned(environ)
    assert plan.graceful_timeout.value == graceful
    assert about_stop(planned(environ, graceful_timeout=graceful)) == about_stop(plan) == []


def test_the_variable_holds_also_where_no_platform_is_known() -> None:
    assert about_stop(planned({KILLS_AFTER: "30"}, "/.dockerenv exists", graceful_timeout=20)) == []
    assert len(about_stop(planned({KILLS_AFTER: "30"}, graceful_timeout=40))) == 1


def test_a_time_that_is_no_number_is_refused() -> None:
    with pytest.raises(ProdserveError, match=f"{KILLS_AFTER} is 'soon', but must be a number of seconds"):
        resolved_options(environ={KILLS_AFTER: "soon"})


@pytest.mark.parametrize("kind", ["systemd", "kubernetes", "fly", "render"])
def test_a_file_that_changes_the_time_tells_the_server(kind: str) -> None:
    (text,) = exported(kind, graceful_timeout=100).values()
    stop = {"kubernetes": 110}.get(kind, 105)
    assert re.search(rf"(TimeoutStopSec=|terminationGrac\w+: |kill_timeout = \"|maxShut\w+: ){stop}", text)
    assert re.search(rf"{KILLS_AFTER}\W.*\b{stop}\b", text)


@pytest.mark.parametrize("kind", ["systemd", "kubernetes", "fly", "render", "compose", "kamal"])
def test_no_file_repeats_what_the_platform_does_anyway(kind: str) -> None:
    for text in exported(kind).values():
        assert KILLS_AFTER not in text
