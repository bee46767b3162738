"""A start, a reload, a check and a measurement leave nothing behind of what the project's middleware does."""

from __future__ import annotations

import os
import signal
import socketserver
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from .postgres import cluster
from .serving import Server, copy_site, run, serving, until

pytestmark = pytest.mark.slow

EFFECTS = '''"""Middleware that changes the world, and breaks where a change does not show."""

import os
import socket
import threading
from pathlib import Path

from django.contrib.auth.models import Group
from django.core.cache import cache, caches
from django.core.mail import EmailMessage, send_mail
from django.db import IntegrityError, connection, transaction
from django.http import HttpResponse

HERE = Path(os.environ["EFFECTS"])
BEFORE = "there before"
agent = None


def name():
    return f"{Group.objects.count()} {os.urandom(8).hex()}"


def effects(get_response):
    def handle(request):
        rows()
        transactions()
        by_hand()
        request.session["visited"] = True
        mails()
        caching()
        files()
        start_agent()
        return get_response(request)

    return handle


def rows():
    """As autocommit commits: one that fails changes nothing for the others."""
    before = Group.objects.count()
    made = Group.objects.create(name=name())
    try:
        Group.objects.create(name=made.name)
    except IntegrityError:
        pass
    else:
        raise AssertionError("the same name twice")
    assert Group.objects.get_or_create(name=made.name) == (made, False)
    assert Group.objects.count() == before + 1
    assert not connection.in_atomic_block
    assert connection.get_autocommit()


def transactions():
    before = Group.objects.count()
    with transaction.atomic(durable=True):
        Group.objects.create(name=name())
        transaction.on_commit(lambda: (HERE / "committed").touch())
        try:
            with transaction.atomic():
                Group.objects.create(name=name())
                raise LookupError
        except LookupError:
            pass
        with transaction.atomic():
            assert Group.objects.select_for_update().count() == before + 1
            Group.objects.create(name=name())
    try:
        with transaction.atomic():
            Group.objects.create(name=name())
            raise LookupError
    except LookupError:
        pass
    transaction.on_commit(lambda: (HERE / "committed").touch())
    assert Group.objects.count() == before + 2


def by_hand():
    before = Group.objects.count()
    transaction.set_autocommit(False)
    Group.objects.create(name=name())
    transaction.commit()
    Group.objects.create(name=name())
    transaction.rollback()
    transaction.set_autocommit(True)
    with connection.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("INSERT INTO auth_group (name) VALUES (%s)", [name()])
        cursor.execute("COMMIT")
    assert Group.objects.count() == before + 2


def mails():
    assert send_mail("visit", "a visitor", "shop@shop.example", ["owner@shop.example"]) == 1
    if "SMTP" in os.environ:
        from django.core.mail.backends.smtp import EmailBackend

        smtp = EmailBackend(host="127.0.0.1", port=int(os.environ["SMTP"]))
        message = EmailMessage("visit", "a visitor", "shop@shop.example", ["owner@shop.example"])
        assert smtp.send_messages([message]) == 1


def caching():
    for each in (cache, caches["files"]):
        each.set("visits", 1)
        each.incr("visits")
        assert each.get("visits") == 2
        assert each.get_many(["visits", "others"]) == {"visits": 2}


def files():
    with open(HERE / "visits.log", "a") as log:
        log.write("visit\\n")
    assert "visit" in (HERE / "visits.log").read_text()
    (HERE / "last").write_text("visit")
    os.replace(HERE / "last", HERE / "newest")
    assert (HERE / "newest").read_text() == "visit"


def start_agent():
    global agent
    if agent is None:
        agent = threading.Thread(target=threading.Event().wait, name="agent", daemon=True)
        agent.start()


def service(get_response):
    def handle(request):
        socket.create_connection(("127.0.0.1", int(os.environ["SERVICE"]))).close()
        return get_response(request)

    return handle


def asked(request):
    names = [thread.name for thread in threading.enumerate()]
    return HttpResponse(f"{os.getpid()} {names.count('agent')}")
'''
SETTINGS = """
MIDDLEWARE.append("shop.effects.effects")
EMAIL_BACKEND = "django.core.mail.backends.filebased.EmailBackend"
EMAIL_FILE_PATH = os.environ["EFFECTS"] + "/mail"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "cache"},
    "files": {
        "BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
        "LOCATION": os.environ["EFFECTS"] + "/cache",
    },
}
"""
COUNT = (
    "SELECT (SELECT COUNT(*) FROM auth_group), (SELECT COUNT(*) FROM django_session), "
    "(SELECT COUNT(*) FROM cache)"
)
SQL = Callable[[str], list[Any]]


