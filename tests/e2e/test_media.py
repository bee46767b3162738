"""Uploads from a real server: every byte of a part and no other, and nothing from outside."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from .serving import PATIENCE, Server, run, serving

SIZE = 5 * 2**20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "media"
    (root / "films").mkdir(parents=True)
    (root / "films" / "film.mp4").write_bytes(random.Random(1).randbytes(SIZE))
    for name in ("drawing.svg", "page.html", "films/small.png"):
        (root / name).write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (root / ".hidden").write_text("secret")
    (tmp_path / "secret.txt").write_text("secret")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


def media(root: Path) -> dict[str, str]:
    return {"MEDIA_ROOT": str(root), "MEDIA_URL": "media/"}


def parts(server: Server, path: str) -> list[tuple[int, dict[str, str], bytes]]:
    """Ask for parts over one connection: a byte too many or too few would spoil the next answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    answers = []
    for wanted in ("0-0", "1048575-4194304", f"{SIZE - 1}-", "-70000", "0-1,3-4", f"{SIZE}-", "65536-"):
        connection.request("GET", path, headers={"Range": f"bytes={wanted}"})
        answer = connection.getresponse()
        answers.append((answer.status, dict(answer.getheaders()), answer.read()))
    connection.close()
    return answers


@pytest.mark.parametrize("flags", [(), ("--worker-class", "sync"), ("tls",)], ids=["threads", "sync", "tls"])
def test_a_large_file_by_parts(env: Any, root: Path, tmp_path: Path, flags: tuple[str, ...]) -> None:
    whole = (root / "films" / "film.mp4").read_bytes()
    if flags == ("tls",):
        with serving("--media", *certificate(tmp_path), env=env(**media(root))) as server:
            assert over_tls(server, "/media/films/film.mp4", "bytes=4194304-") == whole[4194304:]
        return
    with serving("--media", *flags, env=env(**media(root))) as server:
        assert "media     /media/ from " in server.output
        full = server.get("/media/films/film.mp4")
        assert (full.status, full.body == whole) == (200, True)
        wanted = [whole[:1], whole[1048575:4194305], whole[-1:], whole[-70000:], whole, b"", whole[65536:]]
        answers = parts(server, "/media/films/film.mp4")
        assert [status for status, _, _ in answers] == [206, 206, 206, 206, 200, 416, 206]
        assert [body == part for (_, _, body), part in zip(answers, wanted, strict=True)] == [True] * 7
        assert answers[1][1]["Content-Range"] == f"bytes 1048575-4194304/{SIZE}"
        tag = {"If-None-Match": full.headers["etag"]}
        assert server.get("/media/films/film.mp4", headers=tag).status == 304
        assert server.get("/media/films/film.mp4", "POST", body=b"x").status == 405


def certificate(tmp_path: Path) -> list[str]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    pair = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", *pair]
    subprocess.run(command, check=True, capture_output=True)
    return ["--certfile", str(tmp_path / "cert.pem"), "--keyfile", str(tmp_path / "key.pem")]


def over_tls(server: Server, path: str, wanted: str) -> bytes:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context, timeout=PATIENCE)
    connection.request("GET", path, headers={"Range": wanted})
    body = connection.getresponse().read()
    connection.close()
    return body


def test_script_is_a_download_and_nothing_leaves_the_directory(env: Any, root: Path) -> None:
    with serving("--media", env=env(**media(root))) as server:
        for name in ("drawing.svg", "page.html"):
            headers = server.get(f"/media/{name}").headers
            assert headers["content-disposition"] == "attachment"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["content-security-policy"].endswith("sandbox")
        for path in (
            "/media/../secret.txt",
            "/media/%2e%2e/secret.txt",
            "/media/%2e%2e%2fsecret.txt",
            "/media/films/..%2f..%2fsecret.txt",
            "/media/%252e%252e%252fsecret.txt",
            "/media/..%5csecret.txt",
            "/media/..%00/secret.txt",
            "/media/films/small.png%00.html",
            "/media/%c0%ae%c0%ae/secret.txt",
            "/media//etc/passwd",
            "/media/%2fetc%2fpasswd",
            "/media/.hidden",
            "/media/%2ehidden",
            "/media/link.txt",
            "/media/films/",
            "/media/films",
        ):
            assert status_of(server, path) == 404, path


def status_of(server: Server, path: str) -> int:
    """Send the path as it is written: clients tidy it up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert b"secret" not in answer.read()
        return answer.status


def test_without_the_flag_nothing_is_served(env: Any, root: Path) -> None:
    with serving(env=env(**media(root))) as server:
        assert server.get("/media/films/small.png").status == 404


def test_no_descriptor_is_left_open(env: Any, root: Path) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("there is no /proc")
    with serving("--workers", "1", env=env(PRODSERVE={"MEDIA": True}, **media(root))) as server:
        (pid,) = server.workers(1)

        def uploads() -> list[str]:
            links = Path(f"/proc/{pid}/fd").iterdir()
            return [path for path in map(os.path.realpath, links) if path.startswith(str(root))]

        path = "/media/films/film.mp4"
        for headers in ({}, {"Range": "bytes=5-9"}, {"Range": "bytes=9-5"}, {"If-None-Match": "*"}):
            for method in ("GET", "HEAD", "POST"):
                server.get(path, method, headers=headers)
        deadline = time.monotonic() + PATIENCE  # a worker closes a file after its last byte was sent
        while uploads():
            assert time.monotonic() < deadline, uploads()
            time.sleep(0.02)


def test_a_root_with_the_project_in_it_is_refused(env: Any, tmp_path: Path) -> None:
    ended = run("manage.py", "prodserve", "--media", "--bind", "127.0.0.1:0", env=env(**media(Path("/"))))
    assert ended.returncode == 1
    assert "--media cannot serve MEDIA_ROOT /: it contains " in ended.stderr
    assert "Give uploads a separate directory" in ended.stderr
