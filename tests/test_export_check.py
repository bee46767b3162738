"""``export --check`` finds what people plant in files: the traps that sites have fallen into."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest

from django_prodserve.cli.export import options_in
from django_prodserve.export.check import contradictions

from .exports import exported, facts


class Plant(NamedTuple):
    """One edit of an exported file, and the first words of what must be found."""

    kind: str
    old: str
    new: str
    message: str
    given: dict[str, Any] = {}  # noqa: RUF012  # nobody changes it
    site: dict[str, Any] = {}  # noqa: RUF012


SERVICES = [
    Plant("systemd", "KillMode=mixed", "KillMode=process", "KillMode=process leaves workers"),
    Plant("systemd", "KillMode=mixed", "", "KillMode is not mixed"),
    Plant("systemd", "KillMode=mixed", "KillMode=mixed\nKillSignal=SIGINT", "KillSignal is not SIGTERM"),
    Plant("systemd", "KillMode=mixed", "KillMode=mixed\nSendSIGKILL=no", "SendSIGKILL=no keeps"),
    Plant("systemd", "WatchdogSec=30", "WatchdogSec=1", "WatchdogSec 1 is too short"),
    Plant("systemd", "ProtectProc=invisible", "ProcSubset=pid", "ProcSubset=pid hides the memory"),
    Plant("systemd", "AF_INET6 AF_NETLINK", "AF_INET6", "RestrictAddressFamilies lacks AF_NETLINK"),
    Plant("systemd", "AF_UNIX AF_INET", "AF_INET", "RestrictAddressFamilies lacks AF_UNIX"),
    Plant("systemd", "ReadWritePaths=-/srv/shop/media", "", "ProtectSystem=strict: the project cannot write"),
    Plant(
        "systemd",
        "ProtectHome=read-only",
        "ProtectHome=yes",
        "ProtectHome=yes hides /home/anna/shop",
        site={"hidden": "/home/anna/shop"},
    ),
    Plant("systemd", "[Service]", "[Service]\nEnvironment=SECRET_KEY=abc", "A secret in the file"),
    Plant("systemd", "PrivateTmp=yes", "TemporaryFileSystem=/tmp", "/tmp is memory"),
    Plant("systemd", "[Service]", "[Service]\nEnvironment=TMPDIR=/dev/shm", "TMPDIR is memory"),
    Plant("systemd", "ExecStart=", "ExecStart=/bin/sh -c ", "A shell gets the stop signal"),
    Plant("systemd", "prodserve reload", "/bin/kill -HUP $MAINPID", "ExecReload does not wait"),
    Plant(
        "systemd", "RuntimeDirectory=shop", "", "RuntimeDirectory", given={"bind": "unix:/run/shop/shop.sock"}
    ),
    Plant("systemd", "AmbientCapabilities=CAP_NET_BIND_SERVICE", "", "Port 80", given={"bind": "0.0.0.0:80"}),
    Plant(
        "systemd-socket",
        "bin/prodserve\n",
        "bin/prodserve --bind=127.0.0.1:8000\n",
        "--bind wins over",
    ),
    Plant("supervisor", "stopasgroup=false", "stopasgroup=true", "stopasgroup sends the signal to workers"),
    Plant("supervisor", "killasgroup=true", "killasgroup=false", "killasgroup is not true"),
    Plant("supervisor", "startsecs=5", "startsecs=5\nnumprocs=2", "numprocs"),
    Plant("supervisor", 'USER="shop"', 'USER="shop",SECRET_KEY="abc"', "A secret in the file"),
    Plant("procfile", "web: prodserve", "web: prodserve --bind=0.0.0.0:8000", "--bind wins over PORT"),
    Plant(
        "procfile", "web: prodserve", "web: python manage.py migrate && prodserve", "A shell gets the stop"
    ),
    Plant(
        "procfile", "web: prodserve", "web: prodserve --timeout=120", "Heroku's router gives up after 30 s"
    ),
    Plant(
        "procfile", "web: prodserve", "web: prodserve --keep-alive=60", "router keeps idle connections for"
    ),
    Plant(
        "procfile", "web: prodserve", "web: prodserve --graceful-timeout=40", "by default 30 s, ends before"
    ),
]
PROXIES = [
    Plant("nginx", "proxy_set_header Host $host;", "", "Host is not handed on"),
    Plant("nginx", "proxy_set_header X-Forwarded-Proto $scheme;", "", "X-Forwarded-Proto is not set"),
    Plant(
        "nginx",
        "X-Forwarded-Proto $scheme",
        "X-Forwarded-Proto $http_x_forwarded_proto",
        "X-Forwarded-Proto of",
    ),
    Plant(
        "nginx", "X-Forwarded-For $proxy_add_x_forwarded_for", "X-Real $remote_addr", "X-Forwarded-For is not"
    ),
    Plant(
        "nginx", "X-Forwarded-For $proxy_add_x_f", "X-Forwarded-For $http_x_f", "X-Forwarded-For of a client"
    ),
    Plant("nginx", 'X-Real-IP "";', "X-Other 1;", "X-Real-IP of a client"),
    Plant("nginx", "proxy_set_header Upgrade $http_upgrade;", "", "No websocket"),
    Plant("nginx", "keepalive 32;", "", "nginx before 1.29.7 opens a connection for each request"),
    Plant("nginx", "proxy_send_timeout 130s;", "proxy_send_timeout 30s;", "proxy_send_timeout 30s"),
    Plant(
        "nginx",
        "proxy_buffering off;",
        "proxy_buffering off;\n        proxy_next_upstream error non_idempotent;",
        "nginx sends a POST twice",
    ),
    Plant("nginx", "proxy_pass http://shop", "proxy_pass https://shop", "The proxy speaks TLS to the server"),
    Plant(
        "nginx", "#   prodserve", "#   prodserve --certfile=/c.pem", "The server speaks TLS, and the proxy"
    ),
    Plant(
        "nginx", "proxy_pass http://shop;", "proxy_pass http://127.0.0.1:9;", "sends requests to 127.0.0.1:9"
    ),
    Plant("caddy", "header_up -Forwarded", "", "Forwarded of a client"),
    Plant("caddy", "header_up -X-Real-IP", "", "X-Real-IP of a client"),
    Plant("caddy", "flush_interval -1", "flush_interval 5s", "Caddy holds pieces of a stream"),
    Plant("caddy", "flush_interval -1", "lb_try_duration 5s\n\t\tlb_retry_match method POST", "POST twice"),
    Plant("caddy", "reverse_proxy 127", "reverse_proxy https://127", "The proxy speaks TLS to the server"),
    Plant("haproxy", "timeout client 130s", "timeout client 10s", "timeout client 10s"),
    Plant("haproxy", "timeout tunnel 1h", "", "No timeout tunnel"),
    Plant("haproxy", "option forwardfor", "", "X-Forwarded-For is not set"),
    Plant("haproxy", "http-request set-header X-Forwarded-Proto https", "", "X-Forwarded-Proto is not set"),
    Plant("haproxy", "http-request del-header X-Real-IP", "", "X-Real-IP of a client"),
    Plant(
        "haproxy",
        "server shop 127.0.0.1:8000",
        "server shop 127.0.0.1:8001",
        "sends requests to 127.0.0.1:8001",
    ),
    Plant("haproxy", "tcp-ut 4s", "tcp-ut 4s send-proxy", "The proxy sends the PROXY protocol"),
    Plant("haproxy", "tcp-ut 4s", "tcp-ut 4s ssl verify none", "The proxy speaks TLS to the server"),
    Plant("haproxy", "option srvtcpka", "", "A machine without a network"),
    Plant(
        "haproxy", "gt 10485760", "gt 1048576", "is not the server's --max-body", given={"max_body": "10m"}
    ),
]
IMAGES = [
    Plant("dockerfile", "USER 10001", "STOPSIGNAL SIGINT\nUSER 10001", "The stop signal is not SIGTERM"),
    Plant("dockerfile", "--start-period=120s", "--start-period=5s", "start-period 5s"),
    Plant("dockerfile", "//127.0.0.1:8000", "//127.0.0.1:80", "The probe asks port 80"),
    Plant("dockerfile", "/livez", "/admin/", "The probe asks /admin/"),
    Plant("dockerfile", "COPY . .", "COPY . .\nCOPY .env .", "stays in the image"),
    Plant("dockerfile", "COPY . .", "ENV TMPDIR=/dev/shm\nCOPY . .", "TMPDIR is memory"),
    Plant("dockerfile", 'CMD ["prodserve"', 'ENTRYPOINT ["tini", "-g", "--"]\nCMD ["prodserve"', "tini"),
    Plant("compose", "start_period: 120s", "start_period: 10s", "start_period 10s"),
    Plant("compose", "restart:", "stop_signal: SIGINT\n    restart:", "The stop signal is not SIGTERM"),
    Plant("compose", "8000/livez", "80/livez", "The probe asks port 80"),
    Plant("compose", "/livez", "/accounts/login/", "The probe asks /accounts/login/"),
    Plant("compose", '["CMD", "python", "-c"', '["CMD", "curl", "-c"', "Slim images have no curl"),
    Plant("compose", "- tmp:/tmp", "- other:/other", "/tmp is read-only"),
    Plant("compose", "memory: 512M", "pids: 100", "There is no limit of memory"),
    Plant("compose", 'cpus: "1"', "pids: 100", "Without a limit of CPU"),
    Plant("compose", "127.0.0.1:8000:8000", "8000:8000", "Every address reaches the server"),
    Plant("compose", "PRODSERVE_TRUSTED_PROXIES: private", "A: b", "The server trusts no proxy"),
    Plant("compose", "environment:", "environment:\n      SECRET_KEY: abc", "A secret in the file"),
    Plant("compose", 'command: ["prodserve",', 'command: ["sh", "-c", "prodserve",', "A shell gets the stop"),
    Plant("compose", 'user: "10001:10001"', "user: root", "The account is root's, or a name"),
    Plant("compose", "- tmp:/tmp", "- type: tmpfs\n        target: /tmp", "/tmp is memory"),
    Plant("compose", "- tmp:/tmp", "- tmp:/tmp\n    tmpfs: /tmp:size=64m", "/tmp is memory"),
    Plant("compose", "restart:", "environment2:\n      TMPDIR: /dev/shm\n    restart:", "TMPDIR is memory"),
    Plant("kubernetes", "targetPort: http", "targetPort: 80", "Port 80 is not the server's"),
    Plant(
        "kubernetes", "path: /readyz, port: http", "path: /readyz, port: 80", "Port 80 is not the server's"
    ),
    Plant("kubernetes", "runAsUser: 10001", "runAsUser: 0", "The account is root's"),
    Plant("kubernetes", "requests: {cpu: 1000m, ", "requests: {", "Without a request of CPU"),
    Plant("kubernetes", "sizeLimit: 1024Mi", "sizeLimit: 64Mi", "sizeLimit 64Mi"),
    Plant(
        "kubernetes", "PRODSERVE_TRUSTED_PROXIES, value: private", "X, value: y", "The server trusts no proxy"
    ),
    Plant(
        "kubernetes", "env:\n", "env:\n            - {name: SECRET_KEY, value: abc}\n", "A secret in the file"
    ),
    Plant("kubernetes", 'args: ["prodserve",', 'command: ["sh", "-c", "prodserve",', "A shell gets the stop"),
    Plant(
        "kubernetes",
        "periodSeconds: 1\n            timeoutSeconds: 5\n            failureThreshold: 2",
        "periodSeconds: 10",
        "The readiness probe fails after 30 s",
    ),
    Plant("kubernetes", "maxUnavailable: 0", "maxUnavailable: 100%", "maxUnavailable 100%"),
    Plant("kubernetes", "minReplicas: 2", "minReplicas: 1", "no node can be drained"),
    Plant(
        "kubernetes",
        "kind: Service\nmetadata:\n  name: shop",
        "kind: Ingress\nmetadata:\n  annotations:\n    nginx.ingress.kubernetes.io/proxy-read-timeout: '60'",
        "proxy-read-timeout 60 gives up",
    ),
    Plant(
        "kubernetes",
        "kind: Service\nmetadata:\n  name: shop",
        'kind: Ingress\nmetadata:\n  annotations:\n    nginx.ingress.kubernetes.io/proxy-body-size: "1m"',
        "proxy-body-size 1m is not",
    ),
    Plant(
        "kubernetes",
        "livenessProbe:\n            httpGet: {path: /livez",
        "livenessProbe:\n            httpGet: {path: /readyz",
        "The liveness probe asks /readyz",
    ),
    Plant("fly", 'kill_signal = "SIGTERM"', "", "The stop signal is not SIGTERM"),
    Plant("fly", "hard_limit = 64", "hard_limit = 500", "hard_limit 500"),
    Plant("fly", 'grace_period = "120s"', 'grace_period = "5s"', "grace_period 5s"),
    Plant("fly", "[env]", '[env]\n  SECRET_KEY = "abc"', "A secret in the file"),
    Plant("fly", 'app = "prodserve', "app = \"sh -c 'prodserve", "A shell gets the stop"),
    Plant("fly", "internal_port = 8000", "internal_port = 8080", "Port 8080 is not the server's"),
    Plant(
        "render",
        "key: SECRET_KEY, generateValue: true",
        "key: SECRET_KEY, value: abc",
        "A secret in the file",
    ),
    Plant(
        "render",
        "prodserve --max-body=100m",
        "prodserve --max-body=100m --bind=0.0.0.0:8000",
        "--bind wins over",
    ),
    Plant("render", "dockerCommand: p", "dockerCommand: sh -c 'p", "A shell gets the stop"),
    Plant("cloudrun", "containerConcurrency: 32", "containerConcurrency: 80", "containerConcurrency 80"),
    Plant("cloudrun", "containerConcurrency: 32", "", "containerConcurrency, by default 80"),
    Plant("cloudrun", "failureThreshold: 12", "failureThreshold: 3", "The startup probe ends too early"),
    Plant(
        "cloudrun",
        '"--max-body=32m"',
        '"--max-body=32m", "--keep-alive=75"',
        "router keeps idle connections for",
    ),
    Plant("cloudrun", "containerPort: 8080", "containerPort: 8000", "Port 8000 is not the server's"),
    Plant("kamal", " --keep-alive=1d", "", "kamal-proxy keeps idle connections for"),
    Plant("kamal", "drain_timeout: 30", "drain_timeout: 10", "drain_timeout 10"),
    Plant("kamal", "drain_timeout: 45", "", "drain_timeout, by default 30", {"graceful_timeout": 40}),
    Plant("kamal", "deploy_timeout: 120", "deploy_timeout: 30", "deploy_timeout 30"),
    Plant("kamal", "app_port: 8000", "app_port: 80", "Port 80 is not the server's"),
    Plant("kamal", "requests: false", "requests: true", "kamal-proxy holds"),
    Plant("kamal", "clear:", "clear:\n    SECRET_KEY: abc", "A secret in the file"),
]
PLANTS = (*SERVICES, *PROXIES, *IMAGES)


def planted(plant: Plant) -> str:
    """Return an exported file with the plant."""
    text = "\n".join(exported(plant.kind, plant.site, **plant.given).values())
    assert plant.old in text
    return text.replace(plant.old, plant.new, 1)


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.kind}: {plant.message}")
def test_a_plant_is_found(plant: Plant) -> None:
    text = planted(plant)
    known = facts(plant.kind, plant.site, **{**plant.given, **options_in(text)})
    assert plant.message in "\n".join(problem.message for problem in contradictions(plant.kind, text, known))
