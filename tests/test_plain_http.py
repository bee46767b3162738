"""The listener for plain HTTP: what the plan decides, where it sends clients, which files it serves."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_prodserve.config import parsers
from django_prodserve.config.parse_errors import ParseError
from django_prodserve.errors import ProdserveError, UsageError
from django_prodserve.http.parser import ParserSettings, RequestHead
from django_prodserve.plan.pipeline import reject_shared_address
from django_prodserve.startup import listeners
from django_prodserve.startup.files import webroot_problems
from django_prodserve.worker.plain_http import PlainHTTP, read_challenge

from .facts import plan, wishes

TLS = {"certfile": "c.pem", "keyfile": "k.pem"}


@pytest.mark.parametrize(
    ("typed", "bind", "address"),
    [
        ("80", "0.0.0.0:443", "0.0.0.0:80"),
        ("8080", "127.0.0.1:8443", "127.0.0.1:8080"),
        ("80", "[::]:443", "[::]:80"),
        ("80", "unix:/run/shop.sock", "0.0.0.0:80"),
        ("80", "unix:/run/shop.sock,192.0.2.1:443", "192.0.2.1:80"),
        (":80", "127.0.0.1:443", "0.0.0.0:80"),
        ("0.0.0.0:8080", "127.0.0.1:443", "0.0.0.0:8080"),
        ("unix:/run/plain.sock", "127.0.0.1:443", "unix:/run/plain.sock"),
        ("fd://4", "fd://3", "fd://4"),
    ],
)
def test_a_port_alone_means_the_host_of_the_site(typed: str, bind: str, address: str) -> None:
    made = plan(redirect_http=typed, bind=bind, worker_class="prodserve", **TLS)
    assert made.redirect_http.value == address
    assert made.addresses == (*made.bind.value, address)
    assert made.warnings == ()


def test_it_is_one_of_three_kinds_of_addresses() -> None:
    made = plan(redirect_http="8080", management_bind="9000", bind="127.0.0.1:8443", **TLS)
    assert made.addresses == ("127.0.0.1:8443", "127.0.0.1:8080", "127.0.0.1:9000")
    assert plan(redirect_http="off").redirect_http.value is None
    reject_shared_address(made)


def test_gunicorns_own_workers_say_that_nobody_redirects() -> None:
    made = plan(redirect_http="8080", worker_class="gthread", **TLS)
    assert made.redirect_http.value is None
    assert made.addresses == made.bind.value
    (told,) = [found for found in made.warnings if found.topic == "redirect-http"]
    assert told.message.startswith("Nothing answers on 8080 (test): only the worker class prodserve")


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"redirect_http": "80"}, "test redirects to https, which this server does not serve."),
        ({"acme_webroot": "/srv/acme"}, "test has no effect without a listener for plain HTTP."),
        ({"acme_webroot": "/srv/acme", **TLS}, "test has no effect without a listener for plain HTTP."),
        ({"redirect_http": "nonsense", **TLS}, "test: 'nonsense' lacks a port."),
        ({"redirect_http": "70000", **TLS}, "test: Port 70000 of '70000' is out of range (0-65535)."),
    ],
)
def test_what_is_wrong_with_it_is_one_line(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        wishes(**stated)
    (problem,) = refused.value.problems
    assert problem.message == words
    assert problem.fix


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (
            {"redirect_http": "8443", "bind": "127.0.0.1:8443"},
            "--redirect-http 127.0.0.1:8443 is the address of the site itself (127.0.0.1:8443).",
        ),
        (
            {"redirect_http": "9000", "management_bind": "9000"},
            "--management-bind 127.0.0.1:9000 is the address of the redirects to https (127.0.0.1:9000).",
        ),
    ],
)
def test_no_address_has_two_purposes(stated: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match="is the address of") as refused:
        reject_shared_address(plan(**stated, **TLS))
    assert refused.value.problems[0].message == words


def test_an_address_of_another_machine_names_the_option() -> None:
    with pytest.raises(UsageError) as refused:
        listeners.bind(["127.0.0.1:0"], 0o007, None, "192.0.2.1:8080")
    (problem,) = refused.value.problems
    assert problem.message == "192.0.2.1:8080 is not an address of this machine."
    assert problem.fix == "For all of its addresses: --redirect-http 0.0.0.0:80"


def test_a_taken_port_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(ProdserveError) as refused:
            listeners.bind(["127.0.0.1:0"], 0o007, None, address)
    (problem,) = refused.value.problems
    assert problem.message.startswith(f"{address} is already in use by ")
    assert "choose another port: --redirect-http 127.0.0.1:" in problem.fix


def test_off_and_false_mean_none() -> None:
    assert parsers.redirect(False) is parsers.redirect("off") is None
    with pytest.raises(ParseError):
        parsers.redirect("shop.example")


def test_a_webroot_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    given = {"redirect_http": "80", **TLS}
    assert [*webroot_problems(plan(acme_webroot=str(tmp_path), **given))] == []
    for path, why in (("/nowhere", "No such file or directory"), (__file__, "Not a directory")):
        (problem,) = webroot_problems(plan(acme_webroot=path, **given))
        assert problem.message == f"test {path} cannot be used: {why}."


class Listener:
    """What the redirect asks a listener."""

    def __init__(self, name: Any, family: int = socket.AF_INET) -> None:
        self.name, self.family = name, family

    def getsockname(self) -> Any:
        return self.name


def request(target: str) -> RequestHead:
    from django_prodserve.config.gunicorn import new_config

    head = f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"
    return RequestHead(ParserSettings(new_config()), head.encode(), None, 1)


@pytest.mark.parametrize(
    ("https", "plain", "host", "location"),
    [
        (443, 80, "shop.example", "https://shop.example/"),
        (443, 80, "shop.example:80", "https://shop.example/"),
        (8443, 8080, "shop.example:8080", "https://shop.example:8443/"),
        # A client that names no port has connected to port 80: ports are translated on the way.
        (8443, 8080, "shop.example", "https://shop.example/"),
        (8443, 80, "shop.example", "https://shop.example:8443/"),
        (443, 8080, "shop.example:8080", "https://shop.example/"),
        (8443, 8080, "[::1]:8080", "https://[::1]:8443/"),
        (443, 80, "[::1]", "https://[::1]/"),
    ],
)
def test_the_port_is_one_that_the_client_reaches(https: int, plain: int, host: str, location: str) -> None:
    listeners = [Listener(("0.0.0.0", https)), Listener(("0.0.0.0", plain))]
    assert redirects(listeners).target(host, request("/")) == location


def redirects(listeners: Any) -> PlainHTTP:
    app, config = SimpleNamespace(has_redirect=True), SimpleNamespace(acme_webroot=None)
    return PlainHTTP(SimpleNamespace(app=app, config=config), listeners)


def test_unix_sockets_have_no_port() -> None:
    site, plain = Listener("/run/a", socket.AF_UNIX), Listener("/run/b", socket.AF_UNIX)
    assert redirects([site, plain]).target("shop.example:80", request("/a?b")) == "https://shop.example/a?b"
    tcp = Listener(("127.0.0.1", 8443))
    assert redirects([site, tcp, plain]).target("shop.example", request("/")) == "https://shop.example:8443/"


def test_files_of_a_certificate_authority_are_plain_and_below_their_directory(tmp_path: Path) -> None:
    place = tmp_path / ".well-known" / "acme-challenge"
    assert read_challenge(str(tmp_path), "token") is None
    place.mkdir(parents=True)
    (place / "token").write_bytes(b"thumb")
    (tmp_path / "secret").write_bytes(b"secret")
    (place / "link").symlink_to(tmp_path / "secret")
    (place / "folder").mkdir()
    os.mkfifo(place / "pipe")
    (place / "large").write_bytes(b"x" * 65537)
    assert read_challenge(str(tmp_path), "token") == b"thumb"
    for name in ("none", "link", "folder", "pipe", "large"):
        assert read_challenge(str(tmp_path), name) is None
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".well-known").symlink_to(tmp_path / ".well-known")
    assert read_challenge(str(elsewhere), "token") is None
    before = len(os.listdir("/proc/self/fd"))
    read_challenge(str(tmp_path), "token")
    assert len(os.listdir("/proc/self/fd")) == before
