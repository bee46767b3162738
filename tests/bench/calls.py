r"""Count the calls of functions that one request makes in a worker: a figure that no busy machine changes.

It sees what a change of the code adds to each request, and nothing of what a call costs. Times vary by 10 %
from run to run where these vary by 1 %: only samples of requests, which are taken by the clock, differ.

    python tests/bench/calls.py --views hello,upload
    python tests/bench/calls.py --views hello --python ../before/.venv/bin/python
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sys
import tempfile
import time
from pathlib import Path

from measure import PATIENCE, SITE, Failed, environment, free_port, prepare
from servers import SERVERS
from views import VIEWS, View

COUNTING = Path(__file__).parent / "counting"
REQUESTS, WARM_UP = 200, 50


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--views", default="hello,db,io,upload", help=f"any of {', '.join(VIEWS)}")
    parser.add_argument("--python", default=sys.executable, help="the interpreter whose prodserve is counted")
    wanted = parser.parse_args()
    try:
        wanted.views = [VIEWS[name.strip()] for name in wanted.views.split(",")]
    except KeyError as error:
        parser.error(f"no view {error}")
    return wanted


class Counted:
    """A server with one worker whose calls are counted."""

    def __init__(self, python: str, work: Path) -> None:
        import psutil

        self.port, self.work, self.asked = free_port(), work, 0
        environ = environment(work, SERVERS["prodserve"], self.port)
        environ |= {"BENCH_COUNTS": str(work), "PYTHONPATH": f"{COUNTING}:{SITE}"}
        size = ["--workers", "1", "--threads", "4"]
        command = [python, "manage.py", "prodserve", "--bind", f"127.0.0.1:{self.port}", *size]
        with (work / "server.log").open("wb") as output:
            self.process = psutil.Popen(command, cwd=SITE, env=environ, stdout=output, stderr=output)

    def counts(self) -> tuple[int, int]:
        """Return the calls of the worker so far."""
        (self.work / f"asked-{self.asked}").touch()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.1)  # each process that was forked answers, also those without a request
            found = [file.read_text().split() for file in self.work.glob(f"{self.asked}-*[0-9]")]
            if found:
                self.asked += 1
                return max((int(python), int(c)) for python, c in found)
        raise Failed("the worker does not answer with its counts")

    def await_answer(self) -> None:
        """Wait until the server answers."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self.send(VIEWS["hello"], 1)
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.05)

    def send(self, view: View, number: int) -> None:
        """Send requests one after the other over one connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            for _ in range(number):
                connection.request(view.method, view.path, body=b"x" * view.body or None)
                connection.getresponse().read()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE)


def per_request(python: str, view: View) -> tuple[float, float]:
    """Return the calls of Python and C functions for one request."""
    with tempfile.TemporaryDirectory(prefix="prodserve-bench-") as scratch:
        prepare(Path(scratch), [])
        server = Counted(python, Path(scratch))
        try:
            server.await_answer()
            server.send(view, WARM_UP)
            before = server.counts()
            server.send(view, REQUESTS)
            after = server.counts()
        finally:
            server.stop()
    return (after[0] - before[0]) / REQUESTS, (after[1] - before[1]) / REQUESTS


def main() -> int:
    wanted = arguments()
    for view in wanted.views:
        python, c = per_request(wanted.python, view)
        print(f"{view.name:<12} {python:7.1f} of Python  {c:7.1f} of C", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
