"""``export --check``: which numbers of a file contradict the plan. Pure.

Each rule reads one setting, or takes the program's default where the file has none, and compares it with the
facts of the plan. The rules are those by which export writes the same files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ..errors import Problem
from . import check_images, check_proxies, check_services
from .facts import Facts
from .finding import Never, Rule, found, is_late, judged, number
from .haproxy import purge_delay
from .reading import command, values, without_comments

# Where a file sets when its supervisor kills; the name of the setting, and the default in seconds.
KILLS: Mapping[str, tuple[str, str, float]] = {
    "systemd": (r"^TimeoutStopSec=(.+)$", "TimeoutStopSec", 90),
    "supervisor": (r"^stopwaitsecs *= *(\d+)", "stopwaitsecs", 10),
    "compose": (r"^ +stop_grace_period: *[\"']?([\w ]+)", "stop_grace_period", 10),
    "kubernetes": (r"^ +terminationGracePeriodSeconds: *(\d+)", "terminationGracePeriodSeconds", 30),
    "fly": (r"^kill_timeout *= *\"?([\w]+)", "kill_timeout", 5),
    "render": (r"^ +maxShutdownDelaySeconds: *(\d+)", "maxShutdownDelaySeconds", 30),
    "kamal": (r"^ +stop-timeout: *(\d+)", "stop-timeout", 10),
    "cloudrun": (r"(?!)", "the time after SIGTERM", 10),
    "procfile": (r"(?!)", "the time after SIGTERM", 30),
}
# How long a proxy waits for a response.
WAITS: Mapping[str, tuple[str, str, float]] = {
    "nginx": (r"^\s*proxy_read_timeout +(\w+);", "proxy_read_timeout", 60),
    "haproxy": (r"^\s*timeout +server +(\w+)", "timeout server", math.inf),
    "caddy": (r"^\s*response_header_timeout +(\w+)", "response_header_timeout", math.inf),
    "kamal": (r"^ +response_timeout: *(\d+)", "response_timeout", 30),
    "cloudrun": (r"^ {6}timeoutSeconds: *(\d+)", "timeoutSeconds", 300),
}
# How long a proxy keeps an idle connection.
IDLES: Mapping[str, tuple[str, str, float]] = {
    "nginx": (r"upstream[^{]*\{[^}]*?keepalive_timeout +(\w+);", "keepalive_timeout of the upstream", 60),
    "haproxy": (r"pool-purge-delay +(\w+)", "pool-purge-delay", 5),
    "caddy": (r"^\s*keepalive +(\w+)", "keepalive", 120),
}


# How long a start may take before it counts as failed.
STARTS: Mapping[str, tuple[str, str, float]] = {
    "dockerfile": (r"HEALTHCHECK .*--start-period=(\w+)", "start-period", 0),
    "compose": (r"^ +start_period: *\"?(\w+)", "start_period", 0),
    "fly": (r"^ *grace_period *= *\"?(\w+)", "grace_period", 1),
    "kamal": (r"^deploy_timeout: *(\d+)", "deploy_timeout", 30),
}

_COMMAND = r"(?:ExecStart=|^command *=|command: |args: |^ *app *= *\"|dockerCommand: |cmd: |^web: )"
GENERAL = (
    Never(
        rf"{_COMMAND}.*(?<![\w-])(?:ba|da)?sh\b[\"', ]+-l?c\b(?!.*\bexec )|^web: .*(&&|;)",
        "A shell gets the stop signal, and the server does not.",
        "Start prodserve itself",
    ),
    Never(
        r"\bTMPDIR\b\W{1,4}(?:value: *)?\W?(/dev/shm|/run)\b",
        "TMPDIR is memory: request bodies count against the memory limit.",
        "Name a directory on a disk",
    ),
)
"""What is wrong in every file."""
SECRET = Never(
    r"\b[A-Z_]*(?:SECRET|PASSWORD|TOKEN|_KEY\b)[A-Z_]*[\"']?(?: *[:=] *|,?\s*value: *)[\"']?(?![$\s])[\w-]",
    "A secret in the file: whoever reads the file can read it.",
    "Use what the platform has for secrets, as export does",
)


def contradictions(kind: str, text: str, facts: Facts) -> list[Problem]:
    """Return every contradiction between a file and the plan."""
    code = without_comments(text)
    kind = "systemd" if kind == "systemd-socket" and "[Service]" in code else kind
    if not any(word.startswith("--certfile") for word in command(text)):
        facts = replace(facts, certificate="")  # the proxy has it
    rules: list[Rule] = [_kills, _waits, _idles, _starts, _router, _general, *RULES.get(kind, ())]
    if kind == "systemd" and "PRODSERVE_PROCESS=" in code:  # the unit of a process, not of the server
        rules = [_kills]
    if facts.target.is_container and kind != "dockerfile":
        rules.append(check_images.container)
    return [problem for rule in rules for problem in rule(kind, code, facts)]


def _general(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(code, *GENERAL)
    if kind != "dockerfile":  # it has a rule of its own: a secret of one RUN line is in no layer
        yield from judged(code, SECRET)


def _starts(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if kind not in STARTS or (kind == "dockerfile" and "HEALTHCHECK" not in code):
        return
    limit, shown = number(code, STARTS[kind])
    if is_late(limit, facts.start.value):
        yield found(f"{shown} is too short: {facts.start.why}.", f"Set it to {facts.start.value}s")


def _router(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from facts.against_router()
    if facts.target.names_port and "bind" in facts.is_stated:
        yield found("--bind wins over PORT, which the platform sets.", "Remove --bind")


def _kills(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if kind not in KILLS or (kind == "systemd" and "[Service]" not in code):
        return
    limit, shown = number(code, KILLS[kind])
    sleep = sum(map(float, values(code, r"preStop[\s\S]{0,120}?sleep[\"',: \n]*(?:seconds: *)?(\d+)")))
    need = facts.drain.value + facts.graceful.value + sleep
    if limit <= need:
        more = f" + preStop {sleep:g} s" if sleep else ""
        yield found(
            f"{shown} ends before the server: drain {facts.drain.value:g} s + graceful timeout "
            f"{facts.graceful.value:g} s{more}.",
            f"Set it to {math.ceil(need) + 5}, or lower --graceful-timeout",
        )


def _waits(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if kind not in WAITS:
        return
    limit, shown = number(code, WAITS[kind])
    if limit < min(facts.proxy_timeout.value, 3600 if kind == "cloudrun" else math.inf):
        yield found(
            f"{shown} gives up before the server's request timeout of {facts.timeout.value:g} s.",
            f"Set it to {facts.proxy_timeout.value} s",
        )


def _idles(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    reuses = kind != "nginx" or re.search(r"upstream[^{]*\{[^}]*?\bkeepalive +\d", code)
    if kind not in IDLES or not reuses or re.search(r"keepalive +off|pool-max-conn +0", code):
        return
    limit, shown = number(code, IDLES[kind])
    most = purge_delay(facts.proxy_idle.value) / 1000 if kind == "haproxy" else facts.proxy_idle.value
    if limit > most:
        yield found(
            f"{shown} is too long for the server's keep-alive of {facts.keep_alive.value:g} s: a request may "
            "meet a connection that the server closes.",
            f"Set it to {f'{1000 * most:g} ms' if kind == 'haproxy' else f'{most} s'}",
        )


_PROXY = (check_proxies.bodies, check_proxies.tls, check_proxies.upstream)
RULES: Mapping[str, Sequence[Rule]] = {
    "systemd": [check_services.systemd],
    "systemd-socket": [check_services.systemd],
    "supervisor": [check_services.supervisor],
    "nginx": [*_PROXY, check_proxies.nginx],
    "haproxy": [*_PROXY, check_proxies.haproxy],
    "caddy": [*_PROXY, check_proxies.caddy],
    "dockerfile": [check_images.dockerfile, check_images.health],
    "compose": [check_images.compose, check_images.health],
    "kubernetes": [check_images.kubernetes],
    "fly": [check_images.fly],
    "cloudrun": [check_images.cloud_run],
    "kamal": [check_images.kamal],
}
"""What else is compared, by kind."""
