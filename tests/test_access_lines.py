"""A line of the access log says what was asked, whatever bytes a client has sent, and is always one line."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from django_prodserve.logs.access_lines import (
    MAX_CACHED,
    AccessFilter,
    JSONLines,
    ShortLines,
    TextLines,
    entry,
)
from django_prodserve.logs.environ_keys import CLOSE_CODE, ID, QUEUE, ROUTE
from django_prodserve.logs.redaction import Redaction

NASTY = (
    *('"', "\\", "\n", "\r", "\x00", "\x1b[31m", "\x7f", "\x85", "\xa0", "\xff", "\xc3\xbc", "\xe2\x80\xa8"),
    *(
        '", "status": 200, "x": "',
        '"}\n{"time": "now',
        "{",
        "\\u0022",
        "\\x22",
        "\u2028",
        "\ud800",
        "ü",
        " - ",
    ),
)


def environ(**changes: Any) -> dict[str, Any]:
    return {
        "REMOTE_ADDR": "203.0.113.9",
        "REQUEST_METHOD": "GET",
        "RAW_URI": "/shop/?q=tea",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_USER_AGENT": "curl/8",
        "HTTP_REFERER": "https://shop.example/?token=abc",
        ID: "id-1",
        QUEUE: 0.0123,
        ROUTE: "shop:search",
        **changes,
    }


def as_json(*words: str, **changes: Any) -> dict[str, Any]:
    line = JSONLines(Redaction(words))(entry(environ(**changes), 200, 321, 0.0456))
    found: dict[str, Any] = json.loads(line)
    return found


def as_text(*words: str, **changes: Any) -> str:
    return TextLines(Redaction(words))(entry(environ(**changes), 200, 321, 0.0456))


def test_json_has_every_field() -> None:
    found = as_json()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found.pop("time"))
    assert found.pop("pid") > 1
    assert found == {
        "level": "info",
        "logger": "gunicorn.access",
        "method": "GET",
        "path": "/shop/",
        "query": "q=tea",
        "route": "shop:search",
        "status": 200,
        "bytes": 321,
        "duration_ms": 45.6,
        "queue_ms": 12.3,
        "client": "203.0.113.9",
        "request_id": "id-1",
        "user_agent": "curl/8",
        "referer": "https://shop.example/?token=abc",
    }


def test_what_is_absent_is_null_in_json_and_a_dash_in_text() -> None:
    bare: dict[str, Any] = {"REMOTE_ADDR": ""}
    found = json.loads(JSONLines(Redaction(()))(entry(bare, 400, 12, 0.0)))
    assert [found[name] for name in ("method", "query", "route", "client", "request_id", "user_agent")] == [
        None
    ] * 6
    line = TextLines(Redaction(()))(entry(bare, 400, 12, 0.0))
    assert re.fullmatch(r'- - - \[.*\] "-" 400 12 "-" "-" - - 0.0ms 0.0ms', line), line


def test_no_bytes_of_a_clients_end_a_field_or_a_line() -> None:
    chance = random.Random(7)
    lines = JSONLines(Redaction(())), TextLines(Redaction(()))
    for _ in range(2000):
        text = "".join(
            chance.choice(NASTY) if chance.random() < 0.5 else chr(chance.randrange(256)) for _ in range(12)
        )
        asked = environ(
            RAW_URI=f"/{text}", HTTP_USER_AGENT=text, HTTP_REFERER=text, REQUEST_METHOD=text, **{ROUTE: text}
        )
        line = lines[0](entry(asked, 200, 1, 0.1))
        assert len(line.splitlines()) == 1
        assert line.isascii()
        found = json.loads(line)
        assert (found["status"], found["bytes"], found["client"], found["request_id"]) == (
            200,
            1,
            "203.0.113.9",
            "id-1",
        )
        assert found["route"] == text
        if text.isascii():
            assert found["user_agent"] == found["referer"] == found["method"] == text
        asked["REQUEST_METHOD"] = "GET"  # the parser takes nothing but words
        plain = lines[1](entry(asked, 200, 1, 0.1))
        assert len(plain.encode("utf-8", "backslashreplace").decode().splitlines()) == 1 or "\u2028" in text
        assert plain.count('"') == 6


def test_utf_8_is_read_as_such_and_other_bytes_are_spelt_out() -> None:
    assert as_json(HTTP_USER_AGENT="t\xc3\xbcr")["user_agent"] == "tür"
    assert as_json(HTTP_USER_AGENT="t\xfcr")["user_agent"] == r"t\xfcr"


def test_what_is_remembered_is_bounded_and_right() -> None:
    lines = JSONLines(Redaction(()))
    for number in [*range(2 * MAX_CACHED), *range(100)]:
        found = json.loads(lines(entry(environ(HTTP_USER_AGENT=f"agent {number}"), 200, 1, 0.1)))
        assert found["user_agent"] == f"agent {number}"
    assert len(lines._known) <= MAX_CACHED


@pytest.mark.parametrize(
    ("words", "query", "told"),
    [
        ((), "token=a&q=b", "token=a&q=b"),
        (("query",), "token=a&q=b", "[redacted]"),
        (("query",), "", ""),
        (("token",), "token=a&q=b", "token=[redacted]&q=b"),
        (("token",), "q=token&x=token", "q=token&x=token"),
        (("Token", "pass"), "q=b;TOKEN=a;pass=", "q=b;TOKEN=[redacted];pass=[redacted]"),
        (("token",), "t%6Fken=a&%74oken=b", "t%6Fken=[redacted]&%74oken=[redacted]"),
        (("token",), "+token=a", "+token=[redacted]"),
        (("token",), "token", "token"),
        (("token",), "token=a=b", "token=[redacted]"),
        (("token",), "mytoken=a", "mytoken=a"),
    ],
)
def test_queries_are_redacted_everywhere(words: tuple[str, ...], query: str, told: str) -> None:
    mark = "?" if query else ""
    url = f"https://shop.example/{mark}{query}"
    found = as_json(*words, RAW_URI=f"/a{mark}{query}", HTTP_REFERER=url)
    assert found["query"] == (told or None)
    assert found["path"] == "/a"
    assert found["referer"] == f"https://shop.example/{mark}{told}"
    line = as_text(*words, RAW_URI=f"/a{mark}{query}", HTTP_REFERER=url)
    assert f'"GET /a{mark}{told} HTTP/1.1"' in line
    assert f'"https://shop.example/{mark}{told}"' in line


def test_a_fragment_and_prose_are_redacted_too() -> None:
    redaction = Redaction(["token"])
    assert redaction.url("https://a/#token=b") == "https://a/#token=[redacted]"
    assert (
        redaction.prose("Invalid line 'GET /?token=b HTTP/9'")
        == "Invalid line 'GET /?token=[redacted] HTTP/9'"
    )


@pytest.mark.parametrize(
    ("share", "slow", "status", "seconds", "kept"),
    [
        (1.0, 0.0, 200, 0.0, 1.0),
        (0.2, 0.0, 200, 9.0, 0.2),
        (0.2, 0.0, 503, 0.0, 1.0),
        (1.0, 0.5, 200, 0.4, 0.0),
        (1.0, 0.5, 200, 0.5, 1.0),
        (1.0, 0.5, 500, 0.0, 1.0),
        (0.2, 0.5, 200, 0.4, 0.2),
        (0.2, 0.5, 200, 0.6, 1.0),
    ],
)
def test_errors_and_slow_requests_are_always_logged(
    share: float, slow: float, status: int, seconds: float, kept: float
) -> None:
    choice = AccessFilter(share, slow)
    found = sum(choice.keeps(status, seconds) for _ in range(4000)) / 4000
    assert found == pytest.approx(kept, abs=0.05 if 0 < kept < 1 else 0)


def test_a_short_line_has_what_a_developer_looks_for() -> None:
    line = ShortLines(Redaction(()))(entry(environ(), 200, 321, 0.0456))
    assert line == "GET /shop/?q=tea 200 45.6 ms"
    hidden = ShortLines(Redaction(("query",)))(entry(environ(), 200, 321, 0.0456))
    assert "tea" not in hidden
    assert ShortLines(Redaction(()))(entry({}, 400, 12, 0.0)) == "- 400 0.0 ms"


def test_a_websocket_has_its_close_code() -> None:
    closed = environ(**{CLOSE_CODE: 1001})
    assert as_json(**{CLOSE_CODE: 1001})["close_code"] == 1001
    assert "close_code" not in as_json()
    assert as_text(**{CLOSE_CODE: 1001}).endswith("ms close=1001")
    assert (
        ShortLines(Redaction(()))(entry(closed, 101, 0, 1.0)) == "GET /shop/?q=tea 101 1000.0 ms close=1001"
    )
