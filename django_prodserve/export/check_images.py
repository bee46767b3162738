"""Contradictions in files of images and of what runs them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

from ..errors import Problem
from ..http.limits import DISK_RESERVE
from ..utils.units import MIB, format_size
from .facts import Facts
from .finding import Must, Never, found, is_late, judged, number
from .reading import seconds, size, values

SECRET = r"^(ENV|ARG) .*(SECRET|PASSWORD|TOKEN|_KEY\b)|^(COPY|ADD) .*\.env\b"
NO_TMP = Must(r":/tmp\b|mountPath: */tmp\b", "/tmp is read-only.", "Mount a volume at /tmp")
MEMORY = Must(
    r"memory: *\S|mem_limit:",
    "There is no limit of memory: the server plans for the machine.",
    "memory: 512M",
)
CPUS = Must(r"cpus: *\S", "Without a limit of CPU the server plans for up to 8.", 'cpus: "1"')


def container(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    """Compare what all files have that run an image."""
    if not facts.has_own_body:
        yield found(
            "The server has no --max-body: bodies may fill the disk or the memory of the container.",
            f"--max-body {facts.body.value // MIB}m",
        )
    ports = r"(?:containerPort|internal_port|app_port|targetPort|httpGet: *\{[^}\n]*port)\W+(\d+)"
    for port in (*values(code, ports), *values(code, r"httpGet:\s*\n(?:\s+\w+: \S+\n)*?\s+port: *(\d+)")):
        yield from _port(port, facts)
    paths = r"(?:httpGet: *\{[^}\n]*path|healthCheckPath|^ +path) *[:=] *\"?(/[^\s,\"}]*)"
    for path in values(code, paths):
        yield from _path(path, facts)
    if kind in ("kubernetes", "compose", "kamal") and not facts.trusts_someone:
        yield from judged(
            code,
            Must(
                "PRODSERVE_TRUSTED_PROXIES",
                "The server trusts no proxy: every client has the address of the proxy, and http.",
                "PRODSERVE_TRUSTED_PROXIES: private",
            ),
        )


def _port(port: str, facts: Facts) -> Iterator[Problem]:
    if int(port) != facts.address.port:
        yield found(f"Port {port} is not the server's: {facts.address.port}.", f"Use {facts.address.port}")


def _path(path: str, facts: Facts) -> Iterator[Problem]:
    if facts.live and path not in (facts.live, facts.ready):
        yield found(
            f"The probe asks {path}, which Django answers: ALLOWED_HOSTS and load matter.",
            f"Use {facts.live} and {facts.ready}",
        )


def health(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    """Compare the command that asks whether a container is alive."""
    for port, path in re.findall(r"http://(?:127\.0\.0\.1|localhost|\[::1\]):(\d+)(/[^\s'\"\\]*)", code):
        if int(port) != facts.address.port:
            yield found(f"The probe asks port {port}, not the server's: {facts.address.port}.", "Correct it")
        yield from _path(path, facts)
    yield from judged(
        code,
        Never(
            r"(HEALTHCHECK|CMD|test:).*\bcurl\b", "Slim images have no curl.", "Use python -c, as export does"
        ),
    )


def dockerfile(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(
        code,
        Must(
            r"^(CMD|ENTRYPOINT) *\[",
            "A shell gets the stop signal: CMD is not a list.",
            'CMD ["prodserve"]',
        ),
        Must(
            r"^USER +[1-9]\d*",
            "The account is root's, or a name: Kubernetes cannot see whether a name is root's.",
            "USER 10001:10001",
        ),
        Never(
            SECRET,
            "A secret in ENV or ARG stays in the image.",
            "Give it to one RUN line: RUN NAME=... command",
        ),
        Never(
            r"^STOPSIGNAL(?! +(SIGTERM|15))",
            "The stop signal is not SIGTERM: requests are aborted.",
            "Remove STOPSIGNAL",
        ),
        Never(
            r"^(CMD|ENTRYPOINT).*\btini\b.*\"-g\"",
            "tini -g sends the stop signal to workers too.",
            "Remove tini: the server reaps processes itself",
        ),
    )
    for port in values(code, r"^EXPOSE +(\d+)"):
        if int(port) != facts.address.port:
            yield found(f"EXPOSE {port} is not the server's port: {facts.address.port}.", "Correct it")


def compose(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(
        code,
        Never(
            r"tmpfs:[\s\S]{0,40}?/tmp|type: tmpfs",
            "/tmp is memory: request bodies count against the limit of the container.",
            "Use a volume",
        ),
        Never(
            r"stop_signal:(?! *\"?SIGTERM)",
            "The stop signal is not SIGTERM: requests are aborted.",
            "Remove stop_signal",
        ),
        Never(r"^ +user:(?! *\"?[1-9])", "The account is root's, or a name.", 'user: "10001:10001"'),
        MEMORY,
        CPUS,
    )
    if re.search(r"read_only: *true", code):
        yield from judged(code, NO_TMP)
    for host, port in re.findall(r"(?m)^ +- *\"?([\d.]+:)?\d+:(\d+)\"?$", code):
        yield from _port(port, facts)
        if not host and re.search(r"PRODSERVE_TRUSTED_PROXIES: *\"?private", code):
            yield found(
                "Every address reaches the server, and the network of the container counts as a proxy.",
                f'"127.0.0.1:{port}:{port}"',
            )


def kubernetes(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    if "HorizontalPodAutoscaler" in code:
        yield from judged(
            code,
            Never(r"^ +replicas:", "Each apply resets what the autoscaler has set.", "Remove replicas"),
            Must(
                r"requests:(?:(?!limits)[^}]){0,80}?cpu:",
                "Without a request of CPU the autoscaler has no measure.",
                f"requests: cpu: {round(facts.cpus.value * 1000)}m",
            ),
        )
    yield from judged(code, *KUBERNETES)
    yield from _pod_size(code, facts)
    yield from _pod_times(code, facts)
    pods = values(code, r"minReplicas: *(\d+)")
    kept = values(code, r"minAvailable: *(\d+)$")
    if pods and kept and int(kept[0]) >= int(pods[0]):
        yield found("minAvailable is not less than minReplicas: no node can be drained.", "minAvailable: 1")
    if re.search(r"readOnlyRootFilesystem: *true", code):
        yield from judged(code, NO_TMP)
    yield from _ingress(code, facts)


KUBERNETES = (
    Never(
        r"medium: *\"?Memory",
        "/tmp is memory: request bodies count against the limit of the pod.",
        "Remove medium: Memory",
    ),
    Must(r"limits:[^}]{0,80}?cpu:", "Without a limit of CPU the server plans for up to 8.", "Set one"),
    Never(r"runAsUser: *0\b", "The account is root's.", "runAsUser: 10001"),
    Never(
        r"maxUnavailable: *\"?100%|type: *Recreate",
        "maxUnavailable 100% or Recreate: all pods stop before a new one serves.",
        "maxUnavailable: 0",
    ),
    Never(
        r"livenessProbe:\s*\n?\s*httpGet:\s*\{?\s*path: */readyz",
        "The liveness probe asks /readyz: a database that is away restarts the pods.",
        "path: /livez",
    ),
)


def _pod_size(code: str, facts: Facts) -> Iterator[Problem]:
    sizes = [values(code, rf"{word}:[^}}]{{0,80}}?memory: *\"?(\w+)") for word in ("requests", "limits")]
    if not sizes[1]:
        yield found("There is no limit of memory.", f"limits: memory: {facts.memory.value // MIB}Mi")
    elif sizes[0] != sizes[1]:
        yield found(
            "The request of memory is not its limit: the server plans for the limit.", "Make them equal"
        )
    for text in values(code, r"sizeLimit: *\"?(\w+)"):
        if size(text) < facts.body.value + DISK_RESERVE:
            yield found(
                f"sizeLimit {text} evicts the pod at a body of {format_size(facts.body.value)}.",
                f"sizeLimit: {facts.spool.value // MIB}Mi",
            )


def _pod_times(code: str, facts: Facts) -> Iterator[Problem]:
    probes = re.findall(r"(startup|liveness|readiness)Probe:(.*(?:\n {10,}(?! *\w+Probe:).*)*)", code)
    for name, probe in probes:
        if name == "liveness" and seconds((values(probe, r"timeoutSeconds: *(\d+)") or ["1"])[0]) < 5:
            yield found("A liveness probe of 1 s kills a server that computes.", "timeoutSeconds: 5")
        fails = _probe_time(probe)
        if name == "readiness" and 0 < facts.drain.value <= fails:
            yield found(
                f"The readiness probe fails after {fails:g} s; the drain delay is {facts.drain.value:g} s.",
                f"periodSeconds: {max(1, int(facts.drain.value / 3))} and failureThreshold: 2",
            )
    yield from startup(code, facts, probes)
    if facts.drain.value and re.search(r"preStop:", code):
        yield found("preStop is added to the drain delay.", "Remove preStop, or set --drain-delay 0")


def startup(code: str, facts: Facts, probes: list[tuple[str, str]]) -> Iterator[Problem]:
    """Compare the startup probe with the time that a start may take."""
    started = [_probe_time(probe) for name, probe in probes if name == "startup"]
    if not started or is_late(min(started), facts.start.value):
        yield found(
            f"The startup probe ends too early: a start may take {facts.start.value} s.",
            f"startupProbe with periodSeconds: 5 and failureThreshold: {math.ceil(facts.start.value / 5)}",
        )


def _probe_time(probe: str) -> float:
    period = seconds((values(probe, r"periodSeconds: *(\d+)") or ["10"])[0])
    return period * int((values(probe, r"failureThreshold: *(\d+)") or ["3"])[0])


def _ingress(code: str, facts: Facts) -> Iterator[Problem]:
    for text in values(code, r"proxy-read-timeout: *[\"']?(\d+)"):
        if seconds(text) < facts.proxy_timeout.value:
            yield found(
                f"proxy-read-timeout {text} gives up before the server's request timeout.",
                f'proxy-read-timeout: "{facts.proxy_timeout.value}"',
            )
    for text in values(code, r"proxy-body-size: *[\"']?(\w+)"):
        if size(text) < facts.body.value and size(text):
            yield found(
                f"proxy-body-size {text} is not the server's --max-body: {format_size(facts.body.value)}.",
                f"proxy-body-size: {facts.body.value // MIB}m",
            )


def fly(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(
        code,
        Must(
            r"^kill_signal *= *\"SIGTERM\"",
            "The stop signal is not SIGTERM: Fly sends SIGINT, at which requests are aborted.",
            'kill_signal = "SIGTERM"',
        ),
    )
    for text in values(code, r"hard_limit *= *(\d+)"):
        if int(text) > 2 * facts.slots:
            yield _too_many(f"hard_limit {text}", 2 * facts.slots, facts)


def cloud_run(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    text = (values(code, r"containerConcurrency: *(\d+)") or [""])[0]
    if int(text or 80) > facts.slots:
        shown = f"containerConcurrency {text}" if text else "containerConcurrency, by default 80,"
        yield _too_many(shown, facts.slots, facts)
    yield from startup(
        code, facts, re.findall(r"(startup|liveness)Probe:(.*(?:\n {10,}(?! *\w+Probe:).*)*)", code)
    )


def _too_many(shown: str, most: int, facts: Facts) -> Problem:
    return found(f"{shown} is more than runs at a time: {facts.workers}.", f"Set it to {most}")


def kamal(kind: str, code: str, facts: Facts) -> Iterator[Problem]:
    yield from judged(
        code,
        Never(
            r"^ +(requests|responses): *true",
            "kamal-proxy holds what the server collects anyway.",
            "buffering: requests: false, responses: false",
        ),
    )
    limit, shown = number(code, (r"^drain_timeout: *(\d+)", "drain_timeout", 30))
    if limit < facts.drain.value + facts.graceful.value:
        yield found(f"{shown} ends requests before the server does.", f"drain_timeout: {facts.stop.value}")
