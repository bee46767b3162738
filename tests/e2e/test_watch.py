"""``status --watch`` in a terminal: what a person sees there, through a reload and a restart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, copy_site, run, serving

pytestmark = pytest.mark.slow

STATUS = ("-m", "django_prodserve", "status", "--watch")
COLUMNS, ROWS = 80, 24


class Terminal:
    """A terminal in which the command runs; the last whole screen that it has drawn."""

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process, self.master = process, master
        self.raw = b""

    def read(self, seconds: float) -> bool:
        """Take what the command has drawn; False once it has ended."""
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):  # Linux says EIO when the other end is closed
                if piece := os.read(self.master, 65536):
                    self.raw += piece
                    return True
            return False
        return True

    def screen(self) -> list[str]:
        """Return the lines of the last screen, without styles."""
        whole = self.raw.decode().split("\x1b[H")
        screens = [screen for screen in whole if "\x1b[J" in screen]
        if not screens:
            return []
        return re.sub(r"\x1b\[[\d;]*m|\x1b\[[KJ]", "", screens[-1]).split("\r\n")

    def wait_for(self, holds: Callable[[str], object]) -> list[str]:
        """Return the first screen from now on of which this holds."""
        self.raw, deadline = b"", time.monotonic() + PATIENCE
        while not holds("\n".join(self.screen())):
            assert time.monotonic() < deadline, self.screen()
            assert self.read(0.2), self.raw.decode()
        return self.screen()

    def end(self, number: int = signal.SIGINT) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(number)
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.05)
        while self.read(0):
            if not select.select([self.master], [], [], 0)[0]:
                break
        return self.process.returncode


@contextlib.contextmanager
def watching(env: dict[str, str], cwd: Path) -> Iterator[Terminal]:
    """Run the command in a terminal of 80 columns."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    env = {key: value for key, value in env.items() if key not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, *STATUS], cwd=cwd, env=env, stdin=slave, stdout=slave, stderr=slave
    )
    os.close(slave)
    try:
        yield Terminal(process, master)
    finally:
        process.kill()
        process.wait()
        os.close(master)


def test_it_shows_a_server_through_reload_and_restart(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with watching(env(), site) as terminal:
        terminal.wait_for(lambda text: "no server: No server is running for the project in" in text)
        with serving(
            "--workers", "2", "--threads", "2", "--slow-request", "1s", env=env(), cwd=site
        ) as server:
            with ThreadPoolExecutor(4) as clients:
                slow = []
                for number in range(1, 5):  # one after the other: each finds a free thread on any machine
                    slow.append(clients.submit(server.get, "/slow/?seconds=12"))
                    screen = terminal.wait_for(lambda text, busy=f"{number}/4 busy": busy in text)
                assert all(future.result().status == 200 for future in slow)
            assert f"pid {server.process.pid}, generation 1, up " in screen[0]
            screen = terminal.wait_for(lambda text: "Slow request: GET /slow/" in text)
            text = "\n".join(screen)
            assert all(len(line) <= COLUMNS for line in screen)
            assert len(screen) <= ROWS
            row = r"^{} +serving +\[[#.]+\] \d/2 +2 "  # busy threads, then the concurrency limit
            assert all(re.search(row.format(pid), text, re.MULTILINE) for pid in server.workers(2))
            assert re.search(r"^\d\d:\d\d:\d\dZ  slow +Slow request: GET /slow/ ", text, re.MULTILINE)
            served = re.compile(r"^latency +p50 \d", re.MULTILINE)
            terminal.wait_for(lambda text: server.get("/").status == 200 and served.search(text))
            assert run("-m", "django_prodserve", "reload", env=env(), cwd=site).returncode == 0
            screen = terminal.wait_for(lambda text: "generation 2," in text and "Generation 2 serves" in text)
            assert "Slow request: GET /slow/" in "\n".join(screen)  # what the generation before has seen
        terminal.wait_for(lambda text: "no server" in text)
        with serving("--workers", "2", env=env(), cwd=site) as server:
            terminal.wait_for(lambda text: f"pid {server.process.pid}, generation 1" in text)
        assert terminal.end() == 0
        assert terminal.raw.endswith(b"\x1b[?25h\x1b[?1049l")
        assert b"Traceback" not in terminal.raw


def test_without_a_terminal_it_prints_a_block_each_second(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving("--workers", "2", env=env(), cwd=site) as server:
        assert server.get("/").status == 200
        process = subprocess.Popen(
            [sys.executable, *STATUS], cwd=site, env=env(), stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
        while sum(line == "\n" for line in lines) < 8:
            lines.append(process.stdout.readline())
        process.stdout.close()  # whoever reads it has seen enough
        assert process.wait(timeout=PATIENCE) == 0
    text = "".join(lines)
    assert text.count(f"pid {server.process.pid}, generation 1, up ") >= 2
    assert "\x1b" not in text
    assert "Serving normally" in text


def test_watch_goes_with_status_alone(env: Any) -> None:
    for words in (("dump", "--watch"), ("plan", "--watch"), ("status", "--watch", "--json")):
        told = run("manage.py", "prodserve", *words, env=env())
        assert told.returncode == 2
        assert "--watch" in told.stderr
        assert "Traceback" not in told.stderr
        assert run("-m", "django_prodserve", *words, env=env()).stderr.count("\n") <= 3


def test_q_leaves_and_the_terminal_is_as_it_was(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with watching(env(), site) as terminal:
        before = termios.tcgetattr(terminal.master)
        terminal.wait_for(lambda text: "no server: " in text and "q quits" in text)
        assert not termios.tcgetattr(terminal.master)[3] & termios.ECHO
        os.write(terminal.master, b"xq")
        assert terminal.process.wait(PATIENCE) == 0
        assert termios.tcgetattr(terminal.master) == before
