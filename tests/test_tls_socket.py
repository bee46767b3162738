"""TLS on a socket whose buffers are full, at every place where that can happen. Real sockets, no server."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.tls.contexts import TLSContexts
from django_prodserve.worker.tls_socket import BATCH, HandshakeError, TLSSocket

from .test_tls_contexts import RSA, contexts, make

DONTWAIT = socket.MSG_DONTWAIT


class Client:
    """The other end of the connection, which reads as much as the test wants."""

    def __init__(self, sock: socket.socket, version: ssl.TLSVersion) -> None:
        self.sock = sock
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.maximum_version = version
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing)
        self.got = b""
        self.is_ended = False

    def move(self, most: int = 2**20) -> None:
        """Send what waits, receive at most so many bytes, and decrypt them."""
        self.sock.sendall(self.outgoing.read())
        with contextlib.suppress(BlockingIOError):
            while most > 0 and (data := self.sock.recv(min(most, 4096), DONTWAIT)):
                self.incoming.write(data)
                most -= len(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            while piece := self.tls.read(65536):
                self.got += piece
            self.is_ended = True

    def handshake(self) -> None:
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.sock.sendall(self.outgoing.read())
        with contextlib.suppress(BlockingIOError):
            self.incoming.write(self.sock.recv(65536, DONTWAIT))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> TLSContexts:
    return contexts(make(tmp_path_factory.mktemp("tls"), "localhost", RSA))


@pytest.fixture(params=["TLSv1_2", "TLSv1_3"])
def ends(made: TLSContexts, request: Any) -> Iterator[tuple[TLSSocket, Client]]:
    """Both ends after the handshake, on a socket with small buffers."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        server, client = TLSSocket(ours, made), Client(theirs, ssl.TLSVersion[request.param])
        is_over = False
        while not is_over:
            client.handshake()
            with contextlib.suppress(BlockingIOError):
                is_over = server.handshake()
        client.handshake()
        yield server, client


def test_what_is_sent_arrives_once_however_little_the_kernel_takes(ends: tuple[TLSSocket, Client]) -> None:
    server, client = ends
    data = os.urandom(5 * BATCH + 17)
    left = memoryview(data)
    waits = 0
    while left:
        try:
            left = left[server.send(left, DONTWAIT) :]
        except BlockingIOError:
            waits += 1
        client.move(3000)
    while len(client.got) < len(data):
        client.move()
    assert client.got == data
    assert waits > 10  # otherwise nothing was tried


def test_pieces_and_files_continue_each_other(ends: tuple[TLSSocket, Client]) -> None:
    """A caller brings unsent bytes again in other pieces: alone, joined, or out of a file."""
    server, client = ends
    data = os.urandom(3 * BATCH)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        at = number = 0
        while at < len(data):
            number += 1
            with contextlib.suppress(BlockingIOError):
                if number % 3 == 0:
                    at += server.send_range(file.fileno(), at, len(data) - at)
                elif number % 3 == 1:
                    at += server.sendmsg([data[at : at + 100], data[at + 100 :]], (), DONTWAIT)
                else:
                    at += server.send(data[at : at + 50], DONTWAIT)
            client.move(2500)
        assert server.send_range(file.fileno(), len(data), 10) == 0
    while len(client.got) < len(data):
        client.move()
    assert client.got == data


def test_bytes_that_nobody_brings_again_leave_with_the_next(ends: tuple[TLSSocket, Client]) -> None:
    server, client = ends
    with contextlib.suppress(BlockingIOError):
        while server.send(b"a" * 1000, DONTWAIT) == 1000:
            pass
    before = b"a" * 1000
    while server.has_unsent:  # the last of them
        client.move(2000)
        with contextlib.suppress(BlockingIOError):
            server.send(before, DONTWAIT)
    client.move()
    client.got = b""
    server.send_whole(b"100 Continue")
    server.send_whole(b"b" * 100_000)  # more than there is room for
    assert server.has_unsent
    left = memoryview(b"the response")
    while left:
        client.move()
        with contextlib.suppress(BlockingIOError):
            left = left[server.send(left, DONTWAIT) :]
    client.move()
    assert client.got == b"100 Continue" + b"b" * BATCH + b"the response"


def test_what_arrives_is_returned_whole(ends: tuple[TLSSocket, Client]) -> None:
    server, client = ends
    with pytest.raises(BlockingIOError):
        server.recv(65536, DONTWAIT)
    client.tls.write(b"one")
    client.tls.write(b"two")
    data = client.outgoing.read()
    client.sock.sendall(data[:-3])
    assert server.recv(65536, DONTWAIT) == b"one"
    assert server.holds_partial
    with pytest.raises(BlockingIOError):
        server.recv(65536, DONTWAIT)
    client.sock.sendall(data[-3:])
    assert server.recv(65536, DONTWAIT) == b"two"
    assert not server.holds_partial
    client.tls.write(b"last")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.tls.unwrap()
    client.move()
    assert server.recv(65536, DONTWAIT) == b"last"
    assert server.recv(65536, DONTWAIT) == b""
    assert server.is_ended


def test_the_goodbye_waits_for_room_and_is_sent_once(ends: tuple[TLSSocket, Client]) -> None:
    server, client = ends
    left = memoryview(bytes(20_000))
    while left:
        with contextlib.suppress(BlockingIOError):
            left = left[server.send(left, DONTWAIT) :]
        client.move(700)
    filler = b"f" * 16_000
    with contextlib.suppress(BlockingIOError):
        while server.send(filler, DONTWAIT):
            pass
    assert not server.say_goodbye()
    while not server.say_goodbye():
        client.move(1000)
    client.move()
    assert client.is_ended
    client.sock.sendall(b"what comes now is not decrypted")
    assert server.recv(65536, DONTWAIT) == b"what comes now is not decrypted"


def test_damaged_bytes_end_the_connection(ends: tuple[TLSSocket, Client]) -> None:
    server, client = ends
    client.tls.write(b"hello")
    data = bytearray(client.outgoing.read())
    data[-1] ^= 1
    client.sock.sendall(data)
    with pytest.raises(ssl.SSLError):
        server.recv(65536, DONTWAIT)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [(b"\x16\x03\x01\x00\x04abcd", "other"), (b"GET / HTTP/1.1\r\n", "http"), (b"", "closed")],
)
def test_a_handshake_that_fails_has_a_reason(made: TLSContexts, sent: bytes, reason: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(sent)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(HandshakeError) as failed:
            TLSSocket(ours, made).handshake()
        assert failed.value.reason == reason


def test_what_an_application_may_ask(ends: tuple[TLSSocket, Client], tmp_path: Path) -> None:
    peer = ends[0].peer
    assert peer.getpeercert() is None
    assert peer.version() in ("TLSv1.2", "TLSv1.3")
    assert peer.cipher()
    assert peer.selected_alpn_protocol() is None
    assert not hasattr(peer, "read")
