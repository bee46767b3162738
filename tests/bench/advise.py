"""Whether the server's advice is right: workloads whose right advice is known, each on a real server.

    python -m tests.bench.advise [--seconds 6] [workload ...]

Prints what was advised for each, and exits 1 where that is wrong. Those that compute need CPUs that nobody
else uses.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.groups import HALF_A_CPU, inside, making_groups
from tests.e2e.serving import PATIENCE, Server, at_work, copy_site, environment, run, serving

VIEWS = '''

def spend(request: HttpRequest) -> HttpResponse:
    """Compute, then wait, for so many milliseconds."""
    end = time.thread_time() + float(request.GET.get("compute", 0)) / 1000
    while time.thread_time() < end:
        pass
    time.sleep(float(request.GET.get("wait", 0)) / 1000)
    return HttpResponse()


urlpatterns.append(path("spend/", spend))
'''
HOOK = '''

def curious(server):
    """As ``on_starting``: look at the traffic every second, and wait less for it to be steady."""
    survey = server.monitor.survey
    server.monitor.survey_every, survey.window = 1.0, 4.0
    survey.hold = survey.profile_hold = 2.0
'''


@dataclass(frozen=True)
class Workload:
    """Traffic of a known kind, and the kinds of advice that are right for it."""

    path: str
    clients: int
    flags: tuple[str, ...]
    right: tuple[str, ...]
    limits: dict[str, int] = field(default_factory=dict)
    """Of the CPU group that the server runs in."""


IO, CPU = "/spend/?compute=3&wait=27", "/spend/?compute=20"
WAIT, TWO = "/spend/?wait=100", ("--workers", "2")
WORKLOADS = {
    "computes": Workload(CPU, 16, TWO, ("cpu",)),
    "short": Workload("/spend/", 1, TWO, ("fits",)),
    "waits": Workload(WAIT, 24, TWO, ("fits",)),
    "waits, profile io": Workload(IO, 3, TWO, ("fits",)),
    "waits, profile cpu": Workload(IO, 4, (*TWO, "--profile", "cpu"), ("profile io",)),
    "few threads": Workload(WAIT, 24, (*TWO, "--threads", "8"), ("threads",)),
    "one GIL": Workload("/spend/?compute=20&wait=4", 8, ("--workers", "1", "--threads", "4"), ("gil",)),
    "quota": Workload(CPU, 8, (*TWO, "--threads", "2"), ("quota",), HALF_A_CPU),
    "database budget": Workload(WAIT, 16, (*TWO, "--db-connections", "4"), ("db",)),
}


@contextlib.contextmanager
def load(server: Server, path: str, clients: int) -> Iterator[None]:
    """Ask all the time, each client on its own connection."""

    def ask(over: threading.Event) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        while not over.is_set():
            connection.request("GET", path)
            connection.getresponse().read()
        connection.close()

    with at_work(ask, clients):
        yield


@contextlib.contextmanager
def curious(
    directory: Path, flags: Sequence[str], limits: Mapping[str, int] | None = None
) -> Iterator[tuple[Server, Callable[[], dict[str, Any]]]]:
    """Serve, and yield the server with a function that returns what its ``status`` tells."""
    site = copy_site(directory, VIEWS)
    with (site / "shop" / "hooks.py").open("a") as hooks:
        hooks.write(HOOK)
    env = environment(directory, PRODSERVE={"GUNICORN": {"on_starting": "shop.hooks.curious"}})
    with ExitStack() as stack:
        command = ("manage.py", "prodserve")
        if limits:
            make = stack.enter_context(making_groups())
            command = (*inside(make("cpu", dict(limits))), *command)
        server = stack.enter_context(serving(*flags, env=env, cwd=site, command=command))

        def status() -> dict[str, Any]:
            told = run("-m", "django_prodserve", "status", "--json", env=env, cwd=site)
            known: dict[str, Any] = json.loads(told.stdout)
            return known

        yield server, status


def advice(workload: Workload, directory: Path, seconds: float) -> dict[str, Any]:
    """Serve, load for so long at most, and return what ``status`` tells by then."""
    known: dict[str, Any] = {}
    with (
        curious(directory, workload.flags, workload.limits) as (server, status),
        load(server, workload.path, workload.clients),
    ):
        deadline = time.monotonic() + seconds
        while not known.get("advice_kind") and time.monotonic() < deadline:
            time.sleep(0.5)
            known = status()
    return known


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("workload", nargs="*", default=[*WORKLOADS])
    wanted = parser.parse_args()
    wrong = 0
    for name in wanted.workload:
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory) / "run"
            place.mkdir()
            known = advice(WORKLOADS[name], place, wanted.seconds)
        kind = known.get("advice_kind", "nothing")
        right = kind in WORKLOADS[name].right
        wrong += not right
        print(f"{'ok   ' if right else 'WRONG'} {name:<22} {kind:<12} {known.get('advice', '')}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
