"""Whether ``prodserve tune`` is right: six labelled views, each measured from outside afterwards.

    python -m tests.bench.tune [--grid 2,4,16,64,256] [--seconds 3] [view ...]

For each view: what tune finds, then a server with the recommended flags and one for each fixed number of
threads, all under the same load. It prints whether the kind is right, the predicted by the measured maximum,
and the recommended by the best number of threads. It exits 1 where a bar is missed. It needs quiet CPUs.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from django_prodserve.tune.load import Measured, Request
from django_prodserve.tune.load import run as run_load
from tests.e2e.serving import copy_site, environment, run, serving

VIEWS = '''
from django.contrib.auth.models import Permission
from django.template import engines

PAGE = engines["django"].from_string(
    "<ul>{% for n in numbers %}<li>{{ n }} {{ n|add:3 }} {% if n > 9 %}more{% endif %}</li>{% endfor %}</ul>"
)


def burn(milliseconds):
    """The same work under every load, not the same time: 23,000 rounds are about a millisecond."""
    total = 0
    for n in range(milliseconds * 23_000):
        total += n & 3
    return str(total)


def rows(request):
    found = Permission.objects.select_related("content_type").order_by("pk")[:20]
    return JsonResponse({"rows": [[row.pk, row.name, row.content_type.model] for row in found]})


def mixed(request):
    time.sleep(0.006)
    return HttpResponse(PAGE.render({"numbers": range(150)}))


urlpatterns += [
    path("compute/", lambda request: HttpResponse(burn(5))),
    path("short/", lambda request: HttpResponse(burn(1))),
    path("wait/", lambda request: time.sleep(0.05) or HttpResponse("waited")),
    path("long/", lambda request: time.sleep(1) or HttpResponse("waited")),
    path("rows/", rows),
    path("mixed/", mixed),
]
'''
KINDS = {
    "compute": "computes",
    "short": "computes",
    "wait": "waits",
    "long": "waits",
    "rows": "database",
    "mixed": "mixed",
}
WITHIN, LEAST = 0.15, 0.95
"""Bars: the predicted maximum by the measured one, and the recommended threads by the best of the grid."""


class Site(NamedTuple):
    """The project that is measured."""

    place: Path
    environ: dict[str, str]


def tuned(site: Site, view: str) -> dict[str, Any]:
    """Return what tune finds."""
    words = ("manage.py", "prodserve", "tune", f"/{view}/", "--json")
    ended = run(*words, env=site.environ, cwd=site.place, patience=90)
    assert ended.stdout, ended.stderr
    found: dict[str, Any] = json.loads(ended.stdout)
    return found


def measured(site: Site, view: str, flags: list[str], clients: int, seconds: float) -> Measured:
    """Return what a server with these flags does under the load of a client of its own process."""
    with serving(*flags, env=site.environ, cwd=site.place) as server:
        workers = [child.pid for pid in server.arbiters() for child in psutil.Process(pid).children()]
        return run_load(
            Request(host="localhost"),
            [f"/{view}/"],
            port=server.port,
            pids=workers,
            clients=clients,
            warm=2.0,
            seconds=seconds,
            timeout=20.0,
        )


def judge(site: Site, view: str, grid: list[int], seconds: float) -> bool:
    """Measure one view, print a line, and return whether every bar is met."""
    found = tuned(site, view)
    clients = found["runs"][-1]["clients"]
    threads = f"{found['recommended']['threads']}..{found['recommended']['max_threads']}"
    flags = ["--profile", found["recommended"]["profile"], "--threads", threads]
    rates = {"recommended": measured(site, view, flags, clients, seconds).rate}
    for number in grid:
        rates[str(number)] = measured(site, view, ["--threads", str(number)], clients, seconds).rate
    again = measured(site, view, flags, clients, seconds).rate
    mine = max(again, rates.pop("recommended"))
    kind = found["paths"][0]["kind"]
    ratio = found["predicted"] / mine
    share = mine / max(mine, *rates.values())
    met = [kind == KINDS[view], abs(ratio - 1) <= WITHIN, share >= LEAST]
    shown = ", ".join(f"{number}: {rate:.0f}" for number, rate in rates.items())
    print(
        f"{view:<8} {kind:<9} predicted {found['predicted']:.0f}, tune {found['measured']:.0f}, "
        f"outside {mine:.0f}/s ({ratio:.2f}); --threads {threads}: {share:.2f} of the best ({shown}); "
        f"{found['busy'] or 'quiet'}; {'met' if all(met) else f'MISSED {met}'}",
        flush=True,
    )
    return all(met)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("views", nargs="*", choices=[*KINDS, []], default=[])
    parser.add_argument("--grid", default="2,4,16,64,256")
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        place = Path(made, "run")
        place.mkdir()
        environ = environment(place) | {"XDG_RUNTIME_DIR": made}
        site = Site(copy_site(place, VIEWS), environ)
        run("manage.py", "migrate", env=environ, cwd=site.place)
        grid = [int(number) for number in given.grid.split(",")]
        met = [judge(site, view, grid, given.seconds) for view in given.views or KINDS]
    sys.exit(0 if all(met) else 1)


if __name__ == "__main__":
    main()
