"""What a supervisor writes waits for no reader, and says whether it was written."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from django_prodserve.cli.actions import ACTIONS, ALIASES
from django_prodserve.utils.early_signals import PRINTING
from django_prodserve.utils.log_lines import write_if_read


def test_a_supervisor_writes_what_there_is_room_for() -> None:
    reader, writer = os.pipe()
    assert write_if_read(writer, b"line\n")
    began = time.monotonic()
    assert not write_if_read(writer, b"x" * 200_000 + b"\n")
    assert time.monotonic() - began < 5
    assert os.read(reader, 5) == b"line\n"
    os.close(reader)
    assert not write_if_read(writer, b"line\n")
    os.close(writer)


SHIELDED = """
import io, logging, os, sys
kept, before = sys.stdout, logging.StreamHandler(sys.stdout)
print("kept in a buffer, caf\\u00e9", end=" ")
from django_prodserve.utils import standard_streams
standard_streams.shield()
standard_streams.shield()
assert sys.stdout is kept is sys.__stdout__ and sys.stdout.fileno() == 1 and not sys.stdout.isatty()
assert (sys.stdout.name, sys.stdout.errors) == ("<stdout>", "backslashreplace")
print("\\u2713")
before.emit(logging.makeLogRecord({"msg": "a handler of before \\udcff"}))
sys.stdout.buffer.write(b"bytes\\n"); sys.stdout.flush()
if (pid := os.fork()) == 0:
    print("a child"); os._exit(0)
os.waitpid(pid, 0)
elsewhere = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
os.dup2(elsewhere, 1)
print("moved", end="")
"""


def test_streams_that_are_shielded_are_the_same_objects(tmp_path: object) -> None:
    moved = f"{tmp_path}/moved"
    environ = {**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUNBUFFERED": ""}
    ended = subprocess.run(
        [sys.executable, "-c", SHIELDED, moved], env=environ, capture_output=True, timeout=30, check=False
    )
    assert ended.stderr == b""
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == [
        b"kept in a buffer, caf\xe9 \\u2713",
        b"a handler of before \\udcff",
        b"bytes",
        b"a child",
    ]
    with open(moved, "rb") as file:
        assert file.read() == b"moved"


def test_every_action_but_serve_prints_completely() -> None:
    assert {*ACTIONS, *ALIASES} - {"serve"} <= PRINTING
