"""How a plan is printed: groups, columns, one decision alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from django_prodserve.config.options import SourcedValue
from django_prodserve.errors import UsageError
from django_prodserve.plan.explain import GROUPS, as_json, check_names, explain
from django_prodserve.utils.decision import Decision

from .facts import machine, plan


def test_each_decision_is_in_one_group() -> None:
    grouped = [name for group in GROUPS.values() for name in group]
    assert sorted(grouped) == sorted(name for name, _ in plan().decisions())


def test_what_was_set_explicitly_comes_first_and_once() -> None:
    text = explain(plan(workers=3, keep_alive=5.0))
    lines = text.splitlines()
    start = lines.index("Set explicitly")
    assert lines[start : start + 3] == [
        "Set explicitly",
        "  workers     3    set by test",
        "  keep-alive  5 s  set by test",
    ]
    assert start < lines.index("Machine") < lines.index("Timeouts")
    assert sum(line.startswith("  workers ") for line in lines) == 1
    assert "Set explicitly" not in explain(plan())


def test_settings_of_gunicorn_are_set_explicitly() -> None:
    text = explain(replace(plan(), gunicorn={"proxy_protocol": SourcedValue("off", "gunicorn.conf.py")}))
    assert "  gunicorn proxy_protocol  'off'  set by gunicorn.conf.py" in text.splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_and_continue_below_the_reason(width: int) -> None:
    long = "word " * 40
    text = explain(replace(plan(), timeout=Decision(30.0, long), warnings=(long,)), width=width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    number = next(number for number, line in enumerate(lines) if line.startswith("  timeout "))
    assert lines[number].index("word") == lines[number + 1].index("word")


def test_a_path_that_is_longer_than_a_line_stays_whole() -> None:
    path = f"/srv/{'long/' * 30}"
    text = explain(replace(plan(), certfile=Decision((path,), "a test", "--certfile")))
    assert path in [line.strip() for line in text.splitlines()]


def test_details_add_sources_and_what_could_not_be_read() -> None:
    seen = plan(machine(notes=("memory.max cannot be read",)))
    assert "[default]" not in explain(seen)
    assert "memory.max" not in explain(seen)
    detailed = explain(seen, details=True)
    assert "[default]" in detailed
    assert "note: memory.max cannot be read" in detailed
    assert "note: Every limit of this machine could be read." in explain(plan(), details=True)


def test_one_decision_alone_says_how_to_set_it() -> None:
    text = explain(plan(), names=check_names(["keep-alive", "brotli"]), width=200)
    assert text.splitlines() == [
        "keep-alive: 75 s",
        "  longer than the 60 s after which usual load balancers close [default]",
        "  Set it with --keep-alive, the variable PRODSERVE_KEEP_ALIVE, or PRODSERVE = "
        '{"KEEP_ALIVE": ...} in the settings.',
        "  A running server takes a variable or a setting over with prodserve reload; another flag needs a "
        "restart.",
        "brotli: on",
        "  static files are compressed with br and gzip [computed]",
    ]
    assert "A running server needs a restart." in explain(plan(), names=("bind",))
    assert '"keep_alive"' in as_json(plan(), ["keep_alive"])
    assert '"brotli"' not in as_json(plan(), ["keep_alive"])


def test_a_name_that_is_no_decision_is_refused() -> None:
    with pytest.raises(UsageError, match="There is no decision 'wokers' in the plan") as raised:
        check_names(["wokers"])
    assert raised.value.hint == "Did you mean workers?"
    assert check_names(["KEEP_ALIVE", "--threads"]) == ("keep_alive", "threads")
