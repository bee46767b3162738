"""Addresses that are one, families that share a port, and what is said about each."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence

import pytest

from django_prodserve.config import parsers
from django_prodserve.config.parse_errors import ParseError
from django_prodserve.errors import ProdserveError
from django_prodserve.startup import listeners


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


six = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def bound(addresses: Sequence[str], manage: str | None = None) -> Iterator[list[socket.socket]]:
    sockets = listeners.bind(addresses, 0o007, manage)
    try:
        yield sockets
    finally:
        for listener in sockets:
            listener.close()


@six
@pytest.mark.parametrize(
    ("one", "other"), [("[::]", "0.0.0.0"), ("0.0.0.0", "[::]"), ("[::]", "127.0.0.1"), ("[::]", "localhost")]
)
def test_both_families_listen_on_one_port(one: str, other: str) -> None:
    port = free_port()
    with bound([f"{one}:{port}", f"{other}:{port}"]) as sockets:
        for listener in sockets:
            listener.listen(1)  # without IPV6_V6ONLY the second says that the address is in use
        for host in ("127.0.0.1", "::1"):
            socket.create_connection((host, port), timeout=5).close()


@six
def test_ipv6_alone_is_for_both_families() -> None:
    with bound([f"[::]:{free_port()}", "127.0.0.1:0"]) as sockets:
        sockets[0].listen(1)
        socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1]), timeout=5).close()


@pytest.mark.parametrize(
    ("one", "other", "left_out"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "0.0.0.0", "127.0.0.1"),
        pytest.param("[::]", "[::1]", r"\[::1\]", marks=six),
    ],
)
def test_two_names_of_one_address_are_told(one: str, other: str, left_out: str) -> None:
    port = free_port()
    with pytest.raises(ProdserveError, match=rf"cannot both be served[^$]*Remove {left_out}:{port}:"):
        listeners.bind([f"{one}:{port}", f"{other}:{port}"], 0o007)
    with pytest.raises(ProdserveError, match="cannot both be served"):
        listeners.try_bind([f"{one}:{port}", f"{other}:{port}"], 0o007)


@six
def test_the_hint_for_a_taken_ipv6_address_can_be_followed() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(ProdserveError) as told:
            listeners.bind([f"[::1]:{port}"], 0o007)
    assert f"another port: --bind '[::1]:{port + 1}'" in str(told.value)
    assert parsers.addresses(f"[::1]:{port + 1}") == (f"[::1]:{port + 1}",)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("::1:8001", "'::1:8001' needs brackets around the address. Write '[::1]:8001'"),
        ("::", "'::' lacks a port. Write '[::]:8000'"),
        ("[::1]", "'[::1]' lacks a port. Write '[::1]:8000'"),
        ("fe80::1", "'fe80::1' lacks a port. Write '[fe80::1]:8000'"),
        ("10.0.0.1", "'10.0.0.1' lacks a port. Write 10.0.0.1:8000"),
        ("localhost", "'localhost' lacks a port. Write localhost:8000"),
        ("shop.example:http", "Port 'http' of 'shop.example:http' is not a number. Write shop.example:8000"),
        ("1:2:3", "'1:2:3' is not an address. Write HOST:PORT, such as '[::1]:8000' for IPv6"),
    ],
)
def test_what_to_write_is_an_address(typed: str, wanted: str) -> None:
    with pytest.raises(ParseError) as told:
        parsers.address(typed)
    assert f"{told.value} {told.value.fix}" == wanted
