"""A running server's place: private, found by pid and start time, never mistaken for another's."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.cli import control
from django_prodserve.errors import ProdserveError
from django_prodserve.machine import proc
from django_prodserve.supervisor import run_directory
from django_prodserve.supervisor.generation import last_error


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let everything be in one directory of the test's own."""
    monkeypatch.setattr(run_directory, "bases", lambda uid: [tmp_path])
    return tmp_path


def register(project: Path, *binds: str, pid: int | None = None, **facts: Any) -> Path:
    """Write down a server; each with other addresses is another program."""
    pid = pid or os.getpid()
    place = run_directory.create(str(project), str(binds))
    started = proc.start_time(pid)
    known = {"pid": pid, "started": started, "project": str(project), "binds": binds, "supervisor": True}
    run_directory.write(place, {**known, **facts})
    return place


def test_a_server_is_found_by_project_and_address(base: Path, tmp_path: Path) -> None:
    site, link = tmp_path / "site", tmp_path / "current"
    site.mkdir()
    link.symlink_to(site)
    place = register(link, "127.0.0.1:8000", "unix:/run/shop.sock")
    for project in (link, site):
        for binds in ([], ["8000"], [":8000"], ["localhost:8000"], ["unix:/run/shop.sock", "127.0.0.1:8000"]):
            found = control.find(project, binds)
            assert (found.pid, found.directory, found.project) == (os.getpid(), place, str(link))
    with pytest.raises(ProdserveError, match=r"No server of this project has the address 8001\."):
        control.find(site, ["8001"])
    with pytest.raises(ProdserveError, match=f"No server is running for the project in {tmp_path}"):
        control.find(tmp_path)
    register(site, "127.0.0.1:8002")
    with pytest.raises(ProdserveError, match=r"(?s)2 servers of this project are running.*--bind"):
        control.find(site)
    assert control.find(site, ["8002"]).binds == ("127.0.0.1:8002",)


def test_a_dead_server_and_its_pids_next_owner_are_not_taken_for_it(base: Path, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "10"]) as process:
        killed = register(tmp_path, "127.0.0.1:8000", pid=process.pid)
        other = register(tmp_path, "127.0.0.1:8001", started=1)
        assert control.find(tmp_path).pid == process.pid
        process.kill()
    assert list(run_directory.running()) == []
    assert len(list(run_directory.left_behind())) == 2
    os.utime(other, (0, 0))
    (killed / "board").write_text("")
    assert register(tmp_path, "127.0.0.1:8000") == killed
    assert list(run_directory.left_behind()) == []
    assert os.listdir(killed) == ["server.json"]
    assert not other.exists()


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_directory_that_others_may_look_into_is_not_used(base: Path, tmp_path: Path, mode: int) -> None:
    ours = base / f"prodserve-{os.geteuid()}"
    ours.mkdir()
    ours.chmod(mode)
    with pytest.raises(OSError, match="no directory is writable"):
        run_directory.create(str(tmp_path), "manage.py")
    assert list(run_directory.running()) == []


def test_nor_is_a_link_that_somebody_has_laid_there(base: Path, tmp_path: Path) -> None:
    private = tmp_path / "elsewhere"
    private.mkdir(mode=0o700)
    (base / f"prodserve-{os.geteuid()}").symlink_to(private)
    with pytest.raises(OSError, match="no directory is writable"):
        run_directory.create(str(tmp_path), "manage.py")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            'Traceback (most recent call last):\n  File "/a/b.py", line 3, in f\n    x\nNameError: no x\n',
            "NameError: no x (/a/b.py, line 3)",
        ),
        ("Unknown command: 'prodserve'\nType 'manage.py help' for usage.\n", "Unknown command: 'prodserve'"),
        ("a warning\nprodserve: error: what is wrong\n  Fix:  a hint\n", "what is wrong"),
        ('{"level": "error", "message": "what is wrong", "fix": "a hint"}\n', "what is wrong"),
        ('{"level": "warning", "message": "odd"}\n{"level": "error", "message": "wrong"}\n', "wrong"),
        ("", ""),
    ],
)
def test_the_reason_is_found_in_what_a_process_wrote_before_it_died(text: str, reason: str) -> None:
    assert last_error(text) == reason
