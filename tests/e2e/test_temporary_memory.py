"""A temporary directory in memory, small, or unusable: a large body is refused, and nobody is killed."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.utils.units import MIB

from .groups import inside, limited_to
from .namespaces import mounted
from .serving import PATIENCE, Server, serving

MANAGE = ("manage.py", "prodserve", "--workers", "2")


pytestmark = pytest.mark.slow


def tmpfs(place: Path, options: str = "size=100%") -> str:
    return f"mount -t tmpfs -o {options} none {place}"


def upload(server: Server, mebibytes: int, form: bool = False) -> int:
    """Send a body of this size, in a form where Django stores it again; return the status."""
    before, after, kind = b"", b"", "application/octet-stream"
    if form:
        before = b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
        after, kind = b"\r\n--x--\r\n", "multipart/form-data; boundary=x"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    try:
        connection.putrequest("POST", "/echo/")
        connection.putheader("Content-Type", kind)
        connection.putheader("Content-Length", str(len(before) + mebibytes * MIB + len(after)))
        connection.endheaders(before)
        try:
            for _ in range(mebibytes):
                connection.send(bytes(MIB))
            connection.send(after)
        except (BrokenPipeError, ConnectionResetError):  # the refusal is there already
            pass
        return connection.getresponse().status
    finally:
        connection.close()


def kills(group: Path) -> int:
    found = re.search(r"oom_kill (\d+)", (group / "memory.oom_control").read_text())
    return int(found[1]) if found else 0


def test_bodies_in_memory_count_against_the_limit(
    env: Any, make_group: Callable[..., Path], tmp_path: Path
) -> None:
    """A container with a read-only root and ``tmpfs: /tmp``, and with 256 MiB."""
    (place := tmp_path / "tmp").mkdir()
    group = make_group("memory", limited_to(256))
    command = (*inside(group), *mounted(tmpfs(place)), *MANAGE)
    environ = env({"TMPDIR": str(place)}, DATA_UPLOAD_MAX_MEMORY_SIZE=None)
    with serving(env=environ, command=command) as server:
        workers = server.workers(2)
        assert "warning: TMPDIR is memory (tmpfs)" in server.output
        assert upload(server, 300) == 503
        refused = server.wait_for("A request body was refused: TMPDIR is memory (tmpfs) with")
        assert "a body of 300 MiB may need twice its size. Set --max-body, or TMPDIR to a disk" in refused
        assert [upload(server, 10, form=True) for _ in range(3)] == [200] * 3
        with ThreadPoolExecutor(8) as clients:
            statuses = set(clients.map(lambda _: upload(server, 30, form=True), range(8)))
        assert statuses <= {200, 503}
        assert server.get("/").status == 200
        assert server.workers(2) == workers
    assert kills(group) == 0
    assert not list(place.iterdir())


def test_a_small_temporary_directory_takes_what_it_can(env: Any, tmp_path: Path) -> None:
    (place := tmp_path / "tmp").mkdir()
    command = (*mounted(tmpfs(place, "size=64m")), *MANAGE)
    environ = env({"TMPDIR": str(place)}, DATA_UPLOAD_MAX_MEMORY_SIZE=None)
    with serving(env=environ, command=command) as server:
        assert upload(server, 20) == 200
        assert upload(server, 60) == 503
        server.wait_for("of 64 MiB free, a body of 60 MiB is coming, and 6.4 MiB stay free")
        assert upload(server, 20) == 200


@pytest.mark.parametrize(
    ("options", "status", "line"),
    [
        pytest.param("size=64m,ro", 200, "", id="read-only: the next usable directory is taken"),
        pytest.param("size=64m,nr_inodes=1", 200, "", id="without inodes: so, too"),
        pytest.param("size=256k", 503, "TMPDIR has 256 KiB of 256 KiB free", id="tiny"),
    ],
)
def test_a_directory_that_takes_nothing(
    env: Any, tmp_path: Path, options: str, status: int, line: str
) -> None:
    (place := tmp_path / "tmp").mkdir()
    environ = env({"TMPDIR": str(place)}, DATA_UPLOAD_MAX_MEMORY_SIZE=None)
    with serving(env=environ, command=(*mounted(tmpfs(place, options)), *MANAGE)) as server:
        assert upload(server, 1) == status
        if line:
            server.wait_for(line)
        assert server.get("/").status == 200