class Sink(socketserver.ThreadingTCPServer):
    """Takes mail, and counts it, and the connections."""

    daemon_threads = True

    def __init__(self) -> None:
        self.connections = self.mails = 0
        super().__init__(("127.0.0.1", 0), Taking)


class Taking(socketserver.StreamRequestHandler):
    server: Sink

    def handle(self) -> None:
        self.server.connections += 1
        self.wfile.write(b"220 sink\r\n")
        data = False
        for line in self.rfile:
            if data and line != b".\r\n":
                continue
            self.server.mails += data
            begins = line.upper().startswith(b"DATA")
            self.wfile.write(b"354 go on\r\n" if begins else b"250 yes\r\n")
            data = begins


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@contextmanager
def databases(kind: str, tmp_path: Path) -> Iterator[tuple[SQL, dict[str, Any]]]:
    """Yield how to ask a database of this kind, and the settings that it needs."""
    with ExitStack() as stack:
        if kind == "sqlite":

            def ask(statement: str) -> list[Any]:
                with closing(sqlite3.connect(tmp_path / "db.sqlite3")) as connection:
                    return connection.execute(statement).fetchall()

            yield ask, {}
            return
        postgres = stack.enter_context(cluster())
        stack.enter_context(postgres.running())
        yield postgres.sql, {"DATABASES": {"default": postgres.settings("postgres", **POSTGRES[kind])}}


POSTGRES: dict[str, dict[str, Any]] = {
    "postgres": {"ATOMIC_REQUESTS": True, "CONN_MAX_AGE": None},
    "pooled": {"OPTIONS": {"pool": True}, "CONN_HEALTH_CHECKS": True},
}


@pytest.fixture
def site(tmp_path: Path) -> Path:
    copied = copy_site(tmp_path, "\nfrom .effects import asked\nurlpatterns.append(path('asked/', asked))\n")
    (copied / "shop" / "effects.py").write_text(EFFECTS)
    settings = copied / "shop" / "settings.py"
    settings.write_text(settings.read_text() + SETTINGS)
    (tmp_path / "effects" / "cache").mkdir(parents=True)
    (tmp_path / "effects" / "mail").mkdir()
    return copied


class World:
    """What the project's middleware may change, and how much of it has changed."""

    def __init__(self, environ: dict[str, str], site: Path, sink: Sink, sql: SQL) -> None:
        self.environ, self.site, self.sink, self.sql = environ, site, sink, sql
        self.files = Path(environ["EFFECTS"])

    def run(self, *arguments: str) -> str:
        ended = run("manage.py", *arguments, env=self.environ, cwd=self.site)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def changes(self) -> dict[str, Any]:
        rows, sessions, cached = self.sql(COUNT)[0]
        return {
            "rows": rows,
            "sessions": sessions,
            "cached": cached,
            "mails": len(list((self.files / "mail").iterdir())) + self.sink.mails,
            "connections": self.sink.connections,
            "files": sorted(str(path.relative_to(self.files)) for path in self.files.rglob("*")),
        }


@pytest.fixture
def make_world(env: Any, site: Path, tmp_path: Path, sink: Sink) -> Any:
    def make(sql: SQL = lambda statement: [(0, 0, 0)], **changed: Any) -> World:
        more = {"EFFECTS": str(tmp_path / "effects"), "SMTP": str(sink.server_address[1])}
        made = World(env(more | {"PYTHONWARNINGS": "ignore"}, **changed), site, sink, sql)
        made.run("migrate", "-v0")
        made.run("createcachetable")
        return made

    return make


