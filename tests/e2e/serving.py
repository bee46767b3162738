"""Start real servers, talk to them with real clients, and prove that they stop cleanly."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

SITE = Path(__file__).parent.parent / "site"
PATIENCE = 30.0  # seconds; a loaded CI machine starts slowly, a condition that holds ends the wait

# What a developer's machine may say, and a test must not hear.
HEARD = ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS", "DJANGO_SETTINGS_MODULE")


def environment(tmp_path: Path, extra: Mapping[str, str] | None = None, **site: Any) -> dict[str, str]:
    """Return this process's environment without what changes a server; ``site`` are Django settings."""
    environ = {key: value for key, value in os.environ.items() if key not in HEARD}
    environ |= {
        # One for all tests of a run: the collected files are keyed by project and sources.
        "XDG_CACHE_HOME": str(tmp_path.parent / "cache"),
        "SITE_DATABASE": str(tmp_path / "db.sqlite3"),
        "SITE": json.dumps(site),
        "PYTHONPATH": str(SITE.parent.parent),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
        "PRODSERVE_LOG_FORMAT": "text",  # a pipe would get JSON
    }
    return environ | dict(extra or {})


def run(
    *arguments: str, env: Mapping[str, str], cwd: Path = SITE, patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run ``python *arguments`` to its end."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=cwd, env=dict(env), capture_output=True, text=True, timeout=patience)


def complaints(ended: subprocess.CompletedProcess[str]) -> list[str]:
    """Return what a command complained of, without the lines that name an entry of ``prodserve help``."""
    return [line for line in ended.stderr.splitlines() if not line.startswith("  More: ")]


def until(holds: Callable[[], bool], otherwise: Callable[[], str] = str, patience: float = PATIENCE) -> None:
    """Wait for a condition; past the deadline fail with what ``otherwise`` says."""
    deadline = time.monotonic() + patience
    while not holds():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.02)


class Server:
    """A running server: its process, what it printed, where it listens."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._unread: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = ""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._unread.put(line.rstrip("\n"))
        self._unread.put(None)

    def wait_for(self, wanted: Callable[[str], bool] | str, patience: float = PATIENCE) -> str:
        """Return the first line from now on that holds ``wanted``; fail with the whole output otherwise."""
        matches = wanted if callable(wanted) else lambda line: wanted in line
        deadline = time.monotonic() + patience
        while True:
            try:
                line = self._unread.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                line = None
            if line is None:
                raise AssertionError(f"waited for {wanted!r}, saw:\n{self.output}")
            self.lines.append(line)
            if matches(line):
                return line

    @property
    def output(self) -> str:
        """All that was printed so far."""
        with contextlib.suppress(queue.Empty):
            while (line := self._unread.get_nowait()) is not None:
                self.lines.append(line)
        return "\n".join(self.lines)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def get(
        self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """Send one request over a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body=body or None, headers=dict(headers or {}))
            answer = connection.getresponse()
            return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def answers(self) -> bool:
        """Say whether it answers now."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.get("/").status == 200
        return False

    def arbiters(self) -> list[int]:
        """Return the arbiters' pids, oldest first: the supervisor's children, or the process itself."""
        process = psutil.Process(self.process.pid)
        if not any(word.endswith("supervisor/bootstrap.py") for word in process.cmdline()):
            return [process.pid]
        return [child.pid for child in sorted(process.children(), key=lambda each: each.create_time())]

    def workers(self, count: int = 0) -> list[int]:
        """Return the pids of the worker processes; with ``count``, once there are that many."""
        deadline = time.monotonic() + PATIENCE
        while True:
            pids: list[int] = []
            for arbiter in self.arbiters():
                with contextlib.suppress(psutil.NoSuchProcess):  # an old one that has just ended
                    pids += [child.pid for child in psutil.Process(arbiter).children()]
            if len(pids) >= max(count, 1):
                return pids
            assert time.monotonic() < deadline, f"{len(pids)} workers"
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and prove that nobody is left behind."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.send_signal(number)
        code = self.process.wait(timeout=PATIENCE)
        self._reader.join(timeout=PATIENCE)
        assert not [child for child in family if child.is_running()], "left workers behind"
        return code


class Response:
    """What came back."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def text(self) -> str:
        return self.body.decode()

    def json(self) -> Any:
        return json.loads(self.body)


@contextlib.contextmanager
def serving(
    *flags: str,
    env: Mapping[str, str],
    cwd: Path = SITE,
    command: Sequence[str] = ("manage.py", "prodserve"),
    bind: Sequence[str] = ("--bind", "127.0.0.1:0"),
    exit_code: int = 0,
    pass_fds: Sequence[int] = (),
    address: str = "",
) -> Iterator[Server]:
    """Serve a project until the block ends; then prove a clean stop.

    With ``address`` the test has a listening socket already: early requests wait in its queue.
    """
    process = subprocess.Popen(
        [sys.executable, *command, *bind, *flags],
        cwd=cwd,
        env=dict(env),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        pass_fds=pass_fds,
    )
    server = Server(process)
    try:
        server.address = address or server.wait_for(" ready in ").split()[0]
        yield server
        if process.poll() is None:
            assert server.stop() == exit_code, server.output
        assert "Traceback" not in server.output or "the view broke" in server.output, server.output
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):
                    child.kill()
            process.kill()
        process.wait()
        assert process.stdout is not None
        deadline = time.monotonic() + PATIENCE
        while (left := holders(process.stdout.fileno())) and time.monotonic() < deadline:
            time.sleep(0.05)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        server._reader.join(timeout=PATIENCE)
        process.stdout.close()  # would wait for ever for one that has this pipe and lives
    assert not left, f"left {left} behind"


def holders(pipe: int) -> list[int]:
    """Return the processes whose output goes into a pipe, wherever they stand in the tree by now."""
    name, found = f"pipe:[{os.fstat(pipe).st_ino}]", []
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/fd/1") == name:
                found.append(pid)
    return found


def copy_site(tmp_path: Path, views: str = "") -> Path:
    """Return a copy of the project that a test may edit, with more at the end of its ``urls.py``."""
    site = Path(shutil.copytree(SITE, tmp_path / "site"))
    with (site / "shop" / "urls.py").open("a") as urls:
        urls.write(views)
    return site


@contextlib.contextmanager
def at_work(work: Callable[[threading.Event], object], count: int) -> Iterator[None]:
    """Run ``work`` in so many threads while the block runs; it is to end when the event is set."""
    over = threading.Event()
    threads = [threading.Thread(target=work, args=[over]) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()
