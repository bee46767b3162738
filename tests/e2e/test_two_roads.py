"""What is answered before Django, and from memory, is what the long way answers, whatever came before."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..wire import PARSERS
from .raw import SENTINEL, Answer, Talk
from .serving import Server, environment, serving

NAMED = {"site.css": "body{color:red}" * 99, "aA.css": "the letter", "a%41.css": "the percent"}
LONG = b'If-None-Match: "x"\r\n'  # no answer from memory to this
TARGETS = [
    *(b"/static/site.css", b"/static/aA.css", b"/static/a%41.css", b"/static/a%2541.css"),
    *(b"/static/site%2ecss", b"/static/site.css?a=1", b"/static/site.css?", b"/static/site.css#x"),
    *(b"//static/site.css", b"/static//site.css", b"/static/./site.css", b"/static/../static/site.css"),
    *(b"http://localhost/static/site.css", b"http://other.example/static/site.css?x", b"/static/SITE.css"),
]
CODINGS = [
    b"",
    b"Accept-Encoding: gzip\r\n",
    b"Accept-Encoding: identity\r\nAccept-Encoding: gzip\r\n",
    b"Accept-Encoding: gzip\r\nAccept-Encoding: identity\r\n",
    b"Accept-Encoding: gzip\r\nX: 1\r\nAccept-Encoding:\r\n",
]
PROBES = [b"/livez", b"/readyz"]
FAULTS = {
    "no Host": (b"GET %b HTTP/1.1\r\n\r\n", 400),
    "two Hosts": (b"GET %b HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    "a length of 400 digits": (
        b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\n",
        400,
    ),
    "an expectation": (b"GET %b HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\n", 417),
    "a space before the colon": (b"GET %b HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    "both framings": (
        b"GET %b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "version 3": (b"GET %b HTTP/3.0\r\nHost: a\r\n\r\n", 400),
}


@pytest.fixture(scope="module", params=PARSERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp(request.param)
    root = folder / "collected"
    root.mkdir()
    for name, content in NAMED.items():
        (root / name).write_text(content)
    (root / "site.css.gz").write_bytes(gzip.compress(NAMED["site.css"].encode()))
    site = {
        "STATIC_ROOT": str(root),
        "ALLOWED_HOSTS": ["*"],
        "PRODSERVE": {"PRIVATE_STATIC": False, "GUNICORN": {"http_parser": request.param}},
    }
    with serving("--workers", "1", "--warmup", "off", env=environment(folder, **site)) as running:
        yield running


def answered(server: Server, sent: bytes, after: bytes = b"") -> tuple[int, bytes, str]:
    """Return what a request is answered on a connection of its own, or behind another one."""
    with Talk(("127.0.0.1", server.port)) as talk:
        talk.send(after + sent)
        if after:
            assert talk.answer() is not None
        answer = talk.answer()
        assert isinstance(answer, Answer)
        return answer.status, answer.body, answer.headers.get("content-encoding", "")


def get(target: bytes, fields: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n" % (target, fields)


def test_a_file_from_memory_is_the_one_of_the_long_way(server: Server) -> None:
    found: dict[tuple[bytes, bytes], tuple[int, bytes, str]] = {}
    for target in TARGETS:
        for coding in CODINGS:
            found[target, coding] = long = answered(server, get(target, coding + LONG))
            for _ in range(2):
                assert answered(server, get(target, coding)) == long, (target, coding)
    assert found[b"/static/site.css", CODINGS[1]][2] == "gzip"
    for target, name in ((b"/static/a%41.css", "aA.css"), (b"/static/a%2541.css", "a%41.css")):
        assert found[target, b""][:2] == (200, NAMED[name].encode()), target
    for (target, coding), before in found.items():
        assert answered(server, get(target, coding)) == before, (target, coding)


def test_a_fault_is_refused_wherever_the_answer_comes_from(server: Server) -> None:
    good = [b"/static/site.css", *PROBES, b"/"]
    for _ in range(2):
        for target in good:
            assert answered(server, get(target, b""))[0] == 200
            for name, (sent, status) in FAULTS.items():
                assert answered(server, sent % target)[0] == status, (name, target)
                behind = get(target, b"")
                assert answered(server, sent % target, after=behind)[0] == status, (name, target)


def test_a_body_is_never_the_next_request(server: Server) -> None:
    for target in (b"/static/site.css", *PROBES, b"/"):
        for method in (b"GET", b"POST", b"HEAD"):
            with Talk(("127.0.0.1", server.port)) as talk:
                length = b"%b %b HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%b"
                talk.send(length % (method, target, len(SENTINEL), SENTINEL) + get(target, b""))
                first, second = talk.answer(method.decode()), talk.answer()
                assert first is not None
                assert second is not None
                assert second.status == 200, (target, method, first.status)
                talk.end()
                assert talk.answer() is None
