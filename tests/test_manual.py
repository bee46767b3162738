"""What ``prodserve help`` finds in the documents, however somebody asks for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from django_prodserve.utils import manual

CHECKS = """\
# Checks

<!-- generated -->
| Id | Meaning |
| --- | --- |
| `W001`, `W002` | two in a row |

## W005 Redirects to HTTPS without end

No proxy is trusted.

### Fix

```sh
# not a heading
prodserve --trusted-proxies private
```

## `--keep-alive` and idle connections

Idle ones.

## prodserve_requests_total

A counter.

## ... is already in use by ...

Stop it.

## Overload
"""


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    (tmp_path / "checks.md").write_text(CHECKS)
    (tmp_path / "exit-codes-and-signals.md").write_text("# Exit codes and signals\n\n0 is done.\n")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "title"),
    [
        ("checks", "Checks"),
        ("Exit codes", "Exit codes and signals"),
        ("exit-codes-and-signals", "Exit codes and signals"),
        ("W005", "W005 Redirects to HTTPS without end"),
        ("w005", "W005 Redirects to HTTPS without end"),
        ("prodserve.W005", "W005 Redirects to HTTPS without end"),
        ("W002", "`W001`, `W002`"),
        ("--keep-alive", "`--keep-alive` and idle connections"),
        ("KEEP_ALIVE", "`--keep-alive` and idle connections"),
        ("prodserve_requests_total", "prodserve_requests_total"),
        ("redirects https", "W005 Redirects to HTTPS without end"),
        ("overload", "Overload"),
        (
            'prodserve: error: 127.0.0.1:80 is already in use by "nginx" (pid 7).',
            "... is already in use by ...",
        ),
    ],
)
def test_it_is_found(documents: Path, asked: str, title: str) -> None:
    assert [entry.title for entry in manual.find(asked, documents).entries] == [title]


def test_an_entry_ends_where_the_next_of_its_level_begins(documents: Path) -> None:
    (entry,) = manual.find("W005", documents).entries
    assert entry.text.startswith("## W005 ")
    assert entry.text.endswith("prodserve --trusted-proxies private\n```\n")
    (row,) = manual.find("W001", documents).entries
    assert row.text == "Id: `W001`, `W002`\nMeaning: two in a row\n"


@pytest.mark.parametrize(
    ("asked", "close"), [("chekcs", "checks"), ("W006", "W005"), ("overlod", "Overload")]
)
def test_what_may_be_meant_is_named(documents: Path, asked: str, close: str) -> None:
    found = manual.find(asked, documents)
    assert found.entries == ()
    assert close in found.close


@pytest.mark.parametrize("name", ["W005", "W001", "checks", "keep-alive"])
def test_a_message_names_only_what_has_an_entry(documents: Path, name: str) -> None:
    assert manual.has(name, documents)
    assert not manual.has(f"{name}9", documents)
    assert not manual.has("", documents)


def test_markers_are_not_shown(documents: Path) -> None:
    assert "<!--" not in manual.read("checks", documents)
