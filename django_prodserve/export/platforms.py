"""Files of platforms that build or run an image: Fly, Render, Cloud Run, Kamal. Pure.

Their routers end TLS, name the port, and send the client's address. The server knows their rules when it
starts there (machine/platforms.py).
"""

from __future__ import annotations

import json
import math
import shlex

from ..errors import UsageError
from ..utils.units import MIB
from .container import MIGRATE, USER, by_hand, command, own_directories
from .facts import Facts
from .layout import File, indented, written
from .sides import Side

FLY_KILLS = 300  # seconds; the maximum of kill_timeout
RENDER_KILLS = 300  # seconds; the maximum of maxShutdownDelaySeconds
CLOUD_RUN_KILLS = 10  # seconds after SIGTERM
CLOUD_RUN_STARTS = 240  # seconds; the maximum of failureThreshold x periodSeconds
CLOUD_RUN_REQUEST = 3600  # seconds; the maximum of timeoutSeconds
FLY_MEMORY = 256 * MIB  # sizes are multiples of it


def fly(facts: Facts) -> list[File]:
    """Return fly.toml."""
    facts.refuse_slow_stop("Fly", FLY_KILLS)
    _refuse_certificate(facts, "Fly")
    name = facts.site.name
    memory = math.ceil(facts.memory.value / FLY_MEMORY) * FLY_MEMORY // MIB
    release = "" if not facts.migrates_before else f'\n[deploy]\n  release_command = "{MIGRATE}"\n'
    check = f"""
  [[http_service.checks]]
    method = "GET"
    path = "{facts.ready or facts.live}"
    interval = "10s"
    timeout = "5s"
    # {facts.start.why}
    grace_period = "{facts.start.value}s"
"""
    body = f"""
app = "{name}"
primary_region = "fra"
# The server ends in order at SIGTERM. Fly would send SIGINT.
kill_signal = "SIGTERM"
# {facts.stop.why}
kill_timeout = "{facts.stop.value}s"

[build]
  dockerfile = "Dockerfile"
{release}
[env]
{indented(_lines(facts, '{0} = "{1}"'), 2)}

[processes]
  # {facts.body.why}
  app = {json.dumps(shlex.join(command(facts)))}
{indented(chr(10).join(_fly_side(side) for side in facts.sides), 2)}

[http_service]
  processes = ["app"]
  internal_port = {facts.address.port}
  force_https = true
  auto_stop_machines = "stop"
  auto_start_machines = true
  min_machines_running = 1

  [http_service.concurrency]
    type = "requests"
    # {facts.workers} run at a time; as many again may wait.
    soft_limit = {facts.slots}
    hard_limit = {2 * facts.slots}
{check if facts.live else ""}
[[vm]]
  cpu_kind = "shared"
  # {facts.cpus.why}
  cpus = {max(1, math.ceil(facts.cpus.value))}
  # {facts.memory.why}
  memory = "{memory}mb"
"""
    return [
        written(
            "fly.toml",
            body,
            made_by=facts.made_by,
            goes_to=f"{facts.site.directory}/fly.toml",
            apply=["prodserve export dockerfile --output .", "fly secrets import < .env", "fly deploy"],
            by_hand=["primary_region: the region next to your users and your database", *by_hand(facts)],
        )
    ]


def _fly_side(side: Side) -> str:
    more = f"# fly scale count {side.name}=1: of all machines, one may run it.\n" if side.is_single else ""
    return f"{more}{side.name} = {json.dumps(shlex.join(side.image_words))}"


