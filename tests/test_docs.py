"""The documents in the package are up to date with the code, whole, and readable in a terminal."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from django_prodserve.cli.arguments import ACTIONS
from django_prodserve.config.options import option_fields
from django_prodserve.machine.platforms import RULES
from django_prodserve.plan.plan import Plan

from . import docs
from .docs import DOCS, GENERATED, render, sections, template, trees
from .language import prose

PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
README = (Path(__file__).parent.parent / "README.md").read_text()
COLUMNS = 80


def titles(page: str) -> list[str]:
    """Return the names of a page's entries."""
    return [title for title, _ in sections(PAGES[page]) if title]


@pytest.mark.parametrize("page", sorted(GENERATED))
def test_what_is_generated_is_up_to_date(page: str) -> None:
    expected = render(PAGES[page], [*GENERATED[page]()])
    assert PAGES[page] == expected, "run: python -m tests.docs"


def test_files_of_a_page_are_those_that_export_writes() -> None:
    shown = {match for page in PAGES.values() for match in docs.EXAMPLE.findall(page)}
    assert {"systemd", "systemd-socket", "nginx", "caddy", "dockerfile", "kubernetes", "procfile"} <= {
        kind for _, kind in shown
    }
    for page, text in PAGES.items():
        assert text == docs.with_examples(text), f"{page}: run python -m tests.docs"


def test_every_option_and_decision_has_an_entry() -> None:
    wanted = [row.flag[2:] for row in option_fields()]
    found = titles("options.md")
    assert [entry for entry in found if entry in wanted] == wanted
    decisions = {
        name.replace("_", "-")
        for name, row in Plan.__dataclass_fields__.items()
        if "Decision" in str(row.type)
    }
    assert "workers" in decisions
    assert decisions - {*found} == set()


def test_every_check_has_an_entry_with_prose() -> None:
    source = "".join(path.read_text() for path in docs.PACKAGE.rglob("*.py"))
    ids = {*re.findall(r'"(?:prodserve\.)?([EW]\d{3})"', source)}
    assert len(ids) > 20
    assert {title.split()[0] for title in titles("checks.md")} == ids
    for title, body in sections(PAGES["checks.md"])[1:]:
        assert len(title.split()) > 1
        assert prose(body.rpartition("```")[2]).strip(), f"{title}: say why, and how to fix it"


@pytest.mark.parametrize("page", ["events.md", "metrics.md"])
def test_every_event_and_metric_has_an_entry(page: str) -> None:
    assert titles(page) == [entry.name for entry in GENERATED[page]()]


def test_every_event_is_described() -> None:
    for title, body in sections(PAGES["events.md"])[1:]:
        assert prose(body.rpartition("```")[2]).strip(), f"{title}: say what has happened"


def test_every_action_platform_and_exit_code_is_named() -> None:
    assert {*ACTIONS} - {*titles("commands.md")} == set()
    assert {rule.name for rule in RULES} - {*titles("deploy-platforms.md")} == set()
    assert {"0", "1", "2", "3", "130", "SIGTERM", "SIGHUP"} <= {*titles("exit-codes-and-signals.md")}


def test_messages_in_errors_are_those_of_the_code() -> None:
    constants = [
        re.sub(r"%[sd]|\{\}", "...", template(node))
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant | ast.JoinedStr)
    ]
    known = " ".join("\n".join(constants).split())
    others = {
        "Bad Request (400)",
        "Gateway Timeout (504)",
        "Invalid HTTP_HOST header: ...",
        "Not Found (404) for a static file",
        "Pages without styles",
        "Redirect loop behind a proxy",
        "Service Unavailable (503)",
        "Unknown command: 'prodserve'",
        "database is locked",
    }
    found = []
    for title in titles("errors.md"):
        fragments = [fragment.strip(" :.(),") for fragment in title.split("...")]
        unknown = [words for words in fragments if len(words) > 2 and words not in known]
        if unknown and title not in others:
            found.append((title, unknown))
    assert found == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_a_page_reads_well_in_a_terminal(page: str) -> None:
    text = PAGES[page]
    lines = text.splitlines()
    assert lines[0].startswith("# ")
    assert lines[1] == ""
    assert lines[2]
    assert not lines[2].startswith(("#", "|", "```", "-"))
    assert [line for line in lines if len(line) > COLUMNS] == []
    assert not re.search(r"<[a-z/!]", prose(text)), "no HTML"
    blocks = re.findall(r"^```.*?^```$", text, re.MULTILINE | re.DOTALL)
    in_blocks = [line for block in blocks for line in block.splitlines()]
    assert [line for line in lines[1:] if line.startswith("# ") and line not in in_blocks] == []
    assert text.count("\n```") % 2 == 0


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        assert target.startswith("https://") or target in PAGES, target


def test_every_page_is_linked_from_the_readme() -> None:
    linked = re.findall(r"/django_prodserve/docs/([\w-]+\.md)$", README, re.MULTILINE)
    assert sorted(linked) == sorted(PAGES)
