"""A response that is a file has the bytes that its read() yields; where some are missing, the log says so."""

from __future__ import annotations

import http.client
import os
import re
import socket
import struct
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from .serving import PATIENCE, Server, copy_site, serving, until

VIEWS = """

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
from pathlib import Path
from django.core.files import File
from django.http import FileResponse

HERE = Path(__file__).parent


class Decrypting:
    def __init__(self, raw): self.raw = raw
    def read(self, size=-1): return bytes(b ^ 7 for b in self.raw.read(size))
    def __getattr__(self, name): return getattr(self.raw, name)


def read_ahead():
    file = open(HERE / "plain.txt", "rb")
    file.seek(0)
    return file


def spooled():
    file = tempfile.SpooledTemporaryFile()
    file.write((HERE / "plain.txt").read_bytes())
    file.seek(0)
    return file


def piped():
    read, write = os.pipe()
    data = (HERE / "plain.txt").read_bytes()
    threading.Thread(target=lambda: (os.write(write, data), os.close(write))).start()
    return os.fdopen(read, "rb")


READERS = {
    "plain": lambda: open(HERE / "plain.txt", "rb"),
    "ahead": read_ahead,
    "gz": lambda: gzip.open(HERE / "plain.gz"),
    "dgz": lambda: File(gzip.open(HERE / "plain.gz"), name="plain.txt"),
    "bz2": lambda: bz2.open(HERE / "plain.bz2"),
    "xz": lambda: lzma.open(HERE / "plain.xz"),
    "decrypt": lambda: Decrypting(open(HERE / "secret.bin", "rb")),
    "spooled": spooled,
    "pipe": piped,
    "memory": lambda: io.BytesIO((HERE / "plain.txt").read_bytes()),
}


def reading(request, how):
    return FileResponse(READERS[how](), content_type="text/plain")


async def reading_async(request, how):
    return FileResponse(READERS[how](), content_type="text/plain")


def length(request, length):
    response = FileResponse(open(HERE / "plain.txt", "rb"))
    response.headers["Content-Length"] = str(length)
    return response


def short_text(request):
    return HttpResponse("short", headers={"Content-Length": "50"})


def empty(request):
    return FileResponse(open(HERE / "empty", "rb"))


def shrinking(request):
    return FileResponse(open(HERE / "shrinking.bin", "rb"))


def silent(request):
    def pieces():
        try:
            while True:
                time.sleep(0.02)
                yield b""
        finally:
            (HERE / "silence-ended").touch()

    return StreamingHttpResponse(pieces())


def position(request):
    response = FileResponse(open(HERE / "plain.txt", "rb", buffering=0))
    file, closers = response.file_to_stream, response._resource_closers
    closers.insert(0, lambda: FOUND.append(os.lseek(file.fileno(), 0, os.SEEK_CUR)))
    return response


FOUND = []
urlpatterns += [
    path("position/", position),
    path("positions/", lambda request: JsonResponse(FOUND, safe=False)),
    path("read/<how>/", reading),
    path("read-async/<how>/", reading_async),
    path("length/<int:length>/", length),
    path("short-text/", short_text),
    path("empty/", empty),
    path("shrinking/", shrinking),
    path("silent/", silent),
]
"""
TEXT = b"".join(b"line %d of the report\n" % number for number in range(2000))
READERS = ("plain", "ahead", "gz", "dgz", "bz2", "xz", "decrypt", "spooled", "pipe", "memory")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    import bz2
    import gzip
    import lzma

    made = copy_site(tmp_path, VIEWS)
    shop = made / "shop"
    (shop / "plain.txt").write_bytes(TEXT)
    (shop / "plain.gz").write_bytes(gzip.compress(TEXT))
    (shop / "plain.bz2").write_bytes(bz2.compress(TEXT))
    (shop / "plain.xz").write_bytes(lzma.compress(TEXT))
    (shop / "secret.bin").write_bytes(bytes(byte ^ 7 for byte in TEXT))
    (shop / "empty").write_bytes(b"")
    return made


