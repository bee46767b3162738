"""A machine that lacks what servers take for granted: it serves, or one message says why not."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .namespaces import mounted, over, read_only
from .needs import lacking, need_package, need_program
from .serving import PATIENCE, Server, complaints, copy_site, run, serving

pytestmark = pytest.mark.slow

MANAGE = ("manage.py", "prodserve")
OWN_VAR_CACHE = "mount -t tmpfs none /var/cache"
NO_SHM = "mount -t tmpfs -o ro none /dev/shm"
AWAY = {"ENGINE": "django.db.backends.postgresql", "NAME": "shop", "HOST": "db.shop.example"}


def at_home(env: Any, tmp_path: Path, **more: str) -> dict[str, str]:
    """Return an environment with a home of its own and no other place for a cache."""
    (tmp_path / "home").mkdir()
    return without(env({"HOME": str(tmp_path / "home"), **more}), "XDG_CACHE_HOME")


def without(environ: dict[str, str], *names: str) -> dict[str, str]:
    """Return an environment without these, and without what would write down coverage where nobody may."""
    gone = {name for name in environ if name in names or name.startswith("COVERAGE_")}
    return {name: text for name, text in environ.items() if name not in gone}


def answers(server: Server) -> bool:
    """Say whether a page and a static file are answered."""
    return {server.get("/").status, server.get("/static/admin/css/base.css").status} == {200}


def test_a_read_only_home(env: Any, tmp_path: Path) -> None:
    """The next place is taken: /var/cache for root, the temporary directory for others."""
    (tmp_path / "tmp").mkdir()
    environ = at_home(env, tmp_path, TMPDIR=str(tmp_path / "tmp"))
    command = (*mounted(read_only(tmp_path / "home"), OWN_VAR_CACHE), *MANAGE)
    with serving(env=environ, command=command) as server:
        assert answers(server)
        assert "cached for a year" in server.output
    assert list((tmp_path / "home").iterdir()) == []


def test_a_read_only_working_directory(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path)
    with serving(env=env(), cwd=site, command=(*mounted(read_only(site)), *MANAGE)) as server:
        assert answers(server)


def test_a_read_only_tmpdir(env: Any, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    command = (*mounted(read_only(tmp_path / "tmp")), *MANAGE)
    with serving(env=env({"TMPDIR": str(tmp_path / "tmp")}), command=command) as server:
        assert answers(server)


def test_no_shared_memory(env: Any) -> None:
    with serving(env=env(), command=(*mounted(NO_SHM), *MANAGE)) as server:
        assert answers(server)


def test_a_read_only_container_with_shared_memory(env: Any, tmp_path: Path) -> None:
    """Nothing on disk can be written: static files are served where they lie, and it says so."""
    with serving(env=at_home(env, tmp_path), command=(*mounted(read_only("/")), *MANAGE)) as server:
        assert answers(server)
        assert "warning: static files are served from the finders" in server.output


def test_nothing_at_all_can_be_written(env: Any, tmp_path: Path) -> None:
    """A worker's sign of life is a file: that is one message, and no server that restarts for ever."""
    command = (*mounted(read_only("/"), NO_SHM), *MANAGE)
    ended = run(*command, "--bind", "127.0.0.1:0", env=at_home(env, tmp_path))
    assert ended.returncode == 1
    assert "no directory is writable" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(complaints(ended)) <= 3, ended.stderr
    assert " ready in " not in ended.stdout


def test_nowhere_may_it_write_down_its_pid(env: Any, tmp_path: Path) -> None:
    """Somebody's file is in the way: it serves, says so, and obeys signals."""
    in_the_way = f"mount -t tmpfs none /dev/shm && touch /dev/shm/prodserve-{os.geteuid()}"
    command = (*mounted(read_only("/"), in_the_way), *MANAGE)
    environ, site = at_home(env, tmp_path), copy_site(tmp_path)  # of which no other test has a server
    with serving(env=environ, command=command, cwd=site) as server:
        assert "warning: No writable runtime directory: reload, stop and status cannot find" in server.output
        assert answers(server)
        ended = run("-m", "django_prodserve", "status", env=environ, cwd=site)
        assert ended.returncode == 1
        assert "Traceback" not in ended.stderr
        server.process.send_signal(signal.SIGHUP)
        server.wait_for("generation 2 serves")
        assert answers(server)


def test_a_place_for_heartbeats_that_is_stated_is_enough(env: Any, tmp_path: Path) -> None:
    """Nothing else can be written, and nothing else needs to be."""
    (tmp_path / "beats").mkdir()
    command = (*mounted(read_only("/"), NO_SHM, f"mount -t tmpfs none {tmp_path / 'beats'}"), *MANAGE)
    stated = {"GUNICORN": {"worker_tmp_dir": str(tmp_path / "beats")}}
    environ = without(env({"HOME": "/nonexistent"}, PRODSERVE=stated), "XDG_CACHE_HOME")
    with serving(env=environ, command=command) as server:
        assert answers(server)


