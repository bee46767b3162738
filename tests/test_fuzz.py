"""Our parser and framing against Gunicorn's two parsers, with requests that hypothesis makes up.

What we take Gunicorn takes too and reads alike: method, target, fields, environ, body, and where the next
request begins. What we refuse beyond it is listed in ``STRICTER``. Each worker has a history.

Bounded and the same in each run. FUZZ_EXAMPLES=100000, with --timeout 0, looks longer, at other examples each
time; what it finds becomes a case of the corpus.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from .wire import PARSERS, Ours, Refused, Taken, Unfinished, Verdict, gunicorn

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
BOUNDED = settings(
    max_examples=EXAMPLES or 200,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

SPECIAL = [b"\0", b"\t", b"\n", b"\r", b" ", b"\r\n", b":", b";", b",", b"%", b"\x7f", b"\x80", b"\xff", b'"']
METHODS = [*b"HEAD OPTIONS CONNECT PUT M-SEARCH get GE G@T".split(), b"A" * 21, b""]
GOOD_TARGETS = b"/ /a?b=c /a%20b/%2F?%3f#f //a//b http://h/p?q http://h /;a //h:80/x?y#z /%".split()
TARGETS = [*b"* a:80 /\xe4 http://[::1/ ? :// x:// a /\x7f http:/x".split(), b"/a b", b"/" + b"a" * 4100]
VERSIONS = [*b"HTTP/1.2 HTTP/2.0 http/1.1 HTTP/1.10 HTTP/1. HTTP/\xb9.1".split(), b"", b"HTTP/1.1 x"]
HOSTS = [b"Host: ", b"A: 1", b"Host : a", b"Ho_st: a", b"Host: a\r\nHost: b", b"Host:\r\n a"]
GOOD_FIELDS = [
    *(
        b"A: b",
        b"a:b",
        b"A:",
        b"A: \xe4",
        b"A_B: c",
        b"A: b\tc",
        b"A:  b \t",
        b"X-A: 1",
        b"X_A: 2",
        b"Proxy: x",
    ),
    *(
        b"Cookie: a=1",
        b"cookie: b=2; c=3",
        b"Accept: a",
        b"Accept: b",
        b"Content-Type: a/b",
        b"Script-Name: /a",
    ),
    *(b"Connection: close", b"Connection: keep-alive", b"Connection: X, close", b"connection: Close "),
    *(b"Expect: 100-continue", b"Upgrade: h2c", b"TE: trailers", b"X-Forwarded-Proto: https", b"A: b:c"),
]
FIELDS = [
    *(b"A : b", b" A: b", b"A: b\r\n c", b": b", b"A", b"", b"Expect: x", b"A: " + b"b" * 8190, b"A\xe4: b"),
    *(b"A: b\rc", b"A: b\nc", b"A: \0", b"Content-Type: c", b"Content_Length: 5", b"A\t: b", b"A: b\x7f"),
]
SIZES = [*b"0 1 +5 -5 0x5 5,5 \xb2 5.0 5_0 5;".split(), b"9" * 18, b"9" * 19, b"9" * 400, b"5, 5", b""]
CODINGS = [
    *(
        b"Chunked ",
        b"identity",
        b"gzip",
        b"gzip, chunked",
        b"chunked, chunked",
        b"identity, chunked",
        b"x",
        b"",
    ),
    *(
        b"chunked, identity",
        b"chunked\t",
        b"\x0bchunked",
        b"chunked;a=b",
        b",chunked",
        b"chunked,",
        b"'chunked'",
    ),
]
GOOD_CHUNKS = [b"A;x=y\r\n0123456789\r\n", b'2;a="b\\"c"\r\nab\r\n', b"005\r\nhello\r\n", b"1 ;a\r\na\r\n"]
CHUNKS = [
    *(b"5 \r\nhello\r\n", b"5\nhello\n", b"5\r\nhello", b"x\r\n", b"\r\n", b"-1\r\na\r\n", b"0x1\r\na\r\n"),
    *(b"1 ;\r\na\r\n", b"0" * 15 + b"1\r\na\r\n", b"f" * 16 + b"\r\n", b"1;a\rb\r\na\r\n", b"1;=\r\na\r\n"),
    *(b"1\r\na\r\r\n", b"1\t;a\r\na\r\n", b";a\r\na\r\n", b"1;a=\r\na\r\n", b'1;a="\r\n"\r\na\r\n'),
]
GOOD_ENDS = [b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"00;a=b\r\n\r\n"]
ENDS = [
    *(b"0\r\nHost: b\r\n\r\n", b"0\r\n", b"0\r\nA\r\n\r\n", b"", b"0\n\n", b"0\r\nA: b\r\n c\r\n\r\n"),
    *(b"0\r\nA: b\n\r\n", b"0\r\n" + b"A: b\r\n" * 101 + b"\r\n", b"0\r\n \r\n\r\n"),
]


def framed(size: bytes, body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length: " + size, body


def mostly(good: list[bytes], odd: list[bytes], share: int = 12) -> st.SearchStrategy[bytes]:
    """Choose one of the good ones but for one time in ``share``: what is all wrong is refused at once."""
    return st.integers(1, share).flatmap(lambda n: st.sampled_from(odd if n == share - 1 else good))


chunks = st.one_of(
    st.binary(min_size=1, max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data)),
    mostly(GOOD_CHUNKS, CHUNKS, 6),
)
framings = st.one_of(
    st.just((b"", b"")),
    st.binary(max_size=30).map(lambda body: framed(b"%d" % len(body), body)),
    mostly([b"5", b"5 ", b"05"], SIZES, 2).map(lambda size: framed(size, b"hello")),
    st.builds(
        lambda coding, chunks, end: (b"Transfer-Encoding: " + coding, b"".join(chunks) + end),
        mostly([b"chunked"], CODINGS, 6),
        st.lists(chunks, max_size=4),
        mostly(GOOD_ENDS, ENDS, 6),
    ),
)


@st.composite
def requests(draw: Callable[..., Any]) -> bytes:
    """Make one request, more or less well formed."""
    line = [draw(mostly([b"GET", b"POST"], METHODS)), draw(mostly(GOOD_TARGETS, TARGETS))]
    line.append(draw(mostly([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"], VERSIONS)))
    fields = [draw(mostly([b"Host: a", b"host:a:80"], HOSTS))]
    fields += draw(st.lists(mostly(GOOD_FIELDS, FIELDS), max_size=4))
    field, body = draw(framings)
    fields += [field] * bool(field)
    if draw(st.integers(1, 15)) == 14:
        field, more = draw(framings)
        fields, body = [*fields, field], body + more
    fields = draw(st.permutations(fields))
    start = draw(mostly([b""], [b"\r\n", b"\n", b"\r\n\r\n"]))
    return start + b"\r\n".join([b" ".join(line), *fields, b"", body])


@st.composite
def conversations(draw: Callable[..., Any]) -> bytes:
    """Make what a client sends on one connection: a few requests, and often a few bytes that are wrong."""
    sent = b"".join(draw(st.lists(requests(), min_size=1, max_size=3)))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(sent)))
        cut = draw(st.integers(0, 2))
        sent = sent[:at] + draw(st.sampled_from([b"", *SPECIAL])) + sent[at + cut :]
    return sent


STRICTER = {
    "InvalidHeader": (
        "HTTP/1.1 needs a Host header",  # RFC 9112 3.2
        "bare LF as line terminator",  # which the C parser takes
    ),
    "ObsoleteFolding": ("a line that starts with a space",),  # the same
    "InvalidHTTPVersion": ("only 1.0 and 1.1 allowed",),  # by the C parser
    "UnsupportedTransferCoding": ("gzip", "deflate", "compress", "identity"),  # parser.py: none is undone
    "InvalidChunkSize": ("the framing of the body is wrong",),  # a size of 16 digits: no chunk has it
}
"""What we refuse and one of Gunicorn's parsers takes: by the exception, what it says."""
ABSURD = re.compile(rb"content-length:[ \t]*([0-9]{20,}|9{19})", re.IGNORECASE)