def render(facts: Facts) -> list[File]:
    """Return render.yaml."""
    facts.refuse_slow_stop("Render", RENDER_KILLS)
    _refuse_certificate(facts, "Render")
    release = f"    preDeployCommand: {MIGRATE}\n" if facts.migrates_before else ""
    health = f"    healthCheckPath: {facts.ready or facts.live}\n" if facts.live else ""
    variables = [
        f"      - {{key: {name}, value: {json.dumps(text) if text.isdecimal() else text}}}"
        for name, text in facts.variables.items()
    ]
    for name in facts.build.required.substitutes:
        kind = "generateValue: true" if name.endswith("SECRET_KEY") else "sync: false"
        variables.append(f"      - {{key: {name}, {kind}}}")
    body = f"""
services:
  - type: web
    name: {facts.site.name}
    runtime: docker
    dockerfilePath: ./Dockerfile
    # {facts.body.why}
    dockerCommand: {shlex.join(command(facts))}
    # The server plans for the size of the instance when it starts there.
    plan: starter
{health}{release}    # {facts.stop.why}
    maxShutdownDelaySeconds: {facts.stop.value}
    envVars:
{chr(10).join(variables)}
{chr(10).join(_render_side(facts, side, variables) for side in facts.sides)}
"""
    return [
        written(
            "render.yaml",
            body,
            made_by=facts.made_by,
            goes_to=f"{facts.site.directory}/render.yaml",
            apply=["prodserve export dockerfile --output .", "git add render.yaml Dockerfile && git push"],
            by_hand=["plan: the size of the instance", *by_hand(facts)],
        )
    ]


def _render_side(facts: Facts, side: Side, variables: list[str]) -> str:
    """Return the worker of a process that the server does not start."""
    return f"""
  - type: worker
    name: {facts.site.name}-{side.name}
    runtime: docker
    dockerfilePath: ./Dockerfile
    dockerCommand: {shlex.join(side.image_words)}
    # {side.memory // MIB} MiB, {side.why}
    plan: starter
    # {facts.stop.why}
    maxShutdownDelaySeconds: {facts.stop.value}
    envVars:
{chr(10).join(variables)}"""


def cloud_run(facts: Facts) -> list[File]:
    """Return the service of Cloud Run."""
    facts.refuse_slow_stop("Cloud Run", CLOUD_RUN_KILLS)
    facts.refuse_router()
    _refuse_certificate(facts, "Cloud Run")
    if "side_processes" in facts.is_stated:
        raise UsageError(
            "Cloud Run gives an instance a CPU only while it answers a request: --with cannot work there.",
            "Leave --with out, and run the process elsewhere: gcloud run worker-pools",
            code="conflict",
            topic="export",
        )
    if facts.start.value > CLOUD_RUN_STARTS:
        raise UsageError(
            f"Cloud Run gives a start {CLOUD_RUN_STARTS} s, but it may take {facts.start.value} s: "
            f"{facts.start.why}.",
            "Run migrations as a job: gcloud run jobs",
            code="conflict",
            topic="export",
        )
    failures = math.ceil(facts.start.value / 10)
    probes = f"""startupProbe:
  httpGet: {{path: {facts.live}, port: {facts.address.port}}}
  periodSeconds: 10
  timeoutSeconds: 5
  # {failures * 10} s: {facts.start.why}
  failureThreshold: {failures}
livenessProbe:
  httpGet: {{path: {facts.live}, port: {facts.address.port}}}
  periodSeconds: 10
  timeoutSeconds: 5"""
    body = f"""
apiVersion: serving.knative.dev/v1
kind: Service
metadata:
  name: {facts.site.name}
spec:
  template:
    metadata:
      annotations:
        autoscaling.knative.dev/maxScale: "10"
        run.googleapis.com/startup-cpu-boost: "true"
    spec:
      # {facts.workers}: one instance runs as many requests at a time.
      containerConcurrency: {facts.slots}
      # {facts.proxy_timeout.why}
      timeoutSeconds: {min(CLOUD_RUN_REQUEST, facts.proxy_timeout.value)}
      containers:
        - image: registry.example/{facts.site.name}:1
          # {facts.body.why}
          args: {json.dumps(command(facts))}
          ports:
            - {{name: http1, containerPort: {facts.address.port}}}
          env:
{indented(_lines(facts, "- {{name: {0}, value: {1}}}"), 12)}
          resources:
            limits:
              # {facts.cpus.why}
              cpu: "{facts.cpus.value:g}"
              # {facts.memory.why}
              memory: {facts.memory.value // MIB}Mi
{indented(probes if facts.live else "", 10)}
"""
    return [
        written(
            "cloudrun.yaml",
            body,
            made_by=facts.made_by,
            apply=["gcloud run services replace cloudrun.yaml"],
            by_hand=[
                f"image: registry.example/{facts.site.name}:1, built with: prodserve export dockerfile",
                "secrets: one entry in env for each, with valueFrom and secretKeyRef",
                *(
                    f"{side.name}, {shlex.join(side.image_words)}: it needs a worker pool (gcloud run "
                    "worker-pools); an instance of a service has a CPU only while it answers"
                    for side in facts.sides
                ),
                *by_hand(facts),
            ],
        )
    ]


