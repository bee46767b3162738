"""What comes before serving: databases that are waited for, migrations applied once, collected files."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .postgres import Postgres, cluster, free_port
from .serving import PATIENCE, Server, complaints, copy_site, run, serving

pytestmark = pytest.mark.slow

FIRST = """
import os, socket
from django.db import migrations, models

def record(apps, schema_editor):
    gate = os.environ.get("STOCK_GATE", "")
    if os.path.exists(gate):
        open(gate).read()  # waits until the test opens the other end
    port = int(os.environ.get("STOCK_PORT", "0"))
    if port:
        with socket.socket() as client:
            listens = client.connect_ex(("127.0.0.1", port)) == 0
    if os.environ.get("STOCK_FAILS"):
        raise RuntimeError(f"the price is wrong, listens: {listens}")
    with open(os.environ["STOCK_RECORD"], "a") as file:
        file.write(f"{os.getpid()}\\n")

class Migration(migrations.Migration):
    initial = True
    atomic = not os.environ.get("STOCK_OPEN")  # no transaction idles while the gate is closed
    operations = [
        migrations.CreateModel("Item", [("id", models.BigAutoField(primary_key=True))]),
        migrations.RunPython(record),
    ]
"""
SECOND = """
from django.db import migrations

class Migration(migrations.Migration):
    atomic = False  # as CREATE INDEX CONCURRENTLY needs it, which waits for every older snapshot
    dependencies = [("stock", "0001_initial")]
    operations = [migrations.RunSQL("CREATE INDEX {how} stock_item_twice ON stock_item (id)")]
"""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with cluster() as made, made.running():
        yield made


class Shop:
    """A site with an app whose migration leaves a trace."""

    def __init__(self, tmp_path: Path, make_env: Any) -> None:
        self.directory = copy_site(tmp_path)
        self.record, self.gate = tmp_path / "record", tmp_path / "gate"
        self.make_env = make_env
        self.write("CREATE INDEX")
        from .serving import SITE

        scope: dict[str, Any] = {"__file__": str(SITE / "shop" / "settings.py")}
        exec((SITE / "shop" / "settings.py").read_text(), scope)
        self.apps = [*scope["INSTALLED_APPS"], "stock"]

    def write(self, how: str) -> None:
        folder = self.directory / "stock" / "migrations"
        folder.mkdir(parents=True, exist_ok=True)
        for package in (folder, folder.parent):
            (package / "__init__.py").touch()
        (folder / "0001_initial.py").write_text(FIRST)
        (folder / "0002_index.py").write_text(SECOND.format(how=how.removeprefix("CREATE INDEX")))

    def env(self, extra: Any = None, **site: Any) -> dict[str, str]:
        stock = {"STOCK_RECORD": str(self.record), "STOCK_GATE": str(self.gate), **(extra or {})}
        made: dict[str, str] = self.make_env(stock, INSTALLED_APPS=self.apps, **site)
        return made

    @property
    def runs(self) -> int:
        """How often the migration ran."""
        return len(self.record.read_text().splitlines()) if self.record.exists() else 0

    @contextlib.contextmanager
    def starting(self, *flags: str, env: dict[str, str]) -> Iterator[Server]:
        """Start a server without waiting until it is ready."""
        with serving(*flags, env=env, cwd=self.directory, address="later") as server:
            yield server


def is_ready(server: Server) -> None:
    server.address = server.wait_for(" ready in ").split()[0]


@pytest.fixture
def shop(tmp_path: Path, env: Callable[..., dict[str, str]]) -> Shop:
    return Shop(tmp_path, env)


@contextlib.contextmanager
def database(kind: str, request: Any, shop: Shop) -> Iterator[dict[str, Any]]:
    """Yield the settings for an empty database of this kind."""
    if kind == "sqlite":
        yield {}
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    postgres.sql(f"CREATE DATABASE {kind}")
    # Whatever a site sets: none of it may end the lock.
    postgres.sql(f"ALTER DATABASE {kind} SET idle_in_transaction_session_timeout = '300ms'")
    shop.write("CREATE INDEX CONCURRENTLY")
    if kind == "direct":
        yield {"DATABASES": {"default": postgres.settings(kind)}}
        return
    with postgres.pooler() as port:
        yield {"DATABASES": {"default": postgres.settings(kind, port, DISABLE_SERVER_SIDE_CURSORS=True)}}


@pytest.mark.parametrize("kind", ["sqlite", "direct", "pooled"])
def test_replicas_that_start_together_migrate_once(shop: Shop, request: Any, kind: str) -> None:
    os.mkfifo(shop.gate)
    with database(kind, request, shop) as site, contextlib.ExitStack() as stack:
        environ = shop.env({"STOCK_OPEN": "1"}, **site)
        servers = [stack.enter_context(shop.starting("--migrate", env=environ)) for _ in range(4)]
        said = [
            server.wait_for(lambda line: "waiting for another" in line or "applying stock" in line)
            for server in servers
        ]
        applying = [line for line in said if "applying stock.0001_initial" in line]
        assert len(applying) == 1, said
        time.sleep(0.5)  # longer than the database lets a transaction idle, unless it is told otherwise
        with shop.gate.open("w"):
            shop.gate.unlink()
        for server in servers:
            is_ready(server)
            assert server.get("/").text == "hello"
        outputs = [server.output for server in servers]
    assert shop.runs == 1
    assert sum("nothing left to apply" in output for output in outputs) == 3, outputs
    assert sum("default: done in" in output for output in outputs) == 1, outputs
    assert not any("start one server first" in output for output in outputs), outputs


def test_nothing_to_migrate_is_one_line(shop: Shop) -> None:
    for line in (r"applying stock.0001_initial (", "migrate   default: nothing to apply"):
        with serving("--migrate", env=shop.env(), cwd=shop.directory) as server:
            assert line in server.output
    assert server.output.count("migrate ") == 1
    assert shop.runs == 1


@pytest.mark.parametrize("action", ["plan", "check"])
def test_only_serving_prepares(shop: Shop, tmp_path: Path, action: str) -> None:
    site = {
        "STATIC_ROOT": str(tmp_path / "static-root"),
        "PRODSERVE": {"PREPARE": ["migrate", "collectstatic"]},
    }
    ended = run(
        "manage.py", "prodserve", action, "--bind", "127.0.0.1:0", env=shop.env(**site), cwd=shop.directory
    )
    assert ended.returncode == 0, ended.stderr
    assert shop.runs == 0
    assert not (tmp_path / "static-root").exists()
    if action == "plan":
        assert "set by PRODSERVE['PREPARE']" in ended.stdout


def test_a_migration_that_fails_is_one_message(shop: Shop) -> None:
    port = free_port()
    environ = shop.env({"STOCK_FAILS": "1", "STOCK_PORT": str(port)})
    flags = ["--migrate", "--bind", f"127.0.0.1:{port}"]
    ended = run("manage.py", "prodserve", *flags, env=environ, cwd=shop.directory)
    assert ended.returncode == 1
    message, line, fix = complaints(ended)
    wrong = "RuntimeError: the price is wrong, listens: False"
    assert message.endswith(f"Migrating database default failed at stock.0001_initial: {wrong}")
    assert line.strip().startswith("See:  stock/migrations/0001_initial.py, line ")
    assert fix.startswith("  Fix:  ")


def test_a_migration_that_is_stopped_leaves_the_lock(shop: Shop) -> None:
    os.mkfifo(shop.gate)
    with shop.starting("--migrate", env=shop.env()) as server:
        server.wait_for("applying stock.0001_initial")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        assert "was stopped at stock.0001_initial" in server.output
    shop.gate.unlink()
    with serving("--migrate", env=shop.env(), cwd=shop.directory):
        assert shop.runs == 1


ROUTER = """
class Router:
    def allow_migrate(self, db, app_label, **hints):
        if app_label == "stock":
            return db == "warehouse"
