"""``export --check``: which numbers of a file contradict the plan. Pure.

Each rule reads one setting, or takes the program's default where the file has none, and compares it with the
facts of the plan. The rules are those by which export writes the same files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..errors import Problem
from ..utils.units import MIB, format_size
from .facts import Facts
from .haproxy import purge_delay
from .reading import seconds, size, values, without_comments

Rule = Callable[[str, str, Facts], Iterator[Problem]]

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


SECRET = re.compile(r"^(ENV|ARG) .*(SECRET|PASSWORD|TOKEN|_KEY\b)", re.MULTILINE)


def contradictions(kind: str, text: str, facts: Facts) -> list[Problem]:
    """Return every contradiction between a file and the plan."""
    code = without_comments(text)
    kind = "systemd" if kind == "systemd-socket" and "[Service]" in code else kind
    rules: list[Rule] = [_kills, _waits, _idles, *RULES.get(kind, ())]
    if kind == "systemd" and "PRODSERVE_PROCESS=" in code:  # the unit of a process, not of the server
        rules = [_kills]
    if facts.target.is_container and kind != "dockerfile":
        rules.append(_container)
    return [problem for rule in rules for problem in rule(kind, code, facts)]


def _found(message: str, fix: str) -> Problem:
    return Problem(message, fix, code="conflict", topic="export")


def _number(code: str, row: tuple[str, str, float]) -> tuple[float, str]:
    """Return the smallest number that a file sets, with its text; else the default."""
    pattern, name, default = row
    found = {seconds(text): f"{name} {text.strip()}" for text in values(code, pattern)}
    return min(found.items()) if found else (default, f"{name}, by default {default:g} s,")


def _kills(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if kind not in KILLS or (kind == "systemd" and "[Service]" not in code):
        return
    limit, shown = _number(code, KILLS[kind])
    sleep = sum(map(float, values(code, r"preStop[\s\S]{0,120}?sleep[\"',: \n]*(?:seconds: *)?(\d+)")))
    need = facts.drain.value + facts.graceful.value + sleep
    if limit <= need:
        more = f" + preStop {sleep:g} s" if sleep else ""
        yield _found(
            f"{shown} ends before the server: drain {facts.drain.value:g} s + graceful timeout "
            f"{facts.graceful.value:g} s{more}.",
            f"Set it to {math.ceil(need) + 5}, or lower --graceful-timeout",
        )


def _waits(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if kind not in WAITS:
        return
    limit, shown = _number(code, WAITS[kind])
    if limit < min(facts.proxy_timeout.value, 3600 if kind == "cloudrun" else math.inf):
        yield _found(
            f"{shown} gives up before the server's request timeout of {facts.timeout.value:g} s.",
            f"Set it to {facts.proxy_timeout.value} s",
        )


def _idles(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    reuses = kind != "nginx" or re.search(r"upstream[^{]*\{[^}]*?\bkeepalive +\d", code)
    if kind not in IDLES or not reuses or re.search(r"keepalive +off|pool-max-conn +0", code):
        return
    limit, shown = _number(code, IDLES[kind])
    most = purge_delay(facts.proxy_idle.value) / 1000 if kind == "haproxy" else facts.proxy_idle.value
    if limit > most:
        yield _found(
            f"{shown} is too long for the server's keep-alive of {facts.keep_alive.value:g} s: a request may "
            "meet a connection that the server closes.",
            f"Set it to {f'{1000 * most:g} ms' if kind == 'haproxy' else f'{most} s'}",
        )


def _container(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if not facts.has_own_body:
        yield _found(
            "The server has no --max-body: bodies may fill the disk or the memory of the container.",
            f"--max-body {facts.body.value // MIB}m",
        )
    for port in values(code, r"(?:containerPort|internal_port|app_port)\W+(\d+)"):
        if int(port) != facts.address.port:
            yield _found(
                f"Port {port} is not the server's: {facts.address.port}.", f"Use {facts.address.port}"
            )
    for path in values(code, r"(?:httpGet: *\{path|healthCheckPath|^ +path): *\"?(/[^\s,\"}]*)"):
        if facts.live and path not in (facts.live, facts.ready):
            yield _found(
                f"The probe asks {path}, which Django answers: ALLOWED_HOSTS and load matter.",
                f"Use {facts.live} and {facts.ready}",
            )


def _absent(code: str, pattern: str, message: str, fix: str) -> Iterator[Problem]:
    if not re.search(pattern, code, re.MULTILINE):
        yield _found(message, fix)


def _present(code: str, pattern: str, message: str, fix: str) -> Iterator[Problem]:
    if re.search(pattern, code, re.MULTILINE):
        yield _found(message, fix)


def _systemd(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if "[Service]" in code:
        yield from _absent(
            code,
            r"^Type=notify$",
            "Type is not notify: an unknown type becomes simple, and a start does not wait.",
            "Type=notify",
        )
        yield from _absent(
            code, r"^ExecReload=", "There is no ExecReload.", "ExecReload=... prodserve reload"
        )
        start = _number(code, (r"^TimeoutStartSec=(.+)$", "TimeoutStartSec", 90))
        if facts.start.value > 600 > start[0]:
            yield _found(f"{start[1]} is too short: {facts.start.why}.", f"Set it to {facts.start.value}")
    if "[Socket]" in code and re.search(r"^ListenStream=/", code, re.MULTILINE):
        yield from _absent(
            code,
            r"^SocketMode=0?660$",
            "Every account may connect to the socket, and counts as a trusted proxy.",
            "SocketMode=0660",
        )


def _supervisor(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from _present(code, r"^stopsignal *= *(?!TERM)", "The stop signal is not TERM.", "stopsignal=TERM")
    yield from _present(
        code, r"^command *=.*\b(sh|bash) -c", "A shell gets the stop signal.", "Start prodserve itself"
    )


def _nginx(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    bodies = values(code, r"client_max_body_size +(\w+);") or ["1m"]
    for text in bodies:
        if size(text) != facts.body.value and (size(text) or facts.body.value):
            ours = format_size(facts.body.value) if facts.body.value else "no maximum"
            yield _found(
                f"client_max_body_size {text} is not the server's --max-body: {ours}.",
                f"client_max_body_size {facts.body.value};",
            )
    yield from _absent(
        code,
        r"proxy_http_version 1\.1;",
        "nginx before 1.29.7 sends HTTP/1.0, and shares no connection.",
        "proxy_http_version 1.1;",
    )
    yield from _absent(
        code,
        r"proxy_set_header +Connection ",
        "nginx sends Connection: close.",
        'proxy_set_header Connection "";',
    )
    for name in ("proxy_buffering", "proxy_request_buffering"):
        yield from _absent(
            code,
            rf"{name} +off;",
            f"{name} is on: nginx holds what the server collects anyway.",
            f"{name} off;",
        )
    yield from _headers(code, "proxy_set_header {0} ", 'proxy_set_header {0} "";')
    yield from _upstream(
        code, r"^\s*(?:server|proxy_pass) +(?:http://)?((?:unix:|[\d.\[]|localhost)[^\s;]*)", facts
    )


def _headers(code: str, pattern: str, fix: str) -> Iterator[Problem]:
    """Yield the headers that a proxy must set or clear, and does not."""
    for name in ("X-Forwarded-Host", "Forwarded"):
        yield from _absent(
            code,
            pattern.format(name),
            f"{name} of a client reaches Django.",
            fix.format(name),
        )


def _upstream(code: str, pattern: str, facts: Facts) -> Iterator[Problem]:
    ours = facts.address.path or facts.address.reached
    for text in values(code, pattern):
        plain = re.sub(r"^(unix[:@/]|unix//)", "", text).replace("localhost", "127.0.0.1").rstrip("/")
        if plain.lstrip("/") != ours.lstrip("/") and not plain.startswith(ours):
            yield _found(f"The proxy sends requests to {text}, and the server is at {ours}.", f"Use {ours}")


def _haproxy(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from _absent(
        code,
        r"^\s*timeout +server ",
        "There is no timeout server.",
        f"timeout server {facts.proxy_timeout.value}s",
    )
    yield from _absent(
        code,
        r"option +http-no-delay",
        "HAProxy holds pieces of a stream for up to 210 ms.",
        "option http-no-delay",
    )
    yield from _present(
        code,
        r"shutdown-sessions",
        "on-marked-down shutdown-sessions ends requests that the server finishes.",
        "Remove it",
    )
    if not re.search(r"disable-l7-retry", code):
        yield from _present(
            code,
            r"retry-on +.*(all-retryable-errors|empty-response|response-timeout|50\d)",
            "HAProxy sends a POST twice.",
            "retry-on conn-failure",
        )
    yield from _headers(code, r"del-header +{0}\s", "http-request del-header {0}")
    yield from _fall_time(code, facts)
    yield from _machines(code)


def _machines(code: str) -> Iterator[Problem]:
    """Yield what the lines of the machines lack: options of a default-server line count for no machine."""
    lines = [line for line in values(code, r"^\s*server .*$") if not re.search(r" (unix@|/)", line)]
    if [line for line in lines if "tcp-ut " not in line] or (lines and "option srvtcpka" not in code):
        yield _found(
            "A machine without a network holds its requests until the timeout.",
            "option srvtcpka, and tcp-ut 4s on each server line",
        )
    if len(lines) < 2:
        return
    if [line for line in lines if not re.search(r" check\b", line)]:
        yield _found(
            "HAProxy sends requests to a machine that is down: its server line has no check.",
            "option httpchk GET /readyz, and check on each server line",
        )
    if not re.search(r"^\s*option +redispatch +1\b", code, re.MULTILINE):
        yield _found(
            "HAProxy tries a connection that failed at the same machine again.", "option redispatch 1"
        )


def _fall_time(code: str, facts: Facts) -> Iterator[Problem]:
    for line in values(code, r"^\s*(?:default-)?server .*\bcheck\b.*$|^\s*default-server .*$"):
        inter = seconds((values(line, r"\binter +(\w+)") or ["2s"])[0], "ms")
        fast = seconds((values(line, r"\bfastinter +(\w+)") or [f"{inter * 1000:g}ms"])[0], "ms")
        fall = int((values(line, r"\bfall +(\d+)") or ["3"])[0])
        need = inter + (fall - 1) * fast
        if " check" in line and need >= facts.drain.value:
            yield _found(
                f"HAProxy notices a drain after {need:g} s; the server drains for {facts.drain.value:g} s.",
                f"--drain-delay {math.ceil(need) + 1}",
            )


def _caddy(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    for text in values(code, r"max_size +(\w+)"):
        if size(text) != facts.body.value:
            ours = format_size(facts.body.value) if facts.body.value else "no maximum"
            yield _found(
                f"max_size {text} is not the server's --max-body: {ours}.", f"max_size {facts.body.value}"
            )
    yield from _upstream(code, r"reverse_proxy +((?:unix/|[\d.\[]|localhost)\S*)", facts)


def _dockerfile(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from _absent(
        code,
        r"^(CMD|ENTRYPOINT) *\[",
        "A shell gets the stop signal: CMD is not a list.",
        'CMD ["prodserve"]',
    )
    yield from _absent(
        code,
        r"^USER +[1-9]\d*",
        "The account is root's, or a name: Kubernetes cannot see whether a name is root's.",
        "USER 10001:10001",
    )
    if SECRET.search(code):
        yield _found(
            "A secret in ENV or ARG stays in the image.", "Give it to one RUN line: RUN NAME=... command"
        )
    yield from _present(
        code, r"^\s*(HEALTHCHECK|CMD).*\bcurl\b", "Slim images have no curl.", "Use python -c, as export does"
    )
    for port in values(code, r"^EXPOSE +(\d+)"):
        if int(port) != facts.address.port:
            yield _found(f"EXPOSE {port} is not the server's port: {facts.address.port}.", "Correct it")


def _compose(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from _present(
        code,
        r"tmpfs:[\s\S]{0,40}?/tmp|type: tmpfs",
        "/tmp is memory: request bodies count against the limit of the container.",
        "Use a volume",
    )
    for port in values(code, r"^ +- *\"?(?:[\d.]+:)?\d+:(\d+)\"?$"):
        if int(port) != facts.address.port:
            yield _found(
                f"Port {port} is not the server's: {facts.address.port}.", f"Use {facts.address.port}"
            )


def _kubernetes(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if "HorizontalPodAutoscaler" in code:
        yield from _present(
            code, r"^ +replicas:", "Each apply resets what the autoscaler has set.", "Remove replicas"
        )
    yield from _present(
        code,
        r"medium: *\"?Memory",
        "/tmp is memory: request bodies count against the limit of the pod.",
        "Remove medium: Memory",
    )
    sizes = [values(code, rf"{word}:[^}}]{{0,80}}?memory: *\"?(\w+)") for word in ("requests", "limits")]
    if not sizes[1]:
        yield _found("There is no limit of memory.", f"limits: memory: {facts.memory.value // MIB}Mi")
    elif sizes[0] != sizes[1]:
        yield _found(
            "The request of memory is not its limit: the server plans for the limit.", "Make them equal"
        )
    yield from _absent(
        code, r"limits:[^}]{0,80}?cpu:", "Without a limit of CPU the server plans for up to 8.", "Set one"
    )
    probes = re.findall(r"(startup|liveness|readiness)Probe:(.*(?:\n {10,}(?! *\w+Probe:).*)*)", code)
    for name, probe in probes:
        if name == "liveness" and seconds((values(probe, r"timeoutSeconds: *(\d+)") or ["1"])[0]) < 5:
            yield _found("A liveness probe of 1 s kills a server that computes.", "timeoutSeconds: 5")
    started = [_probe_time(probe) for name, probe in probes if name == "startup"]
    if not started or min(started) < min(facts.start.value, 60 if facts.start.value < 600 else 600):
        yield _found(
            f"The startup probe ends too early: a start may take {facts.start.value} s.",
            f"startupProbe with periodSeconds: 5 and failureThreshold: {math.ceil(facts.start.value / 5)}",
        )
    pods = values(code, r"minReplicas: *(\d+)")
    kept = values(code, r"minAvailable: *(\d+)$")
    if pods and kept and int(kept[0]) >= int(pods[0]):
        yield _found("minAvailable is not less than minReplicas: no node can be drained.", "minAvailable: 1")
    if facts.drain.value and re.search(r"preStop:", code):
        yield _found("preStop is added to the drain delay.", "Remove preStop, or set --drain-delay 0")
    if re.search(r"readOnlyRootFilesystem: *true", code):
        yield from _absent(code, r"mountPath: */tmp\b", "/tmp is read-only.", "Mount an emptyDir at /tmp")


def _probe_time(probe: str) -> float:
    period = seconds((values(probe, r"periodSeconds: *(\d+)") or ["10"])[0])
    return period * int((values(probe, r"failureThreshold: *(\d+)") or ["3"])[0])


RULES: Mapping[str, Sequence[Rule]] = {
    "systemd": [_systemd],
    "systemd-socket": [_systemd],
    "supervisor": [_supervisor],
    "nginx": [_nginx],
    "haproxy": [_haproxy],
    "caddy": [_caddy],
    "dockerfile": [_dockerfile],
    "compose": [_compose],
    "kubernetes": [_kubernetes],
}
"""What else is compared, by kind."""