KINDS = pytest.mark.parametrize("kind", ["sqlite", "postgres", "pooled"])
UNTOUCHED = {
    **dict.fromkeys(["rows", "sessions", "cached", "mails", "connections"], 0),
    "files": ["cache", "mail"],
}


@KINDS
def test_checking_and_measuring_leave_nothing_behind(make_world: Any, tmp_path: Path, kind: str) -> None:
    with databases(kind, tmp_path) as (sql, settings):
        world = make_world(sql, **settings)
        assert world.changes() == UNTOUCHED
        assert "warm-up" not in world.run("prodserve", "check", "--bind", "127.0.0.1:0")
        world.run("prodserve", "plan", "--measure")
        assert world.changes() == UNTOUCHED


@KINDS
def test_serving_leaves_nothing_behind(make_world: Any, tmp_path: Path, kind: str) -> None:
    """A start, a worker that replaces another, a reload; what visitors do stays."""
    with databases(kind, tmp_path) as (sql, settings):
        world = make_world(sql, **settings)
        with serving("--workers", "2", env=world.environ, cwd=world.site) as server:
            gone = server.workers(2)[0]
            os.kill(gone, signal.SIGKILL)
            until(lambda: gone not in server.workers(2))
            server.process.send_signal(signal.SIGHUP)
            server.wait_for("Reloaded in ")
            until(lambda: len(server.workers(2)) == 2)  # the last of the old ones may be leaving
            assert world.changes() == UNTOUCHED, server.output
            assert "warm-up" not in server.output
            assert "will not have the thread" not in server.output
            see_the_changes(world, server)


def test_without_preload_nothing_is_left_behind_either(make_world: Any, tmp_path: Path) -> None:
    with databases("sqlite", tmp_path) as (sql, _):
        world = make_world(sql)
        with serving("--workers", "2", "--no-preload", env=world.environ, cwd=world.site) as server:
            until(lambda: len(server.workers(2)) == 2)
            assert world.changes() == UNTOUCHED, server.output
            assert "warm-up" not in server.output
            see_the_changes(world, server)


def see_the_changes(world: World, server: Server) -> None:
    """A visitor does change all that, and each worker has the thread."""
    answer = server.get("/asked/")
    assert answer.status == 200, server.output
    assert answer.text.split()[1] == "1"
    changed = world.changes()
    assert changed["rows"] == 5
    assert changed["sessions"] == 1
    assert changed["cached"] == 1
    assert changed["mails"] == 2
    assert {"committed", "newest", "visits.log"} <= {*changed["files"]}


def middleware(site: Path, name: str, *, first: bool = True) -> None:
    settings = site / "shop" / "settings.py"
    place = "0" if first else "len(MIDDLEWARE)"
    settings.write_text(f'{settings.read_text()}MIDDLEWARE.insert({place}, "shop.{name}")\n')


def test_a_service_is_not_asked_and_what_lies_behind_it_is_said_to_be_untried(
    make_world: Any, site: Path, sink: Sink
) -> None:
    middleware(site, "effects.service")
    world = make_world()
    world.environ["SERVICE"] = str(sink.server_address[1])
    line = 1 + EFFECTS.splitlines().index(
        '        socket.create_connection(("127.0.0.1", int(os.environ["SERVICE"]))).close()'
    )
    said = world.run("prodserve", "check", "--bind", "127.0.0.1:0")
    note = next(text for text in said.splitlines() if text.startswith("warm-up "))
    assert f"connect to 127.0.0.1:{world.environ['SERVICE']} by shop/effects.py, line {line}," in note
    assert "raised" not in said
    with serving("--workers", "1", env=world.environ, cwd=site) as server:
        assert world.sink.connections == 0
        assert server.get("/").status == 200
        assert world.sink.connections == 2  # and one of SMTP