"""


@pytest.mark.parametrize("routed", [True, False])
def test_other_databases_are_migrated_where_a_router_says_so(
    shop: Shop, tmp_path: Path, routed: bool
) -> None:
    names = ("default", "warehouse", "foreign")
    files = {name: tmp_path / f"{name}.sqlite3" for name in names}
    engine = "django.db.backends.sqlite3"
    (shop.directory / "shop" / "routers.py").write_text(ROUTER)
    site = {
        "DATABASES": {name: {"ENGINE": engine, "NAME": str(path)} for name, path in files.items()},
        "DATABASE_ROUTERS": ["shop.routers.Router"] if routed else [],
    }
    with serving("--migrate", env=shop.env(**site), cwd=shop.directory):
        tables = {name: tables_of(path) for name, path in files.items()}
    assert ("stock_item" in tables["warehouse"]) == routed
    assert ("stock_item" in tables["default"]) != routed
    assert "auth_user" in tables["default"]
    assert not tables["foreign"]


def tables_of(path: Path) -> set[str]:
    if not path.exists():
        return set()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_database_that_starts_later_is_waited_for(shop: Shop) -> None:
    with cluster() as later:
        site = {"DATABASES": {"default": later.settings("postgres")}}
        with shop.starting("--wait-for-db", "60s", "--migrate", env=shop.env(**site)) as server:
            server.wait_for(f"waiting for database default at 127.0.0.1:{later.port}: connection refused (")
            with later.running():
                is_ready(server)
                assert server.get("/").text == "hello"
                assert server.stop() == 0
    assert shop.runs == 1


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
def test_a_database_that_never_comes_ends_the_wait(shop: Shop, silent: bool) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if silent:
            nobody.listen()
        port = nobody.getsockname()[1]
        entry = {"ENGINE": "django.db.backends.postgresql", "NAME": "a", "HOST": "127.0.0.1", "PORT": port}
        site = {"DATABASES": {"default": entry}, "PRODSERVE": {"WAIT_FOR_DB": "2s"}}
        started = time.monotonic()
        command = ("manage.py", "prodserve", "--bind", "127.0.0.1:0")
        ended = run(*command, env=shop.env(**site), cwd=shop.directory)
        assert 2 <= time.monotonic() - started < PATIENCE
    assert ended.returncode == 1
    why = "no answer" if silent else "connection refused"
    assert f"Database default at 127.0.0.1:{port} did not answer: {why}" in ended.stderr
    assert "Waited 2 s (--wait-for-db)" in ended.stderr
    assert len(complaints(ended)) == 2


def test_collected_files_are_hashed_and_served(shop: Shop, tmp_path: Path) -> None:
    root = tmp_path / "static-root"
    site = {"STATIC_ROOT": str(root)}
    with serving("--collectstatic", env=shop.env(**site), cwd=shop.directory) as server:
        hashed = json.loads((root / "staticfiles.json").read_text())["paths"]["admin/css/base.css"]
        assert "static files copied to" in server.output
        assert "immutable" in server.get(f"/static/{hashed}").headers["cache-control"]
        assert hashed in server.get("/admin/login/").text


def test_collectstatic_needs_a_root(shop: Shop) -> None:
    flags = ["--collectstatic", "--bind", "127.0.0.1:0"]
    ended = run("manage.py", "prodserve", *flags, env=shop.env(), cwd=shop.directory)
    assert ended.returncode == 1
    assert "--collectstatic needs STATIC_ROOT" in ended.stderr
    assert len(complaints(ended)) == 2


READER = '''
import json, pathlib
from django.apps import AppConfig
from django.conf import settings
from django.db import connection


class Config(AppConfig):
    """As libraries for bundlers, and apps with settings in tables: they read once, while they are loaded."""

    name = "reader"
    default = True

    def ready(self):
        print("the project is loaded", flush=True)
        try:
            self.names = json.loads(pathlib.Path(settings.STATIC_ROOT, "bundle.json").read_text())
        except (OSError, TypeError):
            self.names = {}
        self.tables = connection.introspection.table_names()
'''
READ = """
from django.apps import apps
urlpatterns += [path("read/", lambda request: HttpResponse(
    "stock_item" in apps.get_app_config("reader").tables and apps.get_app_config("reader").names.get("app.js")
))]
"""


@pytest.fixture
def reading(shop: Shop, tmp_path: Path) -> Callable[[], dict[str, str]]:
    """Return what makes the environment of a shop with an app that reads while it is loaded."""
    reader, assets = shop.directory / "reader", tmp_path / "assets"
    reader.mkdir()
    (reader / "__init__.py").touch()
    (reader / "apps.py").write_text(READER)
    assets.mkdir()
    (assets / "bundle.json").write_text('{"app.js": "app-1.js"}')
    (assets / "app-1.js").write_text("run()")
    with (shop.directory / "shop" / "urls.py").open("a") as urls:
        urls.write(READ)
    shop.apps = ["reader", *shop.apps]
    root = str(tmp_path / "static-root")
    return lambda: shop.env(STATIC_ROOT=root, STATICFILES_DIRS=[str(assets)])


def edit_bundle(shop: Shop, name: str) -> None:
    """Change what is collected, such that the copy is older by more than a second."""
    folder = shop.directory.parent
    (folder / "assets" / "bundle.json").write_text(json.dumps({"app.js": name}))
    os.utime(folder / "static-root" / "bundle.json", (0, 0))


@pytest.mark.parametrize("supervisor", ["--supervisor", "--no-supervisor"])
def test_what_is_read_at_load_is_there_after_the_steps(shop: Shop, reading: Any, supervisor: str) -> None:
    flags = (supervisor, "--migrate", "--collectstatic")
    with serving(*flags, env=reading(), cwd=shop.directory) as server:
        assert server.get("/read/").text == "app-1.js"
        assert server.output.count("the project is loaded") == 2, server.output
        for once in ("loading the project again", "applying stock.0001_initial", "workers   ", " ready in "):
            assert server.output.count(once) == 1, server.output
        assert server.output.count("collect   ") == 1, server.output
        if supervisor == "--supervisor":
            edit_bundle(shop, "app-2.js")
            ended = run("-m", "django_prodserve", "reload", env=reading(), cwd=shop.directory)
            assert ended.returncode == 0, ended.stderr
            assert server.get("/read/").text == "app-2.js"
    with serving(*flags, env=reading(), cwd=shop.directory) as server:  # now there is nothing to do
        assert server.output.count("the project is loaded") == 1, server.output
        assert "loading the project again" not in server.output
    assert shop.runs == 1


def test_a_static_root_that_was_read_at_load_shows_what_we_collect(shop: Shop, reading: Any) -> None:
    with serving("--migrate", env=reading(), cwd=shop.directory) as server:
        assert server.get("/read/").text == "app-1.js"
        assert server.output.count("the project is loaded") == 2, server.output
        assert server.output.count("static    ") == 1
        assert server.get("/static/app-1.js").text == "run()"
    assert not (shop.directory.parent / "static-root").exists()


def test_a_stop_while_the_project_is_loaded_anew_is_heard(shop: Shop, reading: Any) -> None:
    """Between the two programs there is no handler: the signal waits, also for PID 1."""
    with shop.starting("--migrate", "--no-supervisor", env=reading()) as server:
        server.wait_for("loading the project again")
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM, server.output
