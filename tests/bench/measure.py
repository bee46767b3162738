"""Start a server, read its processes, stop it; everything by pid, everything bounded in time."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import Server

SITE = Path(__file__).parent / "site"
ROOT = SITE.parent.parent.parent
PATIENCE = 30.0  # seconds for a start; a stop gets half of it

# What this shell may say and a server must not hear.
HEARD = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS", "DJANGO_SETTINGS_MODULE")


class Failed(Exception):
    """A server did not start or did not answer as it should."""


@dataclass
class Running:
    """A server that answers."""

    process: psutil.Popen
    port: int
    start: float  # seconds from the spawn to the first answer

    def family(self) -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            return [self.process, *self.process.children(recursive=True)]
        return []

    def cpu(self) -> float:
        """Return the CPU seconds of all processes, those that died and were waited for included."""
        seconds = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                seconds += sum(process.cpu_times()[:4])  # user, system, and both of the children that ended
        return seconds

    def pss(self) -> float:
        """Return the memory of all processes in MiB, shared pages divided among those who share them."""
        kib = 0
        for process in self.family():
            with contextlib.suppress(OSError):
                rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
                kib += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
        return kib / 1024

    def get(self, path: str) -> bytes:
        """Return the body of a 200; anything else is an OSError or a failure."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            body = answer.read()
        if answer.status != 200:
            raise Failed(f"{path} answered {answer.status}")
        return body

    def stop(self) -> None:
        """Ask the server to end; end by pid whoever of its family is left."""
        family = self.family()
        with contextlib.suppress(psutil.NoSuchProcess):
            self.process.terminate()
        _, left = psutil.wait_procs(family, timeout=PATIENCE / 2)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=5)


def environment(work: Path, server: Server | None = None, port: int = 0) -> dict[str, str]:
    """Return what a server, or with none the preparation, hears."""
    environ = {key: value for key, value in os.environ.items() if key not in HEARD}
    environ |= {
        "BENCH_WORK": str(work),
        "BENCH_STATIC": "whitenoise",
        "DJANGO_SETTINGS_MODULE": "benchsite.settings",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{SITE}",
        "XDG_CACHE_HOME": str(work / "cache"),
        "NO_COLOR": "1",
    }
    return environ | (server.environment(port) if server else {})


def prepare(work: Path, servers: Sequence[Server]) -> None:
    """Make the database and the static files, once for all servers."""
    (work / "assets").mkdir()
    (work / "assets" / "small.css").write_bytes(b"a{b:c}\n" * 146 + b"\n\n")  # 1 KiB
    (work / "assets" / "film.mp4").write_bytes(os.urandom(5 * 2**20))
    for arguments in (["migrate"], ["collectstatic", "--no-input"]):
        subprocess.run(
            [sys.executable, "manage.py", *arguments, "-v", "0"], cwd=SITE, env=environment(work), check=True
        )
    for server in servers:
        if not server.static:  # it gathers static files when it starts for the first time
            with contextlib.suppress(Failed), running(server, work):  # its cells will say what failed
                pass


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def running(server: Server, work: Path) -> Iterator[Running]:
    """Serve until the block ends, however it ends."""
    port = free_port()
    log = work / "server.log"
    with log.open("wb") as output:
        began = time.perf_counter()
        process = psutil.Popen(
            server.argv(port, work),
            cwd=SITE,
            env=environment(work, server, port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is ours; the server is then stopped below
        )
    found = Running(process, port, 0.0)
    try:
        await_answer(found, log)
        found.start = time.perf_counter() - began
        yield found
    finally:
        found.stop()


def await_answer(server: Running, log: Path) -> None:
    """Wait for the first 200."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            server.get("/hello/")
            return
        except (OSError, http.client.HTTPException) as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text(errors="replace").strip().splitlines()[-3:]
                raise Failed(f"did not start: {' / '.join(said) or error}") from None
        time.sleep(0.005)
