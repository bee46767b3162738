"""Each platform as a process sees it: variables, headers of its router, probe, stop signal, kill.

A platform that kills is this test: the server must end by itself before that time is over.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import psutil
import pytest

from django_prodserve.machine.platforms import RULES

from .postgres import free_port
from .serving import PATIENCE, Server, serving, until
from .test_stop import in_flight

pytestmark = pytest.mark.slow

CLIENT, FORGED = "203.0.113.7", "198.51.100.1"


class Platform(NamedTuple):
    """What one platform does."""

    variables: Mapping[str, str]
    hops: int
    """Entries of X-Forwarded-For that its routers append; elsewhere a proxy on this machine appends one."""
    gives_port: bool = False
    stops_all: bool = False
    """Whether the stop signal goes to every process."""


PLATFORMS = {
    "Heroku": Platform({"DYNO": "web.1", "WEB_CONCURRENCY": "2"}, 1, gives_port=True, stops_all=True),
    "Render": Platform({"RENDER": "true", "RENDER_SERVICE_TYPE": "web"}, hops=3, gives_port=True),
    "Fly": Platform({"FLY_APP_NAME": "shop", "FLY_REGION": "fra"}, hops=2),
    "Cloud Run": Platform({"K_SERVICE": "shop", "K_REVISION": "shop-1"}, hops=1, gives_port=True),
    "Railway": Platform({"RAILWAY_ENVIRONMENT": "production"}, hops=2, gives_port=True),
    "Kubernetes": Platform({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "SHOP_PORT": "tcp://10.0.0.2:80"}, hops=1),
    "systemd": Platform({"INVOCATION_ID": "4711"}, hops=1),
}


def routed(platform: Platform) -> dict[str, str]:
    """Return the headers of a request that came through the routers; the client had sent one of its own."""
    routers = [f"10.9.8.{number}" for number in range(platform.hops - 1)]
    chain = ", ".join([FORGED, CLIENT, *routers])
    return {"X-Forwarded-For": chain, "X-Forwarded-Proto": "https", "Host": "shop.example"}


def listens_on(server: Server) -> set[str]:
    """Return the addresses at which its processes listen."""
    family = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children()]
    found = [connection for process in family for connection in process.net_connections("tcp")]
    return {f"{each.laddr.ip}:{each.laddr.port}" for each in found if each.status == psutil.CONN_LISTEN}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_platform_from_its_start_to_its_kill(env: Any, rule: Any) -> None:
    platform = PLATFORMS[rule.name]
    port = free_port()
    variables = {**platform.variables, **({"PORT": str(port)} if platform.gives_port else {})}
    bind = () if platform.gives_port else ("--bind", f"0.0.0.0:{port}")
    with serving(bind=bind, env=env(variables)) as server:
        assert listens_on(server) == {f"0.0.0.0:{port}"}
        # The probe has the address of the machine as Host, which ALLOWED_HOSTS lacks.
        for path in ("/livez", "/readyz"):
            assert server.get(path, headers={"Host": "10.0.0.3:8000"}).status == 200
        known = server.get("/whoami/", headers=routed(platform)).json()
        assert (known["secure"], known["meta"]["REMOTE_ADDR"]) == (True, CLIENT)
        assert_it_ends_in_time(server, rule, platform)


def assert_it_ends_in_time(server: Server, rule: Any, platform: Platform) -> None:
    """A request that runs is answered after the stop signal, and the server ends before the kill."""
    processes = [psutil.Process(server.process.pid)]
    if platform.stops_all:
        processes += processes[0].children(recursive=True)
    with in_flight(server, 1, 1.0) as answers:
        sent = time.monotonic()
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
        if "drain_delay" in rule.values:
            until(lambda: server.get("/readyz").status == 503)
            assert server.get("/").status == 200  # Services still send requests
        assert server.process.wait(PATIENCE) == 0
        assert time.monotonic() - sent < rule.kills_after
    assert [getattr(answer, "status", answer) for answer in answers] == [200]
