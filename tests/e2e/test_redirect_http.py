"""The listener for plain HTTP beside TLS: what it redirects, what it answers, and what it refuses."""

from __future__ import annotations

import functools
import http.client
import os
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Response, Server, copy_site, run, serving, until

CHALLENGES = Path(".well-known/acme-challenge")


def pair(certificate: Path) -> list[str]:
    return [f"--certfile={certificate}/cert.pem", f"--keyfile={certificate}/key.pem"]


def plain_port(server: Server) -> int:
    """Return the port of plain HTTP as the server has said it."""
    found = re.findall(r"^redirect +http://\S+:(\d+) to https$", server.output, re.MULTILINE)
    return int(found[-1])


def ask(
    server: Server, path: str, method: str = "GET", host: str | None = "shop.example", body: bytes = b""
) -> Response:
    """Send one request to the listener for plain HTTP, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", plain_port(server), timeout=PATIENCE)
    try:
        connection.putrequest(method, path, skip_host=True)
        if host is not None:
            connection.putheader("Host", host)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        answer = connection.getresponse()
        return Response(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    finally:
        connection.close()


def send(server: Server, data: bytes, *, ends: bool = False) -> bytes:
    """Send these bytes to the listener for plain HTTP, and return all that comes until it closes."""
    with socket.create_connection(("127.0.0.1", plain_port(server)), PATIENCE) as client:
        client.sendall(data)
        if ends:
            client.shutdown(socket.SHUT_WR)
        found = b""
        while piece := client.recv(65536):
            found += piece
        return found


def lines(server: Server) -> list[str]:
    """Return the access lines so far."""
    return [line for line in server.output.splitlines() if " HTTP/1." in line]


def is_logged(server: Server, words: str) -> bool:
    """Return whether an access line has these words."""
    return any(words in line for line in lines(server))


def test_plain_http_leads_to_https(env: Any, certificate: Path, tmp_path: Path) -> None:
    webroot = tmp_path / "webroot"
    challenges = webroot / CHALLENGES
    challenges.mkdir(parents=True)
    (challenges / "to_ken-1").write_text("to_ken-1.thumb")
    (challenges / "with.dot").write_text("hidden")
    (challenges / "folder").mkdir()
    (challenges / "link").symlink_to("/etc/hostname")
    os.mkfifo(challenges / "pipe")
    (challenges / "large").write_bytes(b"x" * 100_000)
    flags = (*pair(certificate), "--redirect-http", "127.0.0.1:0", "--acme-webroot", str(webroot))
    with serving(*flags, "--access-log", "-", "--workers", "2", env=env()) as server:
        assert server.address.startswith("https://127.0.0.1:")
        # Redirects: to the port that the client can reach, with path and query as they were sent.
        answer = ask(server, "/a%20b/?q=%C3%A4&next=//x", host=f"shop.example:{plain_port(server)}")
        assert answer.status == 308
        assert answer.headers["location"] == f"https://shop.example:{server.port}/a%20b/?q=%C3%A4&next=//x"
        assert ask(server, "/x/", "POST").headers["location"] == "https://shop.example/x/"
        assert ask(server, "/static/no.css").status == 308
        assert ask(server, "//evil.example/").headers["location"] == "https://shop.example//evil.example/"
        head = ask(server, "/", "HEAD")
        assert (head.status, head.body) == (308, b"")
        # Hosts of others.
        refused = ask(server, "/", host="evil.example")
        assert (refused.status, refused.text) == (400, "The Host header is not in ALLOWED_HOSTS.\n")
        assert "location" not in refused.headers
        assert ask(server, "/", host="shop.example@evil.example").status == 400
        assert send(server, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        # An absolute target does not choose the host.
        absolute = b"GET http://evil.example/p?q HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
        assert b"\r\nLocation: https://shop.example/p?q\r\n" in send(server, absolute)
        star = b"OPTIONS * HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n"
        assert b"\r\nLocation: https://shop.example/\r\n" in send(server, star)
        # Probes, on any host, and without a line in the access log.
        assert [ask(server, path, host="10.0.0.1").text for path in ("/livez", "/readyz")] == ["ok\n", "ok\n"]
        # Challenges of a certificate authority.
        found = ask(server, f"/{CHALLENGES}/to_ken-1", host="not-yet.example")
        assert (found.status, found.text) == (200, "to_ken-1.thumb")
        for name in ("none", "with.dot", "folder", "link", "pipe", "large", "..", "a/b", "%2e%2e", ""):
            assert ask(server, f"/{CHALLENGES}/{name}").status == 404, name
        assert ask(server, f"/{CHALLENGES}/to_ken-1", "POST").headers["allow"] == "GET, HEAD"
        # A body is not waited for, and no later request hides in it.
        body = b"GET /hidden HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        post = b"POST /form/ HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000000\r\n\r\n"
        told = send(server, post + body, ends=True)
        assert told.count(b"HTTP/1.1 ") == 1
        assert b"308 Permanent Redirect" in told
        assert b"\r\nConnection: close\r\n" in told
        # Each worker writes its access lines within a second.
        for request in ("POST /form/ HTTP/1.1", "GET /a%20b/?q=%C3%A4&next=//x HTTP/1.1"):
            until(functools.partial(is_logged, server, f'"{request}" 308'))
        assert not [line for line in lines(server) if "livez" in line or "hidden" in line]


@pytest.mark.slow
def test_its_connections_are_kept_and_bounded_and_a_reload_keeps_its_socket(
    env: Any, certificate: Path, tmp_path: Path
) -> None:
    site = copy_site(tmp_path)
    flags = (*pair(certificate), "--redirect-http", "127.0.0.1:0", "--limit-request-line", "100")
    with serving(*flags, "--keep-alive", "1s", "--workers", "1", env=env(), cwd=site) as server:
        connection = http.client.HTTPConnection("127.0.0.1", plain_port(server), timeout=PATIENCE)
        for _ in range(3):
            connection.request("GET", "/", headers={"Host": "shop.example"})
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (308, b"This page is served over https.\n")
        assert connection.sock is not None
        assert connection.sock.recv(1) == b""  # closed when it was idle for the keep-alive time
        connection.close()
        assert ask(server, "/" + "x" * 200).status == 414
        two = (
            b"GET /1 HTTP/1.1\r\nHost: localhost\r\n\r\n"
            b"GET /2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        assert re.findall(rb"Location: https://localhost(\S+)", send(server, two)) == [b"/1", b"/2"]
        port = plain_port(server)
        told = run("-m", "django_prodserve", "reload", env=env(), cwd=site)
        assert told.returncode == 0, told.stderr
        server.wait_for("generation 2 serves")
        assert plain_port(server) == port
        assert ask(server, "/").status == 308