def kamal(facts: Facts) -> list[File]:
    """Return deploy.yml."""
    name, options = facts.site.name, []
    if "keep_alive" in facts.is_stated:
        facts.refuse_router()
    else:
        options = ["--keep-alive=1d"]
    secrets = [*facts.build.required.substitutes] or ["SECRET_KEY"]
    volumes = [f"{name}-{place.strip('/').replace('/', '-')}:{place}" for place in own_directories(facts)]
    body = f"""
service: {name}
image: {name}

servers:
  web:
    hosts:
      - 192.0.2.1
    # {facts.body.why}
    # --keep-alive: kamal-proxy never closes an idle connection, so the server must not do so first.
    cmd: {shlex.join([*command(facts), *options])}
    options:
      user: "{USER}"
      # {facts.cpus.why}
      cpus: "{facts.cpus.value:g}"
      # {facts.memory.why}
      memory: {facts.memory.value // MIB}m
      # {facts.stop.why}
      stop-timeout: {facts.stop.value}
{chr(10).join(_kamal_side(facts, side) for side in facts.sides)}

proxy:
  ssl: true
  host: {facts.site.domain}
  app_port: {facts.address.port}
  # {facts.proxy_timeout.why}
  response_timeout: {facts.proxy_timeout.value}
  healthcheck:
    path: {facts.ready or facts.live or "/"}
    interval: 1
    timeout: 5
  # The server collects bodies and waits for slow clients without a thread.
  buffering:
    requests: false
    responses: false

# {facts.start.why}
deploy_timeout: {facts.start.value}
# Requests get as long to end as the server gives them.
drain_timeout: {facts.stop.value}

registry:
  username: {name}
  password:
    - KAMAL_REGISTRY_PASSWORD

builder:
  arch: amd64

env:
  clear:
{indented(_lines(facts, "{0}: {1}"), 4)}
{"" if facts.trusts_someone else "    PRODSERVE_TRUSTED_PROXIES: private"}
  secret:
{chr(10).join(f"    - {secret}" for secret in secrets)}
{"volumes:" if volumes else ""}
{chr(10).join(f"  - {volume}" for volume in volumes)}
"""
    return [
        written(
            "deploy.yml",
            body,
            made_by=facts.made_by,
            goes_to=f"{facts.site.directory}/config/deploy.yml",
            apply=["prodserve export dockerfile --output .", "kamal setup"],
            by_hand=[
                "hosts, registry and builder: your machines, your account, their processor",
                "the secrets in .kamal/secrets, which names commands that print them",
                *([] if facts.site.domains else [f"host: {facts.site.domain}, the domain of the site"]),
                *by_hand(facts),
            ],
        )
    ]


def _kamal_side(facts: Facts, side: Side) -> str:
    """Return the role of a process that the server does not start."""
    single = "    # Of all hosts, one may run it.\n" if side.is_single else ""
    return f"""  {side.name}:
{single}    hosts:
      - 192.0.2.1
    cmd: {shlex.join(side.image_words)}
    proxy: false
    options:
      user: "{USER}"
      # {side.why}
      memory: {side.memory // MIB}m
      stop-timeout: {facts.stop.value}
      # The image's own check asks for a web server.
      no-healthcheck: true"""


def _refuse_certificate(facts: Facts, platform: str) -> None:
    if facts.certificate:
        raise UsageError(
            f"{platform}'s router ends TLS, and speaks plain HTTP to the server.",
            "Leave --certfile and --keyfile out.",
            code="conflict",
            topic="export",
        )


def _lines(facts: Facts, form: str) -> str:
    return "\n".join(form.format(name, text) for name, text in facts.variables.items())
