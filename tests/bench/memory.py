"""What preload, warm-up and freeze save: total PSS of 4 workers x 4 threads after the same load.

    python -m tests.bench.memory [requests]

Serves the example project with prodserve and with plain Gunicorn, which loads it in every worker, and prints
MiB and ratios. The less of the project a request touches, the more stays shared.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from tests.e2e.serving import PATIENCE, SITE, Server, environment, run, serving

EXAMPLE = SITE.parent.parent / "example_project"
LOADS = {"light": ("/hello",), "mixed": ("/hello", "/json", "/db", "/template")}
SIZE = ("--workers", "4", "--threads", "4")
CLIENTS = 16
ON_ONE_CONNECTION = 10  # so that every worker gets its share


def bookshop(directory: Path) -> dict[str, str]:
    """Return the environment of an example project with a database of its own in ``directory``."""
    (directory / "site").mkdir()
    environ = environment(directory / "site", {"BOOKSHOP_DATA": str(directory / "data")})
    # What measures coverage takes memory of its own in every process.
    environ = {name: text for name, text in environ.items() if not name.startswith("COVERAGE_")}
    made = run("manage.py", "migrate", "-v", "0", env=environ, cwd=EXAMPLE)
    assert made.returncode == 0, made.stderr
    return environ


def total_pss(pid: int) -> float:
    """Return the memory of a process and its children in MiB; what they share counts once."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(process.memory_full_info().pss for process in family)) / 2**20


def send(port: int, paths: Sequence[str], count: int) -> list[int]:
    """Send about ``count`` requests from several clients at once; return the statuses."""

    def connect(number: int) -> list[int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with contextlib.closing(connection):
            found = []
            for index in range(ON_ONE_CONNECTION):
                connection.request("GET", paths[(number + index) % len(paths)])
                answer = connection.getresponse()
                answer.read()
                found.append(answer.status)
            return found

    with ThreadPoolExecutor(CLIENTS) as clients:
        connections = clients.map(connect, range(count // ON_ONE_CONNECTION))
        return [status for statuses in connections for status in statuses]


@contextlib.contextmanager
def plain_gunicorn(environ: Mapping[str, str]) -> Iterator[Server]:
    """Serve the example project as a thousand tutorials do, with as many threads."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=2048) as listener,
        serving(
            *("-k", "gthread", "--no-control-socket", *SIZE),
            env={**environ, "DJANGO_SETTINGS_MODULE": "bookshop.settings"},
            cwd=EXAMPLE,
            command=("-m", "gunicorn", "bookshop.wsgi"),
            bind=("-b", f"fd://{listener.fileno()}"),
            pass_fds=[listener.fileno()],
            address=f"http://127.0.0.1:{listener.getsockname()[1]}",
        ) as server,
    ):
        yield server


def after_load(server: Server, load: str, requests: int) -> float:
    """Return the total PSS of a server after a load."""
    server.workers(4)
    assert set(send(server.port, LOADS[load], requests)) == {200}
    return total_pss(server.process.pid)


def compare(environ: Mapping[str, str], requests: int) -> dict[str, tuple[float, float]]:
    """Return the total PSS after each load, one after the other, of prodserve and of plain Gunicorn.

    Without what plain Gunicorn has no counterpart of: the supervisor takes less than 8 MiB
    (test_supervisor.py), the asyncio loop with the project's ASGI application 1 MiB in each worker.
    """
    with serving(*SIZE, "--no-supervisor", "--asgi", "off", env=environ, cwd=EXAMPLE) as server:
        ours = [after_load(server, load, requests) for load in LOADS]
    with plain_gunicorn(environ) as server:
        plain = [after_load(server, load, requests) for load in LOADS]
    return dict(zip(LOADS, zip(ours, plain, strict=True), strict=True))


def main(requests: int = 2000) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as directory:
        for load, (ours, plain) in compare(bookshop(Path(directory)), requests).items():
            print(f"{load:<6} prodserve {ours:6.1f} MiB   gunicorn {plain:6.1f} MiB   {ours / plain:.2f}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
