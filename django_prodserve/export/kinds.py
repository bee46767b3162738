"""The kinds of files, each with its target and the function that writes it. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from ..errors import Problem, UsageError
from . import (
    caddy,
    compose,
    dockerfile,
    haproxy,
    kubernetes,
    nginx,
    platforms,
    procfile,
    supervisor,
    systemd,
    target,
)
from .facts import Facts
from .layout import File
from .target import Target


class Kind(NamedTuple):
    """One kind of files."""

    about: str
    target: Target
    render: Callable[[Facts], Sequence[File]]


KINDS: Mapping[str, Kind] = {
    "systemd": Kind("a hardened unit with watchdog and reload", target.SYSTEMD, systemd.service),
    "systemd-socket": Kind("the same with a socket unit", target.SYSTEMD, systemd.with_socket),
    "nginx": Kind("a site of nginx: TLS, websockets, streams, timeouts", target.PROXY, nginx.site),
    "caddy": Kind("a Caddyfile with the same", target.PROXY, caddy.site),
    "haproxy": Kind("a haproxy.cfg with the same, for one machine or several", target.PROXY, haproxy.site),
    "dockerfile": Kind("a Dockerfile and its .dockerignore", target.CONTAINER, dockerfile.files),
    "compose": Kind("a compose.yaml with limits and volumes", target.SIZED_CONTAINER, compose.file),
    "supervisor": Kind("a program of supervisord", target.HOST, supervisor.program),
    "procfile": Kind("a Procfile, for Heroku and others", target.HEROKU, procfile.file),
    "kubernetes": Kind("Deployment, Service, autoscaler, budget", target.KUBERNETES, kubernetes.manifests),
    "fly": Kind("a fly.toml", target.FLY, platforms.fly),
    "render": Kind("a render.yaml", target.RENDER, platforms.render),
    "cloudrun": Kind("a service of Cloud Run", target.CLOUD_RUN, platforms.cloud_run),
    "kamal": Kind("a deploy.yml of Kamal", target.KAMAL, platforms.kamal),
}
ALIASES = {
    "docker": "dockerfile",
    "docker-compose": "compose",
    "gunicorn": "",
    "heroku": "procfile",
    "k8s": "kubernetes",
    "service": "systemd",
    "socket": "systemd-socket",
    "unit": "systemd",
}
"""Other words for a kind; the message proposes the kind."""


def check_kinds(words: Sequence[str]) -> tuple[str, ...]:
    """Return the kinds that the command names, in its order; raise UsageError with the kinds there are."""
    if not words:
        raise UsageError(
            "export needs the kind of file.",
            f"For example: prodserve export systemd. There are {', '.join(KINDS)}.",
            topic="export",
        )
    unknown = [word for word in words if word not in KINDS]
    if unknown:
        raise UsageError.of(
            Problem(f"There is no export {word!r}.", _near(word), topic="export") for word in unknown
        )
    return tuple(dict.fromkeys(words))


def _near(word: str) -> str:
    alias = ALIASES.get(word.lower(), word.lower())
    close = difflib.get_close_matches(alias, KINDS, n=1)
    if "gunicorn" in word.lower():
        return "prodserve plan --gunicorn-conf prints a file for Gunicorn."
    return f"Did you mean {close[0]}?" if close else f"There are {', '.join(KINDS)}."
