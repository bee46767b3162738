"""Three hosts behind the exported HAProxy, and one PostgreSQL: what a deploy and each fault cost.

The hosts are network namespaces. docs/many-machines.md states the bounds that are asserted here.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from .hosts import Host, Network, network
from .load import FULL, Load, Sent
from .needs import need_program
from .postgres import Postgres, cluster
from .proxies import Front, proxy
from .serving import SITE, Server, copy_site, run, serving, until
from .test_nginx import FORGED, FORGERIES

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

PORT = 8000
STARTED = 90.0  # seconds; all hosts share this machine, and start at the same moment
CLIENTS = 8
PAUSE = 0.02  # seconds between two requests of a client: the hosts share this machine
DRAIN, CUT, FROZEN = ("4", 20, 11) if FULL else ("2", 6, 5)  # seconds
VIEWS = """

@csrf_exempt
def orders(request):
    from django.db import connection

    with connection.cursor() as cursor:
        if request.method == "POST":
            cursor.execute("INSERT INTO orders (key) VALUES (%s)", [int(request.GET["key"])])
        else:
            cursor.execute("SELECT count(*) FROM ran")
    return HttpResponse(os.environ["SHOP_HOST"])


urlpatterns.append(path("orders/", orders))
"""
MIGRATION = """
from django.db import migrations


class Migration(migrations.Migration):
    operations = [
        migrations.RunSQL("CREATE TABLE IF NOT EXISTS ran (at timestamptz)"),
        migrations.RunSQL("INSERT INTO ran VALUES (now())"),
        migrations.RunSQL("SELECT pg_sleep(1)"),
        migrations.RunSQL("CREATE TABLE orders (key integer)"),
    ]
