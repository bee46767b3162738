"""A load balancer's PROXY line holds for the whole connection, with either parser and each worker class."""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ..wire import PARSERS
from .raw import Answer, Talk, boundaries
from .serving import PATIENCE, Server, copy_site, environment, serving

LINE = b"PROXY TCP4 203.0.113.9 10.0.0.1 5555 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LINES = {
    "version 1": (LINE, "203.0.113.9", "5555"),
    "IPv6": (b"PROXY TCP6 2001:db8::9 ::1 5555 443\r\n", "2001:db8::9", "5555"),
    "version 2": (
        SIGNATURE
        + struct.pack(">BBH", 0x21, 0x11, 15)
        + bytes([203, 0, 113, 9, 10, 0, 0, 1])
        + struct.pack(">HH", 5555, 443)
        + b"\x04\0\0",
        "203.0.113.9",
        "5555",
    ),
}
UNNAMED = {"UNKNOWN": b"PROXY UNKNOWN\r\n", "UNSPEC": SIGNATURE + b"\x21\0\0\0"}
LOCAL = SIGNATURE + b"\x20\0\0\0"
FORGED = (
    b"X-Forwarded-For: 198.51.100.66\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 198.51.100.66\r\n"
    b"Remote-User: admin\r\nX-Request-ID: forged\r\n"
)
WORKERS = [
    *(("prodserve", parser) for parser in PARSERS),
    ("gthread", "auto"),
]


class Both(NamedTuple):
    """A server behind a port and a unix socket."""

    server: Server
    path: str
    worker: str

    @property
    def port(self) -> tuple[str, int]:
        return "127.0.0.1", self.server.port


@pytest.fixture(scope="module", params=WORKERS, ids="-".join)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    worker, parser = request.param
    folder: Path = tmp_path_factory.mktemp(worker)
    assets = folder / "assets"
    assets.mkdir()
    (assets / "site.css").write_text("body{}")
    block = {
        "proxy_protocol": "auto",
        "http_parser": parser,
        "proxy_allow_ips": "127.1.0.0/16",  # where ``Talk`` comes from
    }
    site = {"PRODSERVE": {"GUNICORN": block}, "STATICFILES_DIRS": [str(assets)]}
    flags = ("--worker-class", worker, "--workers", "1", "--threads", "4", "--access-log", "-")
    flags = (*flags, "--bind", f"unix:{folder}/s", "--warmup", "off", "--keep-alive", "20")
    with serving(*flags, cwd=copy_site(folder), env=environment(folder, **site)) as server:
        yield Both(server, f"{folder}/s", worker)


def get(mark: str, path: str = "/whoami/", *, close: bool = False) -> bytes:
    end = b"Connection: close\r\n" if close else b""
    return f"GET {path}?{mark} HTTP/1.1\r\nHost: localhost\r\n".encode() + FORGED + end + b"\r\n"


def taken(talk: Talk) -> Answer:
    answer = talk.answer()
    assert answer is not None
    return answer


def seen(talk: Talk) -> dict[str, Any]:
    """Return what the next answer says that Django saw."""
    answer = taken(talk)
    assert answer.status == 200, answer.body
    found = answer.json()
    return {"secure": found["secure"], "id": answer.headers["x-request-id"], **found["meta"]}


def assert_is(found: dict[str, Any], address: str, port: str) -> None:
    """The client is this one, and nothing that it claims is believed."""
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == (address, port)
    assert not found["secure"]
    assert found["id"] != "forged"
    assert "198.51.100.66" not in json.dumps(found)
    assert not {"HTTP_REMOTE_USER", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"} & found.keys()


@pytest.mark.parametrize("over", ["port", "path"])
@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("way", ["one after the other", "in one packet", "in pieces"])
def test_every_request_of_the_connection_has_the_same_client(
    both: Both, over: str, name: str, way: str
) -> None:
    line, address, port = LINES[name]
    requests = [get("a"), get("b"), get("c", close=True)]
    with Talk(getattr(both, over)) as talk:
        if way == "in one packet":
            talk.send(line + b"".join(requests))
        for number, path in enumerate(requests):
            if way == "one after the other":
                talk.send((line if number == 0 else b"") + path)
            elif way == "in pieces":
                pieces = [line[:1], line[1:5], line[5:14], line[14:-1], line[-1:]] if number == 0 else []
                for piece in [*pieces, *boundaries(path)]:
                    talk.send(piece)
            assert_is(seen(talk), address, port)
        assert talk.answer() is None


@pytest.mark.parametrize("name", UNNAMED)
def test_nothing_is_believed_where_the_client_is_unknown(both: Both, name: str) -> None:
    if both.worker != "prodserve":
        pytest.skip("Gunicorn's own workers refuse it")
    with Talk(both.port) as talk:
        for number in range(3):
            talk.send((b"" if number else UNNAMED[name]) + get("u"))
            address, port = talk.name.split(":")
            assert_is(seen(talk), address, port)


@pytest.mark.parametrize("line", [b"", LOCAL], ids=["no line", "LOCAL"])
def test_the_load_balancer_speaks_for_itself(both: Both, line: bytes) -> None:
    """Its health checks say what they must, such as X-Forwarded-Proto."""
    with Talk(both.port) as talk:
        for number in range(3):
            talk.send((b"" if number else line) + get("l"))
            found = seen(talk)
            assert found["secure"]
            assert found["REMOTE_ADDR"] == "198.51.100.66"


def test_other_peers_may_not_introduce_and_a_line_comes_once(both: Both) -> None:
    with Talk(both.port) as talk:
        talk.send(LINE + get("x"))
        assert_is(seen(talk), "203.0.113.9", "5555")
        talk.send(b"PROXY TCP4 198.51.100.66 10.0.0.1 5555 443\r\n" + get("x"))
        assert taken(talk).status == 400
    for wrong in (b"PROXY TCP4 x y 1 2\r\n", SIGNATURE + b"\x31\x11\0\0"):
        if both.worker == "prodserve" or wrong.startswith(b"PROXY"):
            with Talk(both.port) as talk:
                talk.send(wrong + get("x"))
                assert taken(talk).status == 400
                assert talk.answer() is None


def test_the_server_s_own_answers_and_every_line_name_the_same_client(both: Both) -> None:
    """Static files, refusals and what Django answers: the access log has one client for a connection."""
    css = re.search(r"/static/site[^\"]*css", both.server.get("/static/site.css").text)
    path = "/static/site.css" if css is None else css[0]
    with Talk(both.port) as talk:
        talk.send(LINE)
        for mark, target in (("s1", path), ("s2", path), ("d1", "/whoami/"), ("s3", path)):
            talk.send(get(mark, target))
            assert taken(talk).status == 200
        talk.send(get("r1").replace(b"Host: localhost\r\n", b"Host: localhost\r\nA : 1\r\n"))
        assert taken(talk).status == 400
    for mark in ("s1", "s2", "d1", "s3"):
        assert both.server.wait_for(f"?{mark} ").startswith("203.0.113.9 ")
    if both.worker == "prodserve":
        assert both.server.wait_for('"-" 400 ').startswith("203.0.113.9 ")
        assert "Invalid request from ip=203.0.113.9" in both.server.output


def test_a_stranger_may_not_introduce_a_client(both: Both) -> None:
    for line, status in ((LINE, b" 403 "), (LOCAL, b" 403 "), (b"", b" 200 ")):
        with socket.create_connection(both.port, PATIENCE) as client:  # from 127.0.0.1
            client.sendall(line + get("x", close=True))
            assert status in client.recv(65536)