def get_short(server: Server, path: str) -> bytes:
    """Return what comes of a response that ends early."""
    with pytest.raises(http.client.IncompleteRead) as raised:
        server.get(path)
    return raised.value.partial


def test_what_read_yields_is_sent_and_what_is_missing_is_told(env: Any, site: Path) -> None:
    with serving("--workers", "1", env=env(), cwd=site) as server:
        for how in READERS:
            answer = server.get(f"/read/{how}/")
            assert (how, answer.status, answer.body == TEXT) == (how, 200, True)
        for how in ("plain", "gz", "decrypt"):
            assert server.get(f"/read-async/{how}/").body == TEXT
            head = server.get(f"/read/{how}/", "HEAD")
            assert (head.body, head.headers["content-length"]) == (b"", str(len(TEXT)))
        assert server.get("/length/100/").body == TEXT[:100]
        assert server.get("/length/0/").body == b""
        assert server.get("/empty/").body == b""
        # All of them can share a connection; the short ones end theirs.
        kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
        for target, body in {"/read/gz/": TEXT, "/read/plain/": TEXT, "/length/9/": TEXT[:9]}.items():
            kept.request("GET", target)
            assert kept.getresponse().read() == body
        kept.close()
        assert get_short(server, f"/length/{len(TEXT) + 5}/") == TEXT
        assert get_short(server, "/short-text/") == b"short"
        assert server.get("/short-text/", "HEAD").body == b""
        assert server.stop() == 0
        said = [line for line in server.output.splitlines() if "shorter than its Content-Length" in line]
    assert [re.sub(r".*\[ERROR\] (\[\w+\] )?", "", line) for line in said] == [
        f"The response to GET /length/{len(TEXT) + 5}/ is shorter than its Content-Length: "
        f"5 of {len(TEXT) + 5} bytes are missing, the connection is closed.",
        "The response to GET /short-text/ is shorter than its Content-Length: "
        "45 of 50 bytes are missing, the connection is closed.",
    ]


def test_a_file_that_shrinks_while_it_is_sent_is_told(env: Any, site: Path) -> None:
    """A slow client, so that most of it leaves without a thread."""
    file = site / "shop" / "shrinking.bin"
    file.write_bytes(b"x" * 2**25)
    with serving("--workers", "1", env=env(), cwd=site) as server:
        with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
            client.sendall(b"GET /shrinking/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
            os.truncate(file, 2**20)
            got = 0
            while part := client.recv(2**20):
                got += len(part)
        assert got < 2**25
        server.wait_for("The file that answers GET /shrinking/ has become shorter while it was sent: ")


@pytest.mark.skipif(not hasattr(os, "sendfile"), reason="there is nothing to switch off")
@pytest.mark.parametrize("off", [True, False], ids=["off", "on"])
def test_sendfile_can_be_switched_off(env: Any, site: Path, off: bool) -> None:
    """The descriptor's position tells: read() moves it, sendfile with an offset does not."""
    extra = {"GUNICORN_CMD_ARGS": "--no-sendfile"} if off else {}
    with serving("--workers", "1", env=env(extra), cwd=site) as server:
        assert server.get("/position/").body == TEXT
        until(lambda: server.get("/positions/").json() == [len(TEXT) if off else 0])


@pytest.mark.parametrize("how", ["reset", "closed"])
def test_a_stream_of_nothing_to_a_client_that_has_left_ends(env: Any, site: Path, how: str) -> None:
    with serving("--workers", "1", env=env(), cwd=site) as server:
        client = socket.create_connection(("127.0.0.1", server.port), PATIENCE)
        client.sendall(b"GET /silent/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
        if how == "reset":
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        time.sleep(1.5)  # a client that is there keeps its stream, however silent
        assert not (site / "shop" / "silence-ended").exists()
        client.close()
        until(lambda: (site / "shop" / "silence-ended").exists())
        busy = psutil.Process(server.workers(1)[0]).net_connections()
        assert server.get("/").text == "hello", busy