def test_without_capabilities(env: Any) -> None:
    need_program("setpriv")
    dropped = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    with serving(env=env(), command=(*mounted("true", then=dropped), *MANAGE)) as server:
        assert answers(server)
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status


@pytest.mark.parametrize("kind", ["closed", "loop", "file"])
def test_every_place_that_it_asks_for_is_barred(env: Any, tmp_path: Path, kind: str) -> None:
    """EACCES, ELOOP and ENOTDIR instead of a home, a cache, a temporary directory, static files and media."""
    need_program("setpriv")
    (place := tmp_path / "closed").mkdir(mode=0o000)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    place = tmp_path / kind / "inside"
    dropped = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
    names = ("HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR", "TMPDIR", "TMP", "TEMP")
    site = {"MEDIA_ROOT": f"{place}/media", "MEDIA_URL": "/media/", "STATICFILES_DIRS": [f"{place}/more"]}
    environ = without(env(dict.fromkeys(names, str(place)), STATIC_ROOT=f"{place}/static", **site))
    with serving("--media", env=environ, command=(*mounted("true", then=dropped), *MANAGE)) as server:
        assert answers(server)
        assert server.get("/media/gone.jpg").status == 404
        assert server.get("/echo/", "POST", body=bytes(2**20)).status == 200
        assert "Traceback" not in server.output
    pidfile = {"GUNICORN": {"pidfile": f"{place}/pid"}}
    ended = run(*mounted("true", then=dropped), *MANAGE, "check", env=env(PRODSERVE=pidfile))
    assert (ended.returncode, len(complaints(ended))) == (2, 2)
    assert f"PRODSERVE['GUNICORN']['pidfile'] {place}/pid cannot be written: {place}: " in ended.stderr


def test_a_user_that_nobody_knows(env: Any, tmp_path: Path) -> None:
    """As OpenShift runs containers: no name, no home, nothing of its own. It may read what root may."""
    need_program("setpriv")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    reading = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    nobody = ("setpriv", "--reuid=1000660000", "--regid=1000660000", "--clear-groups", *reading)
    environ = env({"HOME": "/nonexistent", "TMPDIR": str(tmp_path / "tmp")})
    environ = without(environ, "XDG_CACHE_HOME", "USER", "LOGNAME")
    with serving(env=environ, command=(*mounted("true", then=nobody), *MANAGE)) as server:
        assert answers(server)
        assert "runs as root" not in server.output


def test_without_dns(env: Any) -> None:
    need_package("psycopg")
    command = (*mounted(over("/etc/resolv.conf", "/dev/null")), *MANAGE)
    with serving(env=env(DATABASES={"default": AWAY}), command=command) as server:
        assert "prodserve.W016" in server.output
        assert "Database 'default' does not answer: " in server.output
        assert server.get("/").status == 200


@pytest.fixture
def silent_resolver() -> Iterator[socket.socket]:
    """Listen as a name server that never answers, on an address of loopback that nobody else uses."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as resolver:
        try:
            resolver.bind(("127.91.53.7", 53))
        except OSError as error:
            lacking("dns-port", f"no name server can listen here: {error}")
        resolver.setblocking(False)
        yield resolver


def test_a_name_server_that_hangs_costs_two_seconds(
    env: Any, tmp_path: Path, silent_resolver: socket.socket
) -> None:
    """The resolver of the C library would wait for 25 s, and no driver's time limit covers it."""
    need_package("psycopg")
    resolv_conf = tmp_path / "resolv.conf"
    resolv_conf.write_text("nameserver 127.91.53.7\noptions timeout:25 attempts:1\n")
    command = (*mounted(over("/etc/resolv.conf", resolv_conf)), *MANAGE, "check", "--bind", "127.0.0.1:0")
    started = time.monotonic()
    ended = run(*command, env=env(DATABASES={"default": AWAY}))
    assert time.monotonic() - started < 20
    assert ended.returncode == 0, ended.stderr
    expected = "Database 'default' does not answer: no answer from db.shop.example within 2 s"
    assert expected in ended.stdout
    assert b"\x02db\x04shop\x07example" in silent_resolver.recv(512)


def test_an_address_that_another_one_listens_on_first_is_named(env: Any, tmp_path: Path) -> None:
    """Two may bind one address while neither listens."""
    site, gate = copy_site(tmp_path, "open(os.environ['GATE']).close()\n"), tmp_path / "gate"
    os.mkfifo(gate)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{other.getsockname()[1]}"
        bind = ("--bind", address, "--no-supervisor")
        with serving(env=env({"GATE": str(gate)}), cwd=site, bind=bind, address="later") as server:
            server.wait_for("database  ")
            other.listen()
            gate.write_text("")
            server.process.wait(PATIENCE)
            server.wait_for(f"{address} came into use by ")
            assert "while this server was loading" in server.output
