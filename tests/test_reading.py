"""``prodserve help``, ``prodserve completion`` and ``--help``: what is read without a project."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from django_prodserve.cli import actions, arguments, reading
from django_prodserve.cli.actions import ACTIONS
from django_prodserve.config.option_groups import GROUPS
from django_prodserve.config.options import option_fields
from django_prodserve.errors import CODES, EXIT_CODES, UsageError


def said(*words: str) -> str:
    out = io.StringIO()
    reading.run(words, out)
    return out.getvalue()


def test_help_alone_lists_what_there_is() -> None:
    text = said("help")
    assert all(re.search(rf"^  {name} ", text, re.M) for name in ACTIONS)
    assert all(row.topic in text.split() for row in option_fields())


@pytest.mark.parametrize("row", option_fields(), ids=lambda row: row.name)
def test_every_option_is_explained(row: object) -> None:
    assert isinstance(row, type(option_fields()[0]))
    for query in (row.flag, row.variable, row.key):
        text = said("help", query)
        assert row.flag in text
        assert row.variable in text


def test_an_option_is_shown_as_decided_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRODSERVE_CPUS", "3")
    assert "3 CPUs: set explicitly [PRODSERVE_CPUS]" in said("help", "cpus")
    assert "\n3: one for each usable CPU [computed]; without the project" in said("help", "workers")
    monkeypatch.setenv("PRODSERVE_TIMEOUT", "30")
    assert "30 s: set explicitly [PRODSERVE_TIMEOUT]" in said("help", "timeout")
    monkeypatch.setenv("PRODSERVE_TIMEOUT", "soon")  # the start says that; help explains
    assert "--timeout" in said("help", "timeout")


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_an_error_is_explained(code: str) -> None:
    assert CODES[code] in " ".join(said("help", code).split())


def test_exit_codes_are_explained() -> None:
    text = said("help", "exit", "codes")
    assert all(str(int(code)) in text for code in EXIT_CODES)


@pytest.mark.parametrize(
    ("asked", "meant"), [("wokers", "workers"), ("relaod", "reload"), ("prot-in-use", "port-in-use")]
)
def test_what_may_be_meant_is_said(asked: str, meant: str) -> None:
    with pytest.raises(UsageError) as told:
        said("help", asked)
    assert meant in told.value.hint
    assert (told.value.code, told.value.exit_code) == ("unknown-topic", 2)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["help", "W005"], ["help", "W005"]),
        (["explain", "--workers"], ["help", "--workers"]),
        (["--no-color", "help"], ["help"]),
        (["completion", "bash"], ["completion", "bash"]),
        (["plan", "help"], None),
        (["--bind", "1"], None),
        ([], None),
    ],
)
def test_what_only_reads_is_known_before_anything_is_parsed(
    words: list[str], found: list[str] | None
) -> None:
    assert actions.reading(words) == found


def test_every_option_is_in_one_group() -> None:
    names = [name for group in GROUPS.values() for name in group]
    assert sorted(names) == sorted(row.name for row in option_fields())


def test_help_of_the_command_line_names_all() -> None:
    text = arguments.control_parser("prodserve").format_help()
    assert text.startswith("usage: prodserve [ACTION] [options]\n")
    assert all(re.search(rf"^  {name} +\S", text, re.M) for name in ACTIONS)
    assert all(f"\n{title}:\n" in text for title in GROUPS)
    assert all(re.search(rf"(^|[ ,]){row.flag}\b", text, re.M) for row in option_fields())
    for words in ("PRODSERVE_KEEP_ALIVE", 'PRODSERVE = {"KEEP_ALIVE": 75}', "prodserve help", "from CPUs"):
        assert words in " ".join(text.split())
    assert text.count("\n  prodserve ") >= 4
    assert "computed" not in text


@pytest.mark.parametrize("word", actions.ANSWERS)
def test_words_of_other_servers_get_an_answer(word: str) -> None:
    with pytest.raises(UsageError) as told:
        actions.chosen([word])
    assert told.value.hint == actions.ANSWERS[word]
    assert told.value.code == "unknown-action"


@pytest.mark.parametrize("answer", sorted(set(actions.ANSWERS.values())))
def test_the_answers_can_be_typed(answer: str) -> None:
    for command in re.findall(r"prodserve ((?:--)?[a-z-]+)", answer):
        known = {*ACTIONS, "serves", "--version", *(row.flag for row in option_fields())}
        assert command in known


@pytest.mark.parametrize(
    ("words", "left", "addresses"),
    [
        (["8000"], [], ["8000"]),
        (["0.0.0.0:8000"], [], ["0.0.0.0:8000"]),
        (["0:8000"], [], ["0.0.0.0:8000"]),
        ([":8000", "plan"], ["plan"], [":8000"]),
        (["[::1]:8000", "unix:/run/x"], [], ["[::1]:8000", "unix:/run/x"]),
        (["localhost"], [], ["localhost"]),
        (["help", "8000"], ["help", "8000"], []),
        (["plan"], ["plan"], []),
    ],
)
def test_addresses_stand_in_place_of_an_action(
    words: list[str], left: list[str], addresses: list[str]
) -> None:
    assert actions.split(words) == (left, addresses)


@pytest.mark.parametrize(
    ("line", "message", "fix"),
    [
        ("--static maybe", "--static is 'maybe', but must be on or off", "Write --static or --no-static"),
        ("--static=maybe", "--static is 'maybe', but must be on or off", "Write --static or --no-static"),
        ("--no-static=1", "--no-static takes no value.", "Write --static or --no-static"),
        ("--workers", "--workers needs a value.", "For example: --workers 2"),
        ("-v 9", "Argument -v/--verbosity: invalid choice", "prodserve --help"),
        (
            "plan --gunicorn-conf /srv/g.py",
            "--gunicorn-conf takes no file: it prints to standard output.",
            "prodserve plan --gunicorn-conf > /srv/g.py",
        ),
    ],
)
def test_a_wrong_command_line_is_told_with_its_fix(line: str, message: str, fix: str) -> None:
    parser = arguments.control_parser("prodserve")
    parser._option_string_actions["-v"].choices = ("0", "1")
    with pytest.raises(UsageError) as told:
        parser.parse_args(line.split())
    assert message in told.value.message
    assert fix in told.value.hint


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--migrate status", ["status"]),
        ("--migrate pln", ["pln"]),
        ("plan --static workers", ["plan", "workers"]),
        ("--workers 2 3", ["3"]),
        ("--workers 2 8000x", ["8000x"]),
    ],
)
def test_what_is_not_a_value_is_an_action(line: str, words: list[str]) -> None:
    assert arguments.control_parser("prodserve").parse_args(line.split()).action == words


@pytest.mark.parametrize(
    ("word", "hint"),
    [("3", "To serve on port 3: --bind 3"), ("8000x", "HOST:PORT or PORT"), ("pln", "Did you mean plan?")],
)
def test_a_word_that_is_no_action_is_told_with_what_it_may_be(word: str, hint: str) -> None:
    with pytest.raises(UsageError) as told:
        actions.chosen([word])
    assert hint in told.value.hint


@pytest.fixture
def on_a_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command on a terminal of 24 lines; return what the terminal shows."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name in ("COLUMNS", "LINES", "LESS"):
        monkeypatch.delenv(name, raising=False)

    def shown(*words: str) -> str:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "django_prodserve", *words]
        process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path)
        os.close(theirs)
        found = b""
        with suppress(OSError):  # EIO: the last process with the terminal has ended
            while data := os.read(ours, 65536):
                found += data
        os.close(ours)
        assert process.wait(30) == 0, found
        return found.decode().replace("\r\n", "\n")

    return shown


def test_a_text_longer_than_the_terminal_goes_through_the_pager(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pager = tmp_path / "a pager"
    pager.write_text('#!/bin/sh\ncat > "$1"; echo "LESS=$LESS"\n')
    pager.chmod(0o755)
    monkeypatch.setenv("PAGER", f"'{pager}' {tmp_path}/paged")
    assert on_a_terminal("help", "options") == "LESS=FRX\n"
    paged = (tmp_path / "paged").read_text()
    assert "--keep-alive" in paged
    assert paged.startswith("\x1b[1m# ")
    assert re.sub("\x1b\\[[0-9;]*m", "", paged) == said("help", "options")


def test_a_short_text_needs_no_pager(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PAGER", "false")
    assert "Another process listens on the address." in on_a_terminal("help", "port-in-use")


@pytest.mark.parametrize("pager", ["no-such-pager -x", " ", "'unclosed"])
def test_without_a_pager_the_text_is_printed(
    on_a_terminal: Callable[..., str], monkeypatch: pytest.MonkeyPatch, pager: str
) -> None:
    monkeypatch.setenv("PAGER", pager)
    assert on_a_terminal("help", "options").count("\n") > 24
