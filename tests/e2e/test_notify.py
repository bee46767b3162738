"""systemd hears the truth: a NOTIFY_SOCKET of the test's own stands for it."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, copy_site, run, serving
from .test_reload import RELOAD, edit

SUPERVISORS = pytest.mark.parametrize("supervisor", ["--supervisor", "--no-supervisor"])


class Manager:
    """The other end of NOTIFY_SOCKET; knows who sent each message."""

    def __init__(self, speaker: socket.socket) -> None:
        speaker.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        speaker.settimeout(PATIENCE)
        self.socket = speaker

    def hear(self) -> tuple[str, int]:
        """Return the next message and the pid of its sender."""
        text, ancillary, _, _ = self.socket.recvmsg(4096, 100)
        pid: int = struct.unpack("3i", ancillary[0][2])[0]
        return text.decode(), pid

    def wait_for(self, wanted: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            text, _ = self.hear()
            if wanted(text):
                return text
        raise AssertionError("never heard")


@contextmanager
def manager(tmp_path: Path) -> Iterator[tuple[Manager, dict[str, str]]]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
        speaker.bind(str(tmp_path / "notify"))
        yield Manager(speaker), {"NOTIFY_SOCKET": str(tmp_path / "notify"), "INVOCATION_ID": "1"}


@SUPERVISORS
def test_ready_means_that_every_worker_answers(env: Any, tmp_path: Path, supervisor: str) -> None:
    site = copy_site(tmp_path)
    # Workers take a moment until they answer; Gunicorn itself says READY before it has any.
    slow = "import os, time; time.sleep(1); open(f'slept-{os.getpid()}', 'w').close()"
    (site / "slow.conf.py").write_text(f"def post_fork(server, worker):\n    {slow}\n")
    with (
        manager(tmp_path) as (systemd, extra),
        serving(supervisor, "-c", "slow.conf.py", env=env(extra), cwd=site) as server,
    ):
        assert len([*site.glob("slept-*")]) == 2  # the address is printed when they answer, too
        text, pid = systemd.hear()
        assert text.startswith("READY=1\nSTATUS=serving")
        assert pid == server.process.pid
        assert len(server.workers()) == 2
        assert server.get("/").status == 200
        assert server.stop() == 0
        text, pid = systemd.hear()
        assert text.startswith("STOPPING=1")
        assert pid == server.process.pid


def test_a_reload_is_told_and_so_is_its_failure(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with manager(tmp_path) as (systemd, extra), serving(env=env(extra), cwd=site) as server:
        assert systemd.hear()[0].startswith("READY=1")
        assert run(*RELOAD, env=env(), cwd=site).returncode == 0
        text, pid = systemd.hear()
        assert pid == server.process.pid
        told = re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=(\d+)\nSTATUS=reloading", text)
        assert told is not None
        assert 0 < time.monotonic() - int(told[1]) / 1e6 < PATIENCE
        assert systemd.hear()[0] == "READY=1\nSTATUS=serving, generation 2"
        edit(site / "shop" / "urls.py", "def hello", "def hello(:")
        server.process.send_signal(signal.SIGHUP)
        assert systemd.hear()[0].startswith("RELOADING=1")
        text = systemd.hear()[0]
        assert text.startswith("READY=1\nSTATUS=reload failed, generation 2 keeps serving: ")
        assert "SyntaxError" in text


@SUPERVISORS
def test_the_watchdog_is_fed_while_the_arbiter_turns(env: Any, tmp_path: Path, supervisor: str) -> None:
    with manager(tmp_path) as (systemd, extra):
        extra["WATCHDOG_USEC"] = "2000000"
        with serving(supervisor, env=env(extra)) as server:
            for _ in range(2):
                systemd.wait_for(lambda text: text == "WATCHDOG=1")
            arbiter = server.arbiters()[0]
            os.kill(arbiter, signal.SIGSTOP)
            try:
                systemd.socket.settimeout(2.5)
                with pytest.raises(TimeoutError):
                    systemd.wait_for(lambda text: False)
            finally:
                os.kill(arbiter, signal.SIGCONT)


def test_a_child_does_not_speak_for_the_server(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    edit(site / "shop" / "urls.py", 'HttpResponse("hello")', 'HttpResponse(" ".join(sorted(os.environ)))')
    with manager(tmp_path) as (_, extra):
        extra["WATCHDOG_USEC"] = "9000000"
        with serving(env=env(extra), cwd=site) as server:
            for _ in range(2):
                assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC"} & set(server.get("/").text.split())
                assert run(*RELOAD, env=env(), cwd=site).returncode == 0


def test_sockets_of_systemd_are_kept_over_a_reload(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    script = (
        "import os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.execv(sys.executable, [sys.executable, 'manage.py', 'prodserve'])\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        with serving(
            env=env({"LISTEN_FDS": "1", "INVOCATION_ID": "1"}),
            cwd=site,
            command=("-c", script),
            bind=(str(number),),
            pass_fds=[number],
        ) as server:
            edit(site / "shop" / "urls.py", 'HttpResponse("hello")', 'HttpResponse("activated")')
            ended = run(*RELOAD, env=env(), cwd=site)
            assert ended.returncode == 0, ended.stderr
            assert server.port == listener.getsockname()[1]
            assert server.get("/").text == "activated"
