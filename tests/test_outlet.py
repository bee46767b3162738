"""Nobody waits for a log: a pipe that is full, closed or read slowly, and a disk without room."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_prodserve.logs.nonblocking import FileHandler
from django_prodserve.utils.outlet import AT_ONCE, MAX_KEPT_BYTES, NonBlockingWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        try:
            os.close(end)
        except OSError:
            assert end == reader  # closed by the test


def numbered(first: int, count: int, width: int = 200) -> bytes:
    return b"".join(b"%d %s\n" % (number, b"x" * width) for number in range(first, first + count))


def read_all(reader: int, outlet: NonBlockingWriter) -> list[bytes]:
    """Read until nothing is left to come."""
    os.set_blocking(reader, False)
    found = b""
    while True:
        done = outlet.push()
        try:
            found += os.read(reader, 2**16)
        except BlockingIOError:
            if done:
                return found.splitlines()


@pytest.mark.parametrize("asks", [False, True])
def test_a_full_pipe_keeps_whole_lines_up_to_a_bound_and_counts_the_rest(
    pipe: tuple[int, int], asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if asks:  # as where the pipe cannot be opened again: another user's, or macOS
        monkeypatch.setattr(os, "open", lambda *args: (_ for _ in ()).throw(PermissionError()))
    outlet = NonBlockingWriter(pipe[1], "The access log")
    began = time.monotonic()
    for number in range(100):
        outlet.put(numbered(number * 100, 100))
    assert time.monotonic() - began < 5
    assert outlet.lost
    report = outlet.report(100.0)
    assert report.startswith("The access log is blocked: its reader has stopped. ")
    assert f" {outlet.lost} lines are lost" in report
    outlet.put(numbered(0, 1000))
    assert outlet.report(159.0) == ""
    assert outlet.report(160.1)
    lines = read_all(pipe[0], outlet)
    assert len(lines) + outlet.lost == 11_000
    assert {len(line.split(b" ")[1]) for line in lines} == {200}
    assert os.get_blocking(pipe[1])  # others write to it as before


def test_lines_of_two_processes_do_not_mix(pipe: tuple[int, int]) -> None:
    ours, theirs = NonBlockingWriter(pipe[1], "ours"), NonBlockingWriter(pipe[1], "theirs")
    for _ in range(40):
        ours.put(b"".join(b"a" * 301 + b"\n" for _ in range(60)))
        theirs.put(b"".join(b"b" * 407 + b"\n" for _ in range(60)))
    os.set_blocking(pipe[0], False)
    found = b""
    while True:
        done = [ours.push(), theirs.push()]
        try:
            found += os.read(pipe[0], 5000)
        except BlockingIOError:
            if all(done):
                break
    assert {bytes(line) for line in found.splitlines()} == {b"a" * 301, b"b" * 407}
    assert len(found.splitlines()) == 4800


def test_a_line_that_is_longer_than_a_pipe_takes_at_once_arrives(pipe: tuple[int, int]) -> None:
    outlet = NonBlockingWriter(pipe[1], "The error log")
    line = b"y" * (50 * AT_ONCE)
    outlet.put(b"before\n" + line + b"\nbehind\n")
    assert read_all(pipe[0], outlet) == [b"before", line, b"behind"]


def test_a_reader_that_is_gone_costs_nothing_but_lines(pipe: tuple[int, int]) -> None:
    outlet = NonBlockingWriter(pipe[1], "The access log")
    os.close(pipe[0])
    outlet.put(numbered(0, 3))
    assert (outlet.lost, outlet.push()) == (3, True)
    assert "Broken pipe" in outlet.report(0.0)


def test_a_full_disk_is_told_and_what_is_kept_is_written_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.symlink_to("/dev/full")
    handler = FileHandler(str(path), "The access log")
    outlet = handler.outlet
    assert outlet is not None
    handler.put(numbered(0, 5))
    assert "No space left on device. Requests are served; no lines are lost" in outlet.report(0.0)
    for _ in range(MAX_KEPT_BYTES // 100_000 + 1):
        handler.put(numbered(5, 500))
    assert outlet.lost
    path.unlink()
    handler.close()
    handler.stream = handler._open()
    handler.put(b"room\n")
    lines = path.read_bytes().splitlines()
    assert lines[0].startswith(b"0 ")
    assert lines[-1] == b"room"
    assert outlet.report(61.0)  # what was lost since
    assert outlet.report(200.0) == ""
    handler.close()


def test_a_socket_as_systemd_gives_it_is_not_waited_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        outlet = NonBlockingWriter(ours.fileno(), "Standard error")
        outlet.put(numbered(0, 4000))
        found = b""
        while not outlet.push():
            found += theirs.recv(2**16)
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found += theirs.recv(2**16)
        assert found == numbered(0, 4000)


def test_a_fork_repeats_nothing(pipe: tuple[int, int]) -> None:
    outlet = NonBlockingWriter(pipe[1], "The access log")
    for number in range(10):
        outlet.put(numbered(number * 100, 100))
    assert not outlet.push()
    if (pid := os.fork()) == 0:
        os._exit(0 if outlet.push() else 1)  # it has nothing to push
    assert os.waitpid(pid, 0)[1] == 0
    assert len(read_all(pipe[0], outlet)) == 1000


def test_a_process_that_ends_waits_for_a_slow_reader(pipe: tuple[int, int]) -> None:
    code = (
        "import logging, sys; from django_prodserve.logs.nonblocking import ConsoleHandler\n"
        "handler = ConsoleHandler(sys.stdout, 'it')\n"
        "handler.put(b'z' * 99 + b'\\n'); [handler.put((b'z' * 99 + b'\\n') * 100) for _ in range(50)]\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code], stdout=pipe[1])
    found = b""

    def read() -> None:
        nonlocal found
        while len(found) < 500_100:
            time.sleep(0.001)
            found += os.read(pipe[0], 4096)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    assert child.wait(30) == 0
    reader.join(30)
    assert found == (b"z" * 99 + b"\n") * 5001


def test_arguments_that_do_not_fit_are_pythons_to_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = FileHandler(str(tmp_path / "log"), "it")
    handler.emit(logging.LogRecord("shop", logging.ERROR, "", 0, "%d", ("word",), None))
    assert "Logging error" in capsys.readouterr().err
    handler.close()
