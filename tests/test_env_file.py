"""What lines of KEY=VALUE mean, and that a line that is gone counts too."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_prodserve.config import env_file

TEXT = """
# a comment
PLAIN=value
export EXPORTED=yes
SPACED = two words   # and a comment
HASH=a#b
SINGLE='it is $HOME # here'
DOUBLE="a \\"quote\\"" # behind
EMPTY=
URL=postgres://u:p@h/db?x=1
"""


def test_the_usual_ways_to_write_it() -> None:
    assert env_file.parse(TEXT) == {
        "PLAIN": "value",
        "EXPORTED": "yes",
        "SPACED": "two words",
        "HASH": "a#b",
        "SINGLE": "it is $HOME # here",
        "DOUBLE": 'a "quote"',
        "EMPTY": "",
        "URL": "postgres://u:p@h/db?x=1",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A=1\nnonsense", "line 2: expected KEY=VALUE"),
        ("1A=1", "line 1: expected KEY=VALUE"),
        ("A='open", "line 1: a quote is not closed"),
        ("A='one' two", "line 1: text after the closing quote"),
    ],
)
def test_a_wrong_line_is_told_by_its_number(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        env_file.parse(text)


def test_every_wrong_line_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "production.env"
    file.write_text("A=1\nnonsense\nB='open\n# fine\nC='one' two\n")
    environ = {"A": "typed"}
    with pytest.raises(ValueError, match="line 2: ") as caught:
        env_file.apply(str(file), environ)
    assert environ == {"A": "typed"}
    refused = env_file.refusal(str(file), caught.value)
    assert [problem.message for problem in refused.problems] == [
        f"--env-file {file}, line 2: expected KEY=VALUE.",
        f"--env-file {file}, line 3: a quote is not closed.",
        f"--env-file {file}, line 5: text after the closing quote.",
    ]
    assert [bool(problem.fix) for problem in refused.problems] == [False, False, True]
    assert {problem.code for problem in refused.problems} == {"env-file"}


def test_applying_is_undone_exactly(tmp_path: Path) -> None:
    file = tmp_path / "production.env"
    file.write_text("A=file\nB=file\n")
    environ = {"A": "typed", "C": "typed"}
    env_file.apply(str(file), environ)
    assert {name: environ[name] for name in "ABC"} == {"A": "file", "B": "file", "C": "typed"}
    assert env_file.without(environ) == {"A": "typed", "C": "typed"}
