"""Facts that the hosting platform implies: port, grace period, trust, idle timeout of its router. Pure.

Every rule names the variable that it was read from. The figures come from each platform's documentation of
November 2026.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Platform:
    """One hosting platform, as its environment variables show it; times in seconds."""

    name: str
    marker: str
    """The variable (or file) that identified the platform."""
    values: Mapping[str, str]
    """Option name to raw value: the platform's values. They override computed values, not explicit ones."""
    why: Mapping[str, str]
    """Option name to reason, for the plan."""
    replaces_instances: bool = False
    """Whether the platform deploys new code as new instances, so that no server reloads in place."""
    kills_after: int = 0
    """After how many seconds the platform kills a server that it has asked to stop; 0 if that is unknown."""
    kills_why: str = ""
    """Where that figure comes from."""
    kill_setting: str = ""
    """The setting of the platform that changes it; empty if nothing does."""


NOWHERE = Platform(name="", marker="", values={}, why={})

KILLS_AFTER = "PRODSERVE_KILLS_AFTER"
"""The variable with the seconds after which the platform kills, where its own setting was changed."""
DOCKER_KILLS_AFTER = 10
"""Seconds; the default of ``docker stop``, ``podman stop`` and compose."""
DOCKER_SETTING = "stop_grace_period or docker stop --time"

_ROUTED = "only the platform's router can reach this process"


@dataclass(frozen=True, kw_only=True)
class _Rule:
    name: str
    marker: str
    values: Mapping[str, str]
    why: Mapping[str, str]
    kills_after: int
    kill_setting: str = ""
    kill_variable: str = ""
    """The variable by which the platform passes that setting to the server."""
    replaces_instances: bool = True


def _router(hops: int) -> dict[str, str]:
    """Trust the router; the client is the entry of X-Forwarded-For that many places from the right."""
    return {"trusted_proxies": "*", "trusted_hops": str(hops)}


RULES = (
    _Rule(
        name="Heroku",
        marker="DYNO",
        kills_after=30,
        # The router holds idle connections for 90 s, and kills a dyno 30 s after SIGTERM.
        values={**_router(1), "keep_alive": "100", "graceful_timeout": "25", "timeout": "30"},
        why={
            "keep_alive": "longer than the 90 s of Heroku's router",
            "graceful_timeout": "Heroku kills 30 s after SIGTERM",
            "timeout": "Heroku's router gives up after 30 s",
        },
    ),
    _Rule(
        name="Render",
        marker="RENDER",
        kills_after=30,
        kill_setting="maxShutdownDelaySeconds",
        values={**_router(3), "graceful_timeout": "25"},
        why={"graceful_timeout": "Render kills 30 s after SIGTERM"},
    ),
    _Rule(
        name="Fly",
        marker="FLY_APP_NAME",
        kills_after=5,
        kill_setting="kill_timeout",
        values={**_router(2), "graceful_timeout": "4"},
        why={"graceful_timeout": "Fly kills 5 s after SIGINT, unless kill_timeout is longer"},
    ),
    _Rule(
        name="Cloud Run",
        marker="K_SERVICE",
        kills_after=10,
        values={**_router(1), "keep_alive": "620", "graceful_timeout": "8"},
        why={
            "keep_alive": "longer than the 600 s of Google's load balancer",
            "graceful_timeout": "Cloud Run kills 10 s after SIGTERM",
        },
    ),
    _Rule(
        name="Railway",
        marker="RAILWAY_ENVIRONMENT",
        kills_after=3,
        kill_setting="RAILWAY_DEPLOYMENT_DRAINING_SECONDS",
        kill_variable="RAILWAY_DEPLOYMENT_DRAINING_SECONDS",
        values={**_router(2), "graceful_timeout": "2"},
        why={"graceful_timeout": "Railway kills 3 s after SIGTERM, unless its draining time is longer"},
    ),
    _Rule(
        name="Kubernetes",
        marker="KUBERNETES_SERVICE_HOST",
        kills_after=30,
        kill_setting="terminationGracePeriodSeconds",
        # Kubernetes removes endpoints when it stops the pod, not before: requests arrive for a few seconds.
        values={"drain_delay": "5", "graceful_timeout": "22"},
        why={
            "drain_delay": "Services send requests for a while after SIGTERM",
            "graceful_timeout": "with the drain delay within terminationGracePeriodSeconds, 30 s by default",
        },
    ),
    _Rule(
        name="systemd",
        marker="INVOCATION_ID",
        kills_after=90,
        kill_setting="TimeoutStopSec",
        values={"graceful_timeout": "25"},
        why={"graceful_timeout": "well within TimeoutStopSec, 90 s by default"},
        replaces_instances=False,
    ),
)


def detect(environ: Mapping[str, str]) -> Platform:
    """Return the platform whose marker is set; a platform without a name if no marker is."""
    for rule in RULES:
        if environ.get(rule.marker):
            why = {
                "trusted_proxies": f"{rule.name} ({rule.marker} is set): {_ROUTED}",
                "trusted_hops": f"{rule.name}'s router appends to X-Forwarded-For",
                **rule.why,
            }
            platform = Platform(
                name=rule.name,
                marker=rule.marker,
                values=rule.values,
                why=why,
                replaces_instances=rule.replaces_instances,
                kills_after=rule.kills_after,
                kills_why="always" if not rule.kill_setting else f"by default: {rule.kill_setting}",
                kill_setting=rule.kill_setting,
            )
            return _changed(platform, environ, rule.kill_variable)
    return _changed(NOWHERE, environ, "")


def _changed(platform: Platform, environ: Mapping[str, str], variable: str) -> Platform:
    """Return the platform with the time that a variable sets, and a graceful timeout that fits in it."""
    for name in (KILLS_AFTER, variable):
        text = environ.get(name, "").strip()
        if not text.isdecimal():
            continue
        seconds = int(text)
        if not platform.name:
            return replace(platform, kills_after=seconds, kills_why=name)
        drain = float(platform.values.get("drain_delay", 0))
        graceful = max(1, int(seconds - max(1, seconds // 6) - drain))
        return replace(
            platform,
            kills_after=seconds,
            kills_why=name,
            values={**platform.values, "graceful_timeout": str(graceful)},
            why={**platform.why, "graceful_timeout": f"{platform.name} kills after {seconds} s ({name})"},
        )
    return platform
