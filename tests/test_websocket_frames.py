"""The frames of websockets: what a client sends in any pieces is read alike, and nothing invalid passes."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_prodserve.http import websocket_handshake as handshake
from django_prodserve.http.websocket_frames import (
    FrameError,
    FrameReader,
    close_frame,
    frame_head,
    unmask,
    xor,
)

from .socket_frames import BINARY, CLOSE, PING, PONG, TEXT, close, frame

CONTINUATION = 0


def read(*pieces: bytes, limit: int = 2**20) -> list[Any]:
    """Return all frames that a reader finds in these pieces."""
    reader, found = FrameReader(limit), []
    for piece in pieces:
        reader.feed(piece)
        while (one := reader.read()) is not None:
            found.append(one)
    return found


def refusal(*pieces: bytes, limit: int = 2**20) -> int:
    """Return the close code with which a reader refuses these pieces."""
    with pytest.raises(FrameError) as refused:
        read(*pieces, limit=limit)
    return refused.value.code


def test_a_message_is_read_whatever_its_length() -> None:
    for size in (0, 1, 125, 126, 65535, 65536):
        assert read(frame(BINARY, bytes(size))) == [(BINARY, bytes(size))]
    assert read(frame(TEXT, "grün".encode()) + frame(PING, b"?") + close(1000, "bye")) == [
        *((TEXT, "grün"), (PING, b"?"), (CLOSE, (1000, "bye"))),
    ]
    assert read(frame(CLOSE)) == [(CLOSE, (1005, ""))]


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=300),
    cuts=st.lists(st.integers(0, 400), max_size=12),
    fragments=st.integers(1, 5),
    key=st.binary(min_size=4, max_size=4),
    is_text=st.booleans(),
)
def test_pieces_and_fragments_change_nothing(
    text: str, cuts: list[int], fragments: int, key: bytes, is_text: bool
) -> None:
    data = text.encode()
    step = max(1, len(data) // fragments)
    parts = [data[at : at + step] for at in range(0, len(data), step)] or [b""]
    opcode = TEXT if is_text else BINARY
    sent = b""
    for number, part in enumerate(parts):
        sent += frame(CONTINUATION if number else opcode, part, last=number == len(parts) - 1, key=key)
        sent += frame(PONG, b"!", key=key) if number % 2 else b""
    places = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    pieces = [sent[start:end] for start, end in pairwise(places)]
    messages = [found for found in read(*pieces) if found[0] != PONG]
    assert messages == [(opcode, text if is_text else data)]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_an_error_of_ours(data: bytes) -> None:
    with suppress(FrameError):
        read(data)


def test_a_key_that_has_begun_goes_on_in_the_next_piece() -> None:
    sent = frame(BINARY, bytes(range(256)) * 40)
    for size in (1, 3, 7, 1000):
        assert read(*(sent[at : at + size] for at in range(0, len(sent), size))) == [
            (BINARY, bytes(range(256)) * 40)
        ]
    for size in (0, 1, 5, 4096):
        data = bytes(range(256)) * 16
        assert xor(data[:size], b"\0\1\2\3") == unmask(data[:size], b"\0\1\2\3")
    assert xor(b"\0\0\0\0\0", b"abcd") == b"abcda"


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        (1002, frame(TEXT, b"x", masked=False)),
        (1002, frame(TEXT, b"x", reserved=0x40)),
        (1002, frame(BINARY, b"x", reserved=0x10)),
        (1002, frame(3, b"x")),
        (1002, frame(11, b"x")),
        (1002, frame(PING, b"x", last=False)),
        (1002, frame(PING, bytes(126))),
        (1002, frame(CLOSE, bytes(126))),
        (1002, frame(CONTINUATION, b"x")),
        (1002, frame(TEXT, b"x", last=False) + frame(TEXT, b"y")),
        (1002, frame(BINARY, b"", last=False) + frame(BINARY, b"y")),
        (1002, frame(BINARY, b"x", width=2)),
        (1002, frame(BINARY, bytes(200), width=8)),
        (1002, b"\x82\xff\x80" + bytes(11)),
        (1002, frame(CLOSE, b"x")),
        *((1002, close(code)) for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)),
        (1007, close(1000)[:1] + frame(CLOSE, b"\x03\xe8\xff")[1:]),
        (1007, frame(TEXT, b"\xff")),
        (1007, frame(TEXT, b"\xc3")),
        (1007, frame(TEXT, b"\xed\xa0\x80")),
        (1007, frame(TEXT, b"\xc3", last=False) + frame(CONTINUATION, b"x")),
        (1007, frame(TEXT, b"\xc3", last=False) + frame(CONTINUATION, b"")),
        (1009, frame(BINARY, bytes(1001))),
        (1009, frame(BINARY, bytes(600), last=False) + frame(CONTINUATION, bytes(401), last=False)),
        (1009, frame(BINARY, bytes(600), last=False) + frame(CONTINUATION, bytes(401))),
    ],
)
def test_what_the_protocol_forbids_has_its_code(code: int, sent: bytes) -> None:
    assert refusal(sent, limit=1000) == code


def test_a_refusal_does_not_wait_for_the_rest() -> None:
    assert refusal(frame(TEXT, b"\xff" * 1000)[:20]) == 1007  # before all of it is here
    assert refusal(frame(BINARY, bytes(2000))[:8], limit=1000) == 1009
    assert refusal(frame(TEXT, b"x", masked=False)[:2]) == 1002


def test_every_code_that_the_protocol_knows_passes() -> None:
    for code in (1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4999):
        assert read(close(code)) == [(CLOSE, (code, ""))]


def test_our_frames_are_as_the_protocol_has_them() -> None:
    assert frame_head(TEXT, 5) == b"\x81\x05"
    assert frame_head(BINARY, 126) == b"\x82\x7e\x00\x7e"
    assert frame_head(BINARY, 65536) == b"\x82\x7f" + bytes(5) + b"\x01\x00\x00"
    assert close_frame(1001, "bye") == b"\x88\x05\x03\xe9bye"
    assert close_frame(1005) == b"\x88\x00"
    cut = close_frame(1000, "ü" * 100)
    assert len(cut) == 2 + 2 + 122
    assert cut[4:].decode() == "ü" * 61


def request(**headers: str) -> Any:
    usual = {
        "UPGRADE": "websocket",
        "CONNECTION": "keep-alive, Upgrade",
        "SEC_WEBSOCKET_VERSION": "13",
        "SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    found = [(name.replace("_", "-"), value) for name, value in {**usual, **headers}.items() if value]
    return SimpleNamespace(method="GET", version=(1, 1), headers=found, length=0)


def test_a_handshake_is_one_whatever_the_case() -> None:
    assert handshake.asks_for_websocket(request())
    assert handshake.asks_for_websocket(request(UPGRADE="h2c, WebSocket"))
    handshake.check(request())
    handshake.check(request(CONNECTION="UPGRADE"))


def test_other_requests_are_no_handshake() -> None:
    assert not handshake.asks_for_websocket(request(UPGRADE=""))
    assert not handshake.asks_for_websocket(request(UPGRADE="h2c"))
    post, old = request(), request()
    post.method, old.version = "POST", (1, 0)
    assert not handshake.asks_for_websocket(post)
    assert not handshake.asks_for_websocket(old)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("400 Bad Request", {"CONNECTION": ""}),
        ("400 Bad Request", {"CONNECTION": "keep-alive"}),
        ("426 Upgrade Required", {"SEC_WEBSOCKET_VERSION": ""}),
        ("426 Upgrade Required", {"SEC_WEBSOCKET_VERSION": "8"}),
        ("400 Bad Request", {"SEC_WEBSOCKET_KEY": ""}),
        ("400 Bad Request", {"SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZQ=="}),
        ("400 Bad Request", {"SEC_WEBSOCKET_KEY": "not base64 at all!"}),
        ("400 Bad Request", {"SEC_WEBSOCKET_KEY": "schlüsselschlüssel"}),
    ],
)
def test_an_invalid_handshake_is_refused(status: str, headers: dict[str, str]) -> None:
    with pytest.raises(handshake.HandshakeError) as refused:
        handshake.check(request(**headers))
    assert refused.value.status == status
    if status.startswith("426"):
        assert "Sec-WebSocket-Version: 13" in refused.value.headers


def test_a_handshake_with_a_body_is_refused() -> None:
    with_body = request()
    with_body.length = 3
    with pytest.raises(handshake.HandshakeError, match="no body"):
        handshake.check(with_body)


def test_the_answer_is_that_of_the_rfc() -> None:
    answer = handshake.accept(request(), "chat", [(b"X-Own", b"1")], "7")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert answer.endswith(b"Sec-WebSocket-Protocol: chat\r\nX-Request-ID: 7\r\nX-Own: 1\r\n\r\n")
    assert handshake.subprotocols(request(SEC_WEBSOCKET_PROTOCOL="chat , superchat,")) == [
        *("chat", "superchat")
    ]


@pytest.mark.parametrize("header", [(b"X", b"a\r\nY: b"), (b"X:", b"a"), (b"", b"a"), (b"X", b"\x00")])
def test_a_header_that_would_end_its_line_is_refused(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="not a valid header"):
        handshake.accept(request(), None, [header], "")
