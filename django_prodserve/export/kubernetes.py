"""A Deployment with its Service, HorizontalPodAutoscaler and PodDisruptionBudget. Pure."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from ..utils.units import MIB
from .container import USER, by_hand, command, own_directories
from .facts import Facts
from .layout import File, indented, written
from .sides import Side

LEAST, MOST = 2, 10  # pods
START_PERIOD = 5  # seconds between two startup probes
_UID, _, _GID = USER.partition(":")
ACCOUNT = f"""securityContext:
  runAsNonRoot: true
  runAsUser: {_UID}
  runAsGroup: {_GID}
  fsGroup: {_GID}
  seccompProfile: {{type: RuntimeDefault}}"""
"""The account of every pod."""
HARDENING = """securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}"""
"""What every container may not do."""


def manifests(facts: Facts) -> list[File]:
    """Return the four objects in one file."""
    name, port = facts.site.name, facts.address.port
    memory = f"{facts.memory.value // MIB}Mi"
    cpus = f"{round(facts.cpus.value * 1000)}m"
    body = f"""
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  # No replicas: the HorizontalPodAutoscaler sets them, and each apply would reset them.
  strategy:
    rollingUpdate: {{maxSurge: 1, maxUnavailable: 0}}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      # {facts.stop.why}
      # No preStop: its time would be added to the drain delay.
      terminationGracePeriodSeconds: {facts.stop.value}
      automountServiceAccountToken: false
      # Variables of Services could be named as those of prodserve.
      enableServiceLinks: false
{indented(ACCOUNT, 6)}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels: {{app: {name}}}
      containers:
        - name: web
          image: registry.example/{name}:1
          # {facts.body.why}
          args: {json.dumps(command(facts))}
          ports:
            - {{name: http, containerPort: {port}}}
          env:
{indented(_environment(facts), 12)}
          envFrom:
            - secretRef: {{name: {name}}}
          # Limits and requests are equal: the server plans {facts.workers} for them.
          resources:
            # {facts.cpus.why}
            # {facts.memory.why}
            requests: {{cpu: {cpus}, memory: {memory}}}
            limits: {{cpu: {cpus}, memory: {memory}}}
{indented(_probes(facts), 10)}
{indented(HARDENING, 10)}
          volumeMounts:
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        # Request bodies. On a disk: with medium Memory they would count against the limit.
        # {facts.spool.why}
        - name: tmp
          emptyDir: {{sizeLimit: {facts.spool.value // MIB}Mi}}
---
apiVersion: v1
kind: Service
metadata:
  name: {name}
spec:
  selector: {{app: {name}}}
  ports:
    - {{name: http, port: 80, targetPort: http}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {name}
spec:
  scaleTargetRef: {{apiVersion: apps/v1, kind: Deployment, name: {name}}}
  # Two, so that one serves while the other is replaced.
  minReplicas: {LEAST}
  maxReplicas: {MOST}
  metrics:
    - type: Resource
      resource:
        name: cpu
        # Per cent of the request of {cpus}.
        target: {{type: Utilization, averageUtilization: 70}}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {name}
spec:
  # Less than minReplicas, so that a node can be drained.
  minAvailable: {LEAST - 1}
  selector:
    matchLabels: {{app: {name}}}
{"".join(_side(facts, side) for side in facts.sides)}
"""
    return [
        written(
            "kubernetes.yaml",
            body,
            made_by=facts.made_by,
            apply=[
                f"kubectl create secret generic {name} --from-env-file=.env",
                "kubectl apply -f kubernetes.yaml",
                f"kubectl rollout status deployment/{name}",
            ],
            by_hand=list(_by_hand(facts)),
        )
    ]


def _side(facts: Facts, side: Side) -> str:
    """Return the Deployment of a process that the server does not start."""
    name = f"{facts.site.name}-{side.name}"
    memory = f"{side.memory // MIB}Mi"
    return f"""
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {name}
  labels: {{app: {name}}}
spec:
  # No replicas: one pod until you scale it.
  # {"One pod at a time: a second would run next to the first." if side.is_single else "The new pod first."}
  strategy: {{type: {"Recreate" if side.is_single else "RollingUpdate"}}}
  selector:
    matchLabels: {{app: {name}}}
  template:
    metadata:
      labels: {{app: {name}}}
    spec:
      # {facts.stop.why}
      terminationGracePeriodSeconds: {facts.stop.value}
      automountServiceAccountToken: false
      enableServiceLinks: false
{indented(ACCOUNT, 6)}
      containers:
        - name: {side.name}
          image: registry.example/{facts.site.name}:1
          args: {json.dumps([*side.image_words])}
          env:
{indented(_entries(facts.settings), 12)}
            - {{name: PRODSERVE_PROCESS, value: {side.name}}}
          envFrom:
            - secretRef: {{name: {facts.site.name}}}
          resources:
            # {side.why}
            requests: {{cpu: 100m, memory: {memory}}}
            limits: {{memory: {memory}}}
{indented(HARDENING, 10)}
          volumeMounts:
            - {{name: tmp, mountPath: /tmp}}
      volumes:
        - name: tmp
          emptyDir: {{sizeLimit: 256Mi}}"""


def _by_hand(facts: Facts) -> list[str]:
    name, body = facts.site.name, facts.body.value // MIB
    found = [f"image: registry.example/{name}:1, built with: prodserve export dockerfile"]
    found.append(f"the Secret {name}: see the first command above")
    found += by_hand(facts)
    for place, what in own_directories(facts).items():
        found.append(f"{what}: {place} needs a volume; the file system of a pod is read-only")
    found.append(
        f"an Ingress: its proxy must accept bodies of {body} MiB and wait {facts.proxy_timeout.value} s; for "
        f"ingress-nginx proxy-body-size: {body}m and proxy-read-timeout: {facts.proxy_timeout.value}"
    )
    if facts.migrates_before:
        found.append("migrations: a Job before the rollout, or export with --migrate")
    return found


def _environment(facts: Facts) -> str:
    lines = [_entries(facts.variables)]
    if not facts.trusts_someone:
        lines += [
            "# Kubernetes does not name the proxy in front. Its address is a private one.",
            "- {name: PRODSERVE_TRUSTED_PROXIES, value: private}",
        ]
    return "\n".join(lines)


def _entries(variables: Mapping[str, str]) -> str:
    return "\n".join(f"- {{name: {name}, value: {json.dumps(text)}}}" for name, text in variables.items())


def _probes(facts: Facts) -> str:
    if not facts.live:
        return "# --health-paths off: no probes."
    # Two failed probes must come before the drain delay ends.
    period = max(1, min(5, int(facts.drain.value / 3))) if facts.drain.value else 5
    failures = math.ceil(facts.start.value / START_PERIOD)
    return f"""# Probes are answered before Django, so they need no Host header and no entry in ALLOWED_HOSTS.
startupProbe:
  httpGet: {{path: {facts.live}, port: http}}
  periodSeconds: {START_PERIOD}
  timeoutSeconds: 5
  # {failures * START_PERIOD} s: {facts.start.why}
  failureThreshold: {failures}
livenessProbe:
  httpGet: {{path: {facts.live}, port: http}}
  periodSeconds: 10
  timeoutSeconds: 5
readinessProbe:
  httpGet: {{path: {facts.ready or facts.live}, port: http}}
  periodSeconds: {period}
  timeoutSeconds: 5
  failureThreshold: 2"""