"""
KEPT = {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True}


@dataclass
class Fleet:
    """The hosts with their servers, behind one proxy."""

    hosts: tuple[Host, ...]
    environ: Callable[[Host], dict[str, str]]
    site: Path
    flags: tuple[str, ...]
    front: Front | None = None
    stacks: dict[str, ExitStack] = field(default_factory=dict)
    servers: dict[str, Server] = field(default_factory=dict)

    def start(self, host: Host, *flags: str) -> None:
        """Start the server of a host; ``until_ready`` waits for it."""
        stack = self.stacks[host.name] = ExitStack()
        command = (*host.inside, "manage.py", "prodserve")
        serve = serving(
            *self.flags,
            *flags,
            env=self.environ(host),
            cwd=self.site,
            command=command,
            bind=("--bind", f"{host.address}:{PORT}"),
            address="later",
        )
        self.servers[host.name] = stack.enter_context(serve)

    def until_ready(self, host: Host) -> None:
        self.servers[host.name].wait_for(" ready in ", STARTED)

    def stop(self, host: Host) -> None:
        """Stop the server of a host as an operator does, and wait for its end."""
        self.stacks.pop(host.name).close()

    def kill(self, host: Host) -> None:
        """End every process of a host at the same moment."""
        server = self.servers[host.name]
        host.signal(signal.SIGKILL)
        server.process.wait()
        self.stop(host)

    def reload(self) -> None:
        """Reload all hosts at the same time, and wait for the outcomes."""
        for host in self.hosts:
            self.servers[host.name].process.send_signal(signal.SIGHUP)
        for host in self.hosts:
            self.servers[host.name].wait_for("generation 2 serves")

    def forget_errors(self) -> None:
        """Let the servers stop although views failed, as they had to."""
        for server in self.servers.values():
            server.lines = [line for line in server.output.splitlines() if "Traceback" not in line]

    def close(self) -> None:
        """Stop all servers at the same time, and prove for each that it left nothing."""
        for server in self.servers.values():
            if server.process.poll() is None:
                server.process.send_signal(signal.SIGTERM)
        with ExitStack() as every:
            for stack in self.stacks.values():
                every.callback(stack.close)


@contextlib.contextmanager
def shop(tmp_path: Path, net: Network, postgres: Postgres, env: Any) -> Iterator[Fleet]:
    """Make the project and its servers, without starting one."""
    site = copy_site(tmp_path, VIEWS)
    folder = site / "fleet" / "migrations"
    folder.mkdir(parents=True)
    for package in (folder, folder.parent):
        (package / "__init__.py").touch()
    (folder / "0001_initial.py").write_text(MIGRATION)
    scope: dict[str, Any] = {"__file__": str(SITE / "shop" / "settings.py")}
    exec((SITE / "shop" / "settings.py").read_text(), scope)
    database = postgres.settings("shop", HOST=net.here, **KEPT)

    def environ(host: Host) -> dict[str, str]:
        place = tmp_path / host.name  # the run directory of a server belongs to one host
        place.mkdir(exist_ok=True)
        return dict(
            env(
                {"XDG_RUNTIME_DIR": str(place), "SHOP_HOST": host.name},
                INSTALLED_APPS=[*scope["INSTALLED_APPS"], "fleet"],
                DATABASES={"default": database},
            )
        )

    flags = ("--workers", "2", "--threads", "4", "--drain-delay", DRAIN, "--trusted-proxies", net.here)
    fleet = Fleet(net.hosts, environ, site, flags)
    try:
        yield fleet
    finally:
        fleet.close()


class Steps:
    """The steps of the test, each with the requests that were sent meanwhile."""

    def __init__(self, load: Load) -> None:
        self.load = load

    @contextlib.contextmanager
    def step(self, name: str, hosts: int = 3) -> Iterator[list[Sent]]:
        """Run a step, until so many hosts serve well; the list has what was sent meanwhile, at the end."""
        seen: list[Sent] = []
        first, began = len(self.load.sent), time.monotonic()
        yield seen
        self.settle(hosts)
        seen += self.load.sent[first:]
        took, longest = time.monotonic() - began, max(each.took for each in seen)
        print(
            f"{name}: {len(seen)} requests in {took:.1f} s, lost {dict(lost(seen))}, longest {longest:.1f} s"
        )

    def settle(self, hosts: int = 3, count: int = 20 * CLIENTS) -> None:
        """Wait until all answers are good, come from so many hosts, and no client waits for an older one."""
        began, first = time.monotonic(), len(self.load.sent)

        def well() -> bool:
            fresh = [each for each in self.load.sent[first:] if each.began > began][-count:]
            good = len(fresh) == count and all(each.is_good for each in fresh)
            return good and len({each.said for each in fresh}) == hosts and self.is_nobody_waiting(began)

        until(
            well, lambda: f"{self.load.failed[-10:]} {Counter(each.said for each in self.load.sent[-count:])}"
        )

    def is_nobody_waiting(self, began: float) -> bool:
        """Say whether all clients have had an answer to a request that they sent since."""
        return len({each.client for each in self.load.sent if each.began > began}) == CLIENTS


def lost(seen: list[Sent]) -> Counter[str]:
    """Count what was lost."""
    return Counter(f"{each.method} {each.outcome}" for each in seen if not each.is_good)


def test_three_hosts_behind_haproxy(env: Any, tmp_path: Path, certificate: Path) -> None:
    need_program("haproxy")
    with ExitStack() as stack:
        net = stack.enter_context(network(3))
        postgres = stack.enter_context(cluster())
        postgres.serve_network("198.18.0.0/15")
        database = stack.enter_context(ExitStack())
        database.enter_context(postgres.running(net.here))
        postgres.sql("CREATE DATABASE shop")
        fleet = stack.enter_context(shop(tmp_path, net, postgres, env))
        for host in net.hosts:
            fleet.start(host, "--migrate")
        for host in net.hosts:
            fleet.until_ready(host)
        assert postgres.sql("SELECT count(*) FROM ran", "shop") == [(1,)]
        applied = [server.output.count("applying fleet.0001_initial") for server in fleet.servers.values()]
        assert sorted(applied) == [0, 0, 1], applied

        words = [f"--server={host.address}:{PORT}" for host in net.hosts]
        files = [f"--certfile={certificate}/cert.pem", f"--keyfile={certificate}/key.pem"]
        options = ["--drain-delay", DRAIN]
        ended = run(
            "manage.py", "prodserve", "export", "haproxy", *words, *files, *options, env=env(), cwd=fleet.site
        )
        assert (ended.returncode, ended.stderr) == (0, "")
        folder = tmp_path / "proxy"
        folder.mkdir()
        front = stack.enter_context(proxy("haproxy", ended.stdout, folder, certificate))
        seen = front.get("/whoami/", FORGERIES).json()
        assert seen["secure"] is True
        assert seen["meta"]["REMOTE_ADDR"] == "127.0.0.1"
        assert FORGED not in str(seen)
        load = Load(front.client, "/orders/", PAUSE)
        with load.running(CLIENTS):
            steps = Steps(load)
            steps.settle()
            play(fleet, steps, postgres, database, net)
        good = [each for each in load.sent if each.method == "POST" and each.is_good]
        keys = [key for (key,) in postgres.sql("SELECT key FROM orders", "shop")]
        assert len(keys) == len(set(keys)), "a POST ran twice"
        assert {each.number for each in good} <= set(keys)


def play(fleet: Fleet, steps: Steps, postgres: Postgres, database: ExitStack, net: Network) -> None:
    one, two, three = fleet.hosts
    with steps.step("reload of all at the same time") as seen:
        fleet.reload()
    assert not lost(seen)
    with steps.step("rolling restart") as seen:
        for host in fleet.hosts:
            fleet.stop(host)
            fleet.start(host)
            fleet.until_ready(host)
            steps.settle()
    assert not lost(seen)
    with steps.step("kill -9 of a host", hosts=2) as seen:
        fleet.kill(one)
    assert lost_posts(seen) <= CLIENTS
    with steps.step("its start") as seen:
        fleet.start(one)
        fleet.until_ready(one)
    assert not lost(seen)
    with steps.step("a pulled cable") as seen, two.without_cable():
        time.sleep(CUT)
    assert lost_posts(seen) <= CLIENTS
    assert max(each.took for each in seen) < 15  # without tcp-ut: 130 s
    with steps.step("a frozen host") as seen, three.frozen():
        time.sleep(FROZEN)
    assert not lost(seen)
    with steps.step("a restarted database") as seen:
        database.close()
        time.sleep(0.5)
        database.enter_context(postgres.running(net.here))
        back = time.monotonic()
    fleet.forget_errors()
    assert {*lost(seen)} <= {"GET 500", "POST 500"}
    assert [each for each in seen if not each.is_good and each.began > back + 2] == []


def lost_posts(seen: list[Sent]) -> int:
    """Return how many POSTs were lost; fail if anything else was."""
    assert {name.partition(" ")[0] for name in lost(seen)} <= {"POST"}, lost(seen)
    return lost(seen).total()