def test_without_a_warm_up_nothing_is_sent(make_world: Any, site: Path) -> None:
    """What a mere import does stays the project's own affair."""
    (site / "shop" / "counting.py").write_text(COUNTING)
    middleware(site, "counting.count")
    world = make_world()
    notes = world.files / "requests"
    for flags in (("--warmup", "off"), ()):
        world.run("prodserve", "check", "--bind", "127.0.0.1:0", *flags)
        assert (os.path.getsize(notes) if notes.exists() else 0) == (0 if flags else 1)
    notes.unlink()
    for preload in ("--preload", "--no-preload"):
        with serving("--warmup", "off", preload, env=world.environ, cwd=site) as server:
            assert not notes.exists()
            assert server.get("/").status == 200
            assert notes.read_bytes() == b"."
        notes.unlink()


COUNTING = """
import ctypes
import os


def count(get_response):
    def handle(request):
        libc = ctypes.CDLL(None)  # behind Python's back, so that the test sees it
        path = f"{os.environ['EFFECTS']}/requests".encode()
        file = libc.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        libc.write(file, b".", 1)
        libc.close(file)
        return get_response(request)

    return handle
"""
BROKEN = {
    "raises when it is made": (
        'def broken(get_response):\n    raise RuntimeError("no tenant")\n',
        1,
        "no tenant",
    ),
    "raises with a request": (
        'def broken(get_response):\n    def handle(request):\n        raise RuntimeError("no tenant")\n'
        "    return handle\n",
        0,
        'raised: RuntimeError: no tenant; shop/broken.py, line 3: raise RuntimeError("no tenant")',
    ),
    "raises in its template": (
        "from django.shortcuts import render\n\n\ndef broken(get_response):\n    def handle(request):\n"
        '        return render(request, "missing.html")\n    return handle\n',
        0,
        "TemplateDoesNotExist: missing.html; shop/broken.py, line 6",
    ),
    "leaves the process": (
        "import sys\n\n\ndef broken(get_response):\n    def handle(request):\n        sys.exit(3)\n"
        "    return handle\n",
        0,
        "raised: SystemExit: 3; shop/broken.py, line 6: sys.exit(3)",
    ),
    "never answers": (
        "import signal\n\nfrom django.db import connection\n\n\ndef broken(get_response):\n"
        "    def handle(request):\n        with connection.cursor() as cursor:\n"
        '            cursor.execute("CREATE TABLE locked (number int)")\n            signal.pause()\n'
        "    return handle\n",
        0,
        "was ended: its limit is 30 s, and 10 s (4 s with SQLite) after its first change of a database",
    ),
    "cannot be imported": (None, 1, "there is no module shop.broken"),
}


def broken(env: Any, tmp_path: Path, kind: str) -> tuple[dict[str, str], Path]:
    """Return environment and place of a project with this kind of a broken middleware."""
    code = BROKEN[kind][0]
    site = copy_site(tmp_path)
    if code is not None:
        (site / "shop" / "broken.py").write_text(code)
    middleware(site, "broken.broken")
    return env(), site


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_middleware_is_found(env: Any, tmp_path: Path, kind: str) -> None:
    exit_code = BROKEN[kind][1]
    environ, site = broken(env, tmp_path, kind)
    ended = run("manage.py", "prodserve", "check", "--bind", "127.0.0.1:0", env=environ, cwd=site)
    assert ended.returncode == exit_code, ended.stderr
    expect_complaint(ended.stderr if exit_code else ended.stdout, kind)


@pytest.mark.parametrize("kind", ["raises when it is made", "never answers"])
def test_it_is_found_before_the_port_listens_without_preload_too(env: Any, tmp_path: Path, kind: str) -> None:
    environ, site = broken(env, tmp_path, kind)
    if not BROKEN[kind][1]:
        with serving("--workers", "1", "--no-preload", env=environ, cwd=site) as server:
            expect_complaint(server.output, kind)
        return
    flags = ("--bind", "127.0.0.1:0", "--no-preload")
    ended = run("manage.py", "prodserve", *flags, env=environ, cwd=site)
    assert ended.returncode == 1
    assert " ready in " not in ended.stdout
    expect_complaint(ended.stderr, kind)


def expect_complaint(output: str, kind: str) -> None:
    _, exit_code, said = BROKEN[kind]
    assert said in output
    if not exit_code:
        begins = "warning: the warm-up request /prodserve-warm-up "
        assert said in next(line for line in output.splitlines() if line.startswith(begins))
