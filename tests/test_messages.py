"""The one form of a message: for people, for programs, coloured or not, wrapped or not."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import Warning

from django_prodserve import errors
from django_prodserve.cli import messages
from django_prodserve.cli.check_report import CheckReport
from django_prodserve.errors import CODES, EXIT_CODES, ExitCode, Problem, ProdserveError, UsageError
from django_prodserve.management.commands.prodserve import system_check
from django_prodserve.utils import terminal
from django_prodserve.utils.notice import Notice, note, part, warning

PACKAGE = Path(errors.__file__).parent


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "50")
    terminal.choose()


TWO = UsageError.of(
    [
        Problem("--workers is 'two'.", "For example: --workers 2", code="bad-value", topic="workers"),
        Problem("It broke.", where="shop/urls.py, line 3: import x", code="failed"),
    ]
)


def written(error: ProdserveError, stream: Any, *, as_json: bool = False) -> str:
    messages.write_error(error, stream, as_json=as_json)
    text: str = stream.getvalue()
    return text


def test_everything_that_is_wrong_is_written() -> None:
    assert written(TWO, io.StringIO()).splitlines()[:4] == [
        "prodserve: error: --workers is 'two'.",
        "  Fix:  For example: --workers 2",
        "  More: prodserve help workers",
        "prodserve: error: It broke.",
    ]
    assert "\n  See:  shop/urls.py, line 3: import x\n" in written(TWO, io.StringIO())


def test_programs_read_an_object_for_each() -> None:
    first, second = map(json.loads, written(TWO, io.StringIO(), as_json=True).splitlines())
    expected = {
        "level": "error",
        "logger": "prodserve",
        "message": "--workers is 'two'.",
        "code": "bad-value",
    }
    expected |= {"fix": "For example: --workers 2", "more": "prodserve help workers"}
    assert {name: first[name] for name in expected} == expected
    assert second["where"] == "shop/urls.py, line 3: import x"
    assert "fix" not in second


def test_a_terminal_gets_lines_that_fit_and_paths_that_stay_whole() -> None:
    path = "/srv/" + "long/" * 20
    text = re.sub("\x1b\\[[0-9;]*m", "", written(ProdserveError("One two three " * 9, path), Terminal()))
    assert path in text.splitlines()[-1]
    assert max(len(line) for line in text.splitlines() if path not in line) <= 50
    assert all(line.startswith("  ") for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    ("environ", "flags", "on_terminal", "off_terminal"),
    [
        ({}, {}, True, False),
        ({"NO_COLOR": "1"}, {}, False, False),
        ({"NO_COLOR": "", "FORCE_COLOR": ""}, {}, True, False),
        ({"FORCE_COLOR": "1"}, {}, True, True),
        ({"FORCE_COLOR": "0"}, {}, True, False),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, {}, False, False),
        ({"TERM": "dumb"}, {}, False, False),
        ({"NO_COLOR": "1"}, {"force_color": True}, True, True),
        ({"FORCE_COLOR": "1"}, {"no_color": True}, False, False),
    ],
)
def test_one_rule_decides_on_colours(
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    flags: dict[str, bool],
    on_terminal: bool,
    off_terminal: bool,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    terminal.choose(**flags)
    assert ("\x1b[" in written(TWO, Terminal())) is on_terminal
    assert ("\x1b[" in written(TWO, io.StringIO())) is off_terminal
    terminal.choose()


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        (
            part("static", "130 files"),
            {"level": "info", "message": "static: 130 files", "event": "start", "part": "static"},
        ),
        ("loading the project (2 s)", {"level": "info", "message": "loading the project (2 s)"}),
        (
            "warning: a line of the project's own code",
            {"level": "info", "message": "warning: a line of the project's own code"},
        ),
        (warning("It is odd."), {"level": "warning", "message": "It is odd."}),
        (note("by the way", running=7), {"level": "info", "message": "by the way", "running": 7}),
        (
            warning(
                Problem("No TLS.", "--certfile, or a proxy", code="W007", check="prodserve.W007"),
            ),
            {
                "level": "warning",
                "message": "No TLS.",
                "code": "W007",
                "fix": "--certfile, or a proxy",
                "more": "prodserve help W007",
            },
        ),
        (
            warning(system_check(Warning("no default key", obj="shop.Order", id="models.W042"))),
            {"level": "warning", "message": "shop.Order: no default key", "code": "models.W042"},
        ),
        (
            warning(system_check(Warning("no id"))),
            {"level": "warning", "message": "no id"},
        ),
        (
            Notice("http://x  ready in 0.5 s", event="ready", addresses=["http://x"], seconds=0.5),
            {"level": "info", "message": "http://x  ready in 0.5 s", "event": "ready", "seconds": 0.5},
        ),
        (
            Notice("workers   2 x 4", workers=2, threads=4),
            {"message": "workers   2 x 4", "workers": 2, "threads": 4},
        ),
    ],
)
def test_what_a_start_says_has_fields_for_programs(line: str, fields: dict[str, Any]) -> None:
    found = json.loads(messages.said_as_json(line))
    assert {name: found.get(name) for name in fields} == fields
    assert list(found)[:4] == ["time", "level", "logger", "message"]
    assert "padding" not in found
    if "code" not in fields:
        assert "code" not in found


@pytest.mark.parametrize(
    ("words", "environ", "block", "is_json"),
    [
        ([], {}, {}, True),
        (["--log-format", "text"], {"PRODSERVE_LOG_FORMAT": "json"}, {}, False),
        (["--log-format=text"], {}, {}, False),
        ([], {"PRODSERVE_LOG_FORMAT": "text"}, {"LOG_FORMAT": "json"}, False),
        ([], {}, {"LOG_FORMAT": "text"}, False),
        (["--log-format", "xml"], {}, {}, True),
        (["--log-format"], {}, {}, True),
    ],
)
def test_the_form_is_known_before_options_are(
    tmp_path: Path, words: list[str], environ: dict[str, str], block: dict[str, str], is_json: bool
) -> None:
    with (tmp_path / "log").open("w") as file:
        assert messages.is_json(file, messages.typed_format(words), environ, block) is is_json


def test_every_code_that_is_raised_is_listed_and_every_listed_one_is_raised() -> None:
    source = "\n".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    raised = set(re.findall(r"(?:code=|_code = |code: str = |\", )\"([a-z]+(?:-[a-z]+)*)\"", source))
    assert set(re.findall(r"(?:\bcode=|default_code = )\"([a-z-]+)\"", source)) <= CODES.keys()
    assert {code for code in CODES if f'"{code}"' not in source.replace(f'    "{code}": ', "")} == set()
    assert raised


def test_every_exit_code_is_explained() -> None:
    assert set(EXIT_CODES) == set(ExitCode)
    assert (UsageError.exit_code, ProdserveError.exit_code) == (2, 1)


def test_an_error_travels_between_processes() -> None:
    again = pickle.loads(pickle.dumps(TWO))
    assert (again.problems, again.exit_code, str(again)) == (TWO.problems, ExitCode.USAGE, str(TWO))


@pytest.mark.parametrize(
    ("line", "lines"),
    [
        ("loading the project (2 s)", ["loading the project (2 s)"]),
        (part("static", "130 files"), ["static    130 files"]),
        (note("by the way"), ["note: by the way"]),
        (
            warning(system_check(Warning("No TLS.", hint="--certfile", id="prodserve.W007"))),
            ["warning: No TLS. (prodserve.W007)", "  Fix:  --certfile"],
        ),
        (warning(system_check(Warning("no id"))), ["warning: no id"]),
    ],
)
def test_what_a_start_says_is_text_for_people(line: str, lines: list[str]) -> None:
    assert messages.said_as_text(line, io.StringIO()).splitlines()[: len(lines)] == lines


def test_a_line_travels_between_processes_with_its_fields() -> None:
    line = warning(Problem("No TLS.", "--certfile", code="W007", check="prodserve.W007"))
    again = pickle.loads(pickle.dumps([line, part("static", "130 files")]))
    assert [entry.level for entry in again] == ["warning", "info"]
    assert again[0].problem == line.problem
    assert again[1].fields == {"event": "start", "part": "static"}


def test_check_reports_what_was_said_as_data() -> None:
    report = CheckReport(lambda line: None, as_json=True)
    found = Problem("No TLS.", "--certfile", code="W007", check="prodserve.W007")
    for line in (part("static", "130 files"), note("by the way"), warning(found), "progress (1 s)"):
        report.say(line)
    assert json.loads(report.summary()) == {
        "ready": True,
        "errors": [],
        "warnings": [
            {"code": "W007", "message": "No TLS.", "fix": "--certfile", "more": "prodserve help W007"}
        ],
        "notes": ["by the way"],
    }


def test_a_closed_stream_is_no_terminal() -> None:
    with open(os.devnull) as file:
        pass
    assert not terminal.is_terminal(file)
    assert terminal.width(io.StringIO()) == 0