def is_listed(refused: Refused, sent: bytes) -> bool:
    if refused.why.endswith(("'CONTENT-LENGTH'", "'Invalid Content-Length value'")):  # that no body has
        return ABSURD.search(sent) is not None
    if refused.kind == "InvalidRequestLine":  # a space too many, which the C parser takes
        return refused.why.partition(": ")[2].count(" ") > 2
    return any(said in refused.why for said in STRICTER.get(refused.kind, ()))


def same(ours: Taken, theirs: Taken) -> None:
    """Both read the same, but for what environ.py says that it does otherwise."""
    mine, wanted = dict(ours.environ), dict(theirs.environ)
    if wanted.pop("HTTP_TRANSFER_ENCODING", None) is not None:
        wanted["CONTENT_LENGTH"] = str(len(theirs.body))
    cookies = [value for name, value in theirs.headers if name == "COOKIE"]
    if cookies:
        wanted["HTTP_COOKIE"] = "; ".join(cookies)
    assert mine == wanted
    for name in ("method", "uri", "path", "query", "version", "headers", "body", "closes"):
        assert getattr(ours, name) == getattr(theirs, name), name


def compare(sent: bytes, ours: list[Verdict], theirs: list[Verdict]) -> None:
    for mine, wanted in zip(ours, theirs, strict=False):
        if isinstance(mine, Refused):
            assert isinstance(wanted, Refused) or is_listed(mine, sent), (mine, wanted)
            return
        if isinstance(mine, Unfinished):  # where it is refused already, we may wait for the end of the head
            assert not isinstance(wanted, Taken), (mine, wanted)
            return
        assert isinstance(wanted, Taken), (mine, wanted)
        same(mine, wanted)
    assert len(ours) == len(theirs), (ours, theirs)


@pytest.mark.parametrize("parser", PARSERS)
def test_what_we_take_gunicorn_takes_and_reads_alike(parser: str) -> None:
    worker = Ours(parser)  # one for all: it knows most lines soon

    @BOUNDED
    @given(conversations(), st.integers(0, 2**32))
    def run(sent: bytes, seed: int) -> None:
        heard = worker.hear([sent])
        note(f"{sent!r} {heard}")
        # Its own parser is the rule with either; what only the other one refuses is refused with it.
        for theirs in dict.fromkeys(("python", parser)):
            compare(sent, heard, gunicorn(theirs, sent))
        assert Ours(parser).hear([sent]) == heard
        chance = random.Random(seed)
        cuts = sorted(chance.sample(range(len(sent) + 1), min(4, len(sent))))
        pieces = [sent[a:b] for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) if a < b]
        again = worker.hear(pieces)
        assert [event for event in again if isinstance(event, Taken)] == [
            event for event in heard if isinstance(event, Taken)
        ]
        assert isinstance(again[-1], Refused) == isinstance(heard[-1], Refused)

    run()
