"""What a client claims about itself, through every preset, platform, worker class and kind of socket."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Server, environment, serving

FORGED = "198.51.100.66"  # what a client writes into its own headers
CLIENT = "203.0.113.9"  # the client's address, as the outermost proxy saw it
PROXIES = ["192.0.2.10", "192.0.2.11"]  # a platform's own, as the one behind each saw it

FORGERIES = {
    "X-Forwarded-For": FORGED,
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Protocol": "ssl",
    "X-Forwarded-Ssl": "on",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "1234",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Server": "evil.example",
    "Forwarded": f"for={FORGED};proto=https;host=evil.example",
    "X-Real-IP": FORGED,
    "X-Client-IP": FORGED,
    "True-Client-IP": FORGED,
    "CF-Connecting-IP": FORGED,
    "Fly-Client-IP": FORGED,
    "X-Original-URL": "/evil",
    "X-Rewrite-URL": "/evil",
    "Front-End-Https": "on",
    "X-Url-Scheme": "https",
    "Proxy": "http://evil.example",
    "Script-Name": "/evil",
    "Path-Info": "/evil",
    "Remote-Addr": FORGED,
    "Remote-User": "root",
    "X-Remote-User": "root",
}
# What only the project's settings can give a meaning passes from a trusted proxy, which must set it.
BY_AGREEMENT = {
    "X-Forwarded-Protocol",
    "X-Forwarded-Ssl",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Original-URL",
    "X-Rewrite-URL",
    "Front-End-Https",
    "X-Url-Scheme",
    "Remote-User",
    "X-Remote-User",
}
OTHER_ADDRESSES = [item for item in FORGERIES.items() if item[1] == FORGED and item[0] != "X-Real-IP"]
SET_BY_PROXY = {"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"}

# Django believes each of these, so nothing but the server stands between a client and them.
SITE = {
    "SECURE_PROXY_SSL_HEADER": ["HTTP_X_FORWARDED_PROTO", "https"],
    "USE_X_FORWARDED_HOST": True,
    "USE_X_FORWARDED_PORT": True,
    "ALLOWED_HOSTS": ["localhost", "127.0.0.1", "shop.example"],
}


class Both:
    """One server behind a TCP port and a unix socket."""

    def __init__(self, server: Server, path: Path) -> None:
        self.server, self.path = server, path

    def ask(self, *headers: tuple[str, str], over: str = "tcp", mark: str = "") -> dict[str, Any]:
        """Return what /whoami/ saw; ``mark`` finds the line in the access log."""
        family = socket.AF_UNIX if over == "unix" else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE)
            client.connect(str(self.path) if over == "unix" else ("127.0.0.1", self.server.port))
            lines = [f"GET /whoami/?{mark} HTTP/1.1", "Host: localhost", "Connection: close"]
            lines += [f"{name}: {value}" for name, value in headers]
            client.sendall("\r\n".join([*lines, "", ""]).encode())
            answer = http.client.HTTPResponse(client)
            answer.begin()
            body = answer.read()
            assert answer.status == 200, body
            seen: dict[str, Any] = json.loads(body)
        for name in ("QUERY_STRING", "RAW_URI", "REMOTE_PORT", "prodserve.request_id"):
            seen["meta"].pop(name, None)
        del seen["pid"]
        return seen

    def logged(self, mark: str) -> str:
        """Return the address that the access log has for a request."""
        return self.server.wait_for(f"/whoami/?{mark} ").split(" ")[0]


@contextmanager
def a_server(folder: Path, *flags: str, extra: dict[str, str] | None = None, worker: str) -> Iterator[Both]:
    path = folder / "s"
    options = ("--worker-class", worker, "--workers", "1", "--access-log", "-", "--bind", f"unix:{path}")
    with serving(*options, *flags, env=environment(folder, extra, **SITE)) as server:
        yield Both(server, path)


def spellings(name: str) -> list[str]:
    """Return the ways to write a header that end in the same variable, for who does not look closely."""
    half = name.replace("-", "_", 1)
    return list(dict.fromkeys([name, name.upper(), name.lower(), name.replace("-", "_"), half]))


def assert_nothing_arrives(both: Both, over: str) -> None:
    plain = both.ask(over=over)
    assert not plain["secure"]
    assert plain["meta"]["REMOTE_ADDR"] == ("" if over == "unix" else "127.0.0.1")
    everything = [(spelling, value) for name, value in FORGERIES.items() for spelling in spellings(name)]
    assert both.ask(*everything, over=over, mark=f"forged-{over}") == plain
    assert both.logged(f"forged-{over}") == ("-" if over == "unix" else "127.0.0.1")
    for header in everything:
        assert both.ask(header, over=over) == plain, header


def assert_only_the_proxy_is_believed(both: Both, over: str, hops: int) -> None:
    forged = [
        (spelling, value)
        for name, value in FORGERIES.items()
        for spelling in spellings(name)
        if "_" in spelling or name not in BY_AGREEMENT | SET_BY_PROXY
    ]
    believed = [CLIENT, *PROXIES][:hops]
    proxy = [
        ("X-Forwarded-For", ", ".join([FORGED, *believed[:1]])),  # appended to the client's own
        *(("X-Forwarded-For", address) for address in believed[1:]),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Host", "shop.example"),
        ("X-Forwarded-Port", "443"),
    ]
    for headers in (proxy, [*forged, *proxy]):
        seen = both.ask(*headers, over=over, mark=f"proxied-{over}-{len(headers)}")
        assert both.logged(f"proxied-{over}-{len(headers)}") == CLIENT
        meta = seen["meta"]
        assert seen["secure"]
        assert (meta["REMOTE_ADDR"], meta["wsgi.url_scheme"], meta["SERVER_PORT"]) == (CLIENT, "https", "443")
        assert meta["HTTP_X_FORWARDED_FOR"] == ", ".join(believed)
        assert meta["HTTP_X_FORWARDED_HOST"] == "shop.example"
        assert (meta["SCRIPT_NAME"], meta["PATH_INFO"]) == ("", "/whoami/")
        assert {meta[name] for name in meta if name.endswith("_IP")} <= {CLIENT}
        assert FORGED not in json.dumps(seen)
        assert "evil" not in json.dumps(seen)
    assert not both.ask(*forged, over=over)["secure"]
    assert not both.ask(("X-Forwarded-Proto", "http"), over=over)["secure"]


# Who is believed (over tcp, unix sockets), and which entry from the right is the client.
CASES: list[tuple[list[str], dict[str, str], set[str], int]] = [
    ([], {}, {"tcp", "unix"}, 1),
    (["private"], {}, {"tcp", "unix"}, 1),
    (["unix"], {}, {"unix"}, 1),
    (["none"], {}, set(), 1),
    (["*"], {}, {"tcp", "unix"}, 1),
    (["127.0.0.0/8"], {}, {"tcp"}, 1),
    (["127.0.0.1,192.0.2.10"], {}, {"tcp"}, 2),
    (["10.0.0.0/8,::1"], {}, set(), 1),
    ([], {"FORWARDED_ALLOW_IPS": "*"}, {"tcp", "unix"}, 1),
    ([], {"FORWARDED_ALLOW_IPS": "10.0.0.0/8", "DYNO": "web.1"}, set(), 1),
    ([], {"DYNO": "web.1"}, {"tcp", "unix"}, 1),
    ([], {"RENDER": "true"}, {"tcp", "unix"}, 3),
    ([], {"FLY_APP_NAME": "shop"}, {"tcp", "unix"}, 2),
    ([], {"K_SERVICE": "shop"}, {"tcp", "unix"}, 1),
    ([], {"RAILWAY_ENVIRONMENT": "production"}, {"tcp", "unix"}, 2),
]


# The layer is the same in every worker class: Gunicorn's own are tried with a few.
KINDS = [
    *(("prodserve", *case) for case in CASES),
    *(("gthread", *case) for case in CASES[::4]),
    *(("sync", *case) for case in CASES[2::5]),
]


@pytest.mark.parametrize(
    ("worker", "trust", "extra", "believed", "hops"),
    KINDS,
    ids=[" ".join([worker, *flags, *extra]) for worker, flags, extra, _, _ in KINDS],
)
def test_only_a_trusted_proxy_speaks_for_the_client(
    tmp_path: Path, trust: list[str], extra: dict[str, str], believed: set[str], hops: int, worker: str
) -> None:
    flags = [f"--trusted-proxies={network}" for network in trust]
    with a_server(tmp_path, *flags, extra=extra, worker=worker) as both:
        for over in ("tcp", "unix"):
            if over in believed:
                assert_only_the_proxy_is_believed(both, over, hops)
            else:
                assert_nothing_arrives(both, over)


def test_a_header_that_alone_gives_the_address_is_named_once_and_can_be_the_witness(tmp_path: Path) -> None:
    words = "--client-address-header X-Real-IP"
    alone = ("X-Real-IP", CLIENT)
    with serving("--workers", "2", "--threads", "2", env=environment(tmp_path, **SITE)) as server:
        server.workers(2)
        both, seen = Both(server, tmp_path), set()
        while len(seen) < 2:  # both workers have met one
            with socket.create_connection(("127.0.0.1", server.port)) as client:
                client.sendall(b"GET /whoami/ HTTP/1.0\r\nX-Real-IP: 203.0.113.9\r\n\r\n")
                answer = http.client.HTTPResponse(client)
                answer.begin()
                seen.add(json.loads(answer.read())["pid"])
        assert both.ask(alone)["meta"]["REMOTE_ADDR"] == "127.0.0.1"
        server.wait_for(words)
        server.stop()
        assert server.output.count(words) == 1
    path = tmp_path / "s"
    flags = ("--workers", "1", "--access-log", "-", "--bind", f"unix:{path}")
    with serving(*words.split(), *flags, env=environment(tmp_path, **SITE)) as server:
        both = Both(server, path)
        for over in ("tcp", "unix"):
            meta = both.ask(*OTHER_ADDRESSES, alone, over=over, mark=over)["meta"]
            assert (meta["REMOTE_ADDR"], meta["HTTP_X_FORWARDED_FOR"]) == (CLIENT, CLIENT)
            assert FORGED not in json.dumps(meta)
            assert both.logged(over) == CLIENT
        assert both.ask(*OTHER_ADDRESSES)["meta"]["REMOTE_ADDR"] == "127.0.0.1"
