"""What is found before the port listens, with a real command on a real project."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest

from .serving import copy_site, run, serving

COMMAND = ("manage.py", "prodserve")
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
SQLITE = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}


@pytest.mark.parametrize(
    ("site", "words"),
    [
        ({"DEBUG": True}, "prodserve.E001"),
        ({"ALLOWED_HOSTS": []}, "prodserve.E002"),
        ({"ASGI_APPLICATION": "shop.asgi.aplication"}, "Did you mean 'shop.asgi.application'?"),
        ({"SECRET_KEY": ""}, "SECRET_KEY"),
        ({"ROOT_URLCONF": "shop.nowhere"}, "shop.nowhere"),
        ({"MIDDLEWARE": [*MIDDLEWARE, "shop.nowhere.Middleware"]}, "shop.nowhere"),
    ],
)
def test_what_cannot_be_served_is_refused_before_listening(env: Any, site: Any, words: str) -> None:
    ended = run(*COMMAND, "--bind", "127.0.0.1:0", env=env(**site))
    assert ended.returncode == 1
    assert words in ended.stderr
    assert " ready in " not in ended.stdout
    assert "Traceback" not in ended.stderr


def test_debug_can_be_allowed(env: Any) -> None:
    with serving("--allow-debug", env=env(DEBUG=True)) as server:
        assert server.get("/").status == 200


def test_warnings_are_told_and_stop_nothing_unless_strict(env: Any) -> None:
    with serving(env=env(DATABASES=SQLITE)) as server:
        assert "prodserve.W001" in server.output
        assert '"transaction_mode": "IMMEDIATE"' in server.output
    ended = run(*COMMAND, "check", "--strict", "--bind", "127.0.0.1:0", env=env(DATABASES=SQLITE))
    assert ended.returncode == 1
    assert "--strict refuses to serve" in ended.stderr


def test_silenced_means_silent(env: Any) -> None:
    silenced = ["prodserve.W001", "prodserve.W008", "prodserve.W013"]
    site = {"DATABASES": SQLITE, "SILENCED_SYSTEM_CHECKS": silenced}
    ended = run(*COMMAND, "check", "--strict", "--bind", "127.0.0.1:0", env=env(**site))
    assert ended.returncode == 0, ended.stderr


def test_the_same_under_check_deploy(env: Any) -> None:
    ended = run("manage.py", "check", "--deploy", env=env(ALLOWED_HOSTS=[]))
    assert "prodserve.E002" in ended.stderr
    wrong = env(PRODSERVE={"WORKERS": "two"})
    assert "prodserve.E004" in run("manage.py", "check", "--deploy", env=wrong).stderr


def test_a_database_that_is_away_is_a_warning_within_seconds(env: Any) -> None:
    pytest.importorskip("psycopg")
    away = {"ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1", "PORT": "1", "NAME": "shop"}
    with serving(env=env(DATABASES={"default": away})) as server:
        assert "prodserve.W016" in server.output
        assert server.get("/").status == 200


def test_a_sqlite_file_is_not_made_by_asking(env: Any, tmp_path: Any) -> None:
    run(*COMMAND, "check", "--bind", "127.0.0.1:0", env=env())
    assert not (tmp_path / "db.sqlite3").exists()
    run("manage.py", "migrate", "-v0", env=env())
    assert "W008" not in run(*COMMAND, "check", "--bind", "127.0.0.1:0", env=env()).stdout


def test_local_is_the_newcomers_door(env: Any) -> None:
    fresh = {
        "DEBUG": True,
        "ALLOWED_HOSTS": [],
        "SECRET_KEY": "django-insecure-" + "x" * 50,
        "SECURE_SSL_REDIRECT": True,
        "SESSION_COOKIE_SECURE": True,
    }
    with serving("--local", env=env(**fresh)) as server:
        assert server.address.startswith("http://127.0.0.1:")
        for line in ("DEBUG = False", "ALLOWED_HOSTS = ", "SECRET_KEY = os.environ", "computed from DEBUG"):
            assert line in server.output
        assert server.get("/", headers={"Host": "localhost"}).status == 200
        missing = server.get("/nowhere/")
        assert missing.status == 404
        assert "DEBUG" not in missing.text
        login = server.get("/admin/login/")
        assert "Secure" not in login.headers["set-cookie"]
        assert re.search(r"/static/admin/css/base\.[0-9a-f]{12}\.css", login.text)
        assert "has no route" not in server.output
        assert server.stop() == 0
        timed = [line for line in server.output.splitlines() if re.search(r" [\d.]+ ms$", line)]
        assert sorted(line.rsplit(" ", 2)[0] for line in timed) == [
            "GET / 200",
            "GET /admin/login/ 200",
            "GET /nowhere/ 404",
        ]


def test_the_printed_address_is_one_that_answers(env: Any, tmp_path: Path) -> None:
    site = copy_site(tmp_path, "urlpatterns = [each for each in urlpatterns if str(each.pattern)]\n")
    with serving("--local", env=env(), cwd=site) as server:
        note = server.wait_for("note: / has no route")
        page = note.partition(f": try {server.address}")[2]
        assert server.get(page).status == 200


def test_an_address_that_django_refuses_is_said_with_the_setting(env: Any) -> None:
    site = {"ALLOWED_HOSTS": ["https://shop.example", "shop.example"]}
    with serving(env=env(**site)) as server:
        note = server.wait_for("note: http://127.0.0.1:")
        assert f"note: {server.address} answers 400 to a browser: '127.0.0.1' is not in ALLOWED_HOSTS" in note
        assert server.get("/").status == 400
        assert "ALLOWED_HOSTS holds 'https://shop.example', which no request matches" in server.output
        (warning,) = [line for line in server.output.splitlines() if "Invalid HTTP_HOST" in line]
        assert "127.0.0.1" in warning  # by this test's request, and by none of the server's own
    with serving("--trusted-proxies", "private", env=env(**site)) as server:
        assert "answers 400" not in server.output


@pytest.mark.parametrize(
    ("flags", "extra", "words"),
    [
        (["--bind", "0.0.0.0:0"], {}, "this machine only"),
        ([], {"DYNO": "web.1"}, "Heroku"),
        ([], {"PORT": "5000"}, "PORT asks for 0.0.0.0:5000"),
    ],
)
def test_local_is_refused_in_public(env: Any, flags: list[str], extra: dict[str, str], words: str) -> None:
    ended = run(*COMMAND, "--local", *flags, env=env(extra))
    assert ended.returncode == 2
    assert words in ended.stderr


def test_local_in_the_settings_counts_too(env: Any) -> None:
    ended = run(*COMMAND, "plan", "--json", env=env(DEBUG=True, PRODSERVE={"LOCAL": True}))
    assert json.loads(ended.stdout)["decisions"]["bind"]["value"] == ["127.0.0.1:8000"]


def tree(*places: Path) -> dict[str, tuple[int, int, int, int]]:
    """Return kind, inode, size and date of all that lies in these directories, and of themselves."""
    found = {}
    for place in places:
        for path in (place, *place.rglob("*")):
            facts = path.lstat()
            found[str(path)] = facts.st_mode, facts.st_ino, facts.st_size, facts.st_mtime_ns
    return found


@pytest.mark.parametrize("served_before", [False, True])
def test_check_changes_nothing(env: Any, tmp_path: Path, served_before: bool) -> None:
    """Neither the cache, nor the project and its bytecode, nor a stale socket that serving would replace."""
    site = copy_site(tmp_path)
    places = [tmp_path / name for name in ("cache", "home", "tmp", "run")]
    for place in places:
        place.mkdir()
    names = ("XDG_CACHE_HOME", "HOME", "TMPDIR")
    environ = env(dict(zip(names, map(str, places), strict=False)))
    run("manage.py", "migrate", "-v0", env=environ, cwd=site)
    if served_before:
        with serving(env=environ, cwd=site) as server:
            assert server.get("/").status == 200
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "run" / "shop.sock"))
    (site / "shop" / "fresh.py").write_text("compiled = True\n")  # nobody has imported this one
    urls = site / "shop" / "urls.py"
    urls.write_text(f"from . import fresh\n{urls.read_text()}")
    before = tree(site, *places)
    assert any("django-prodserve" in path for path in before) is served_before
    bind = ("--bind", "127.0.0.1:0", "--bind", f"unix:{tmp_path}/run/shop.sock")
    ended = run(*COMMAND, "check", *bind, "--bind", f"unix:{tmp_path}/run/new.sock", env=environ, cwd=site)
    assert ended.returncode == 0, ended.stderr
    assert "br + gzip, cached for a year" in ended.stdout
    del before[str(tmp_path / "tmp")], before[str(tmp_path / "run")]  # what came and went leaves a date
    after = tree(site, *places)
    assert {path: facts for path, facts in after.items() if facts != before.get(path)} == {
        path: after[path] for path in (str(tmp_path / "tmp"), str(tmp_path / "run"))
    }
    assert before.keys() <= after.keys()


STORES = """
import socket
from django.core.cache.backends.base import BaseCache
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage

class Remote(ManifestStaticFilesStorage):
    def read_manifest(self):
        with socket.create_connection(("127.0.0.1", {port})) as there:
            there.recv(1)

class Cache(BaseCache):
    def __init__(self, *arguments):
        Remote.read_manifest(self)
"""


@pytest.mark.slow
def test_a_storage_and_a_cache_whose_network_is_silent_keep_no_server_from_starting(
    env: Any, tmp_path: Path
) -> None:
    site = copy_site(tmp_path)
    (site / "root").mkdir()
    (site / "root" / "jquery.min.js").write_text("go()")
    settings = {
        "STORAGES": {"staticfiles": {"BACKEND": "shop.stores.Remote"}},
        "STATIC_ROOT": str(site / "root"),
        "CACHES": {"default": {"BACKEND": "shop.stores.Cache"}},
    }
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (site / "shop" / "stores.py").write_text(STORES.format(port=silent.getsockname()[1]))
        with serving(env=env(**settings), cwd=site) as server:
            for name in ("shop.stores.Remote", "shop.stores.Cache"):
                told = [line for line in server.output.splitlines() if name in line]
                assert len(told) == 1, server.output
                assert "did not answer: the process took more than 5 s" in told[0]
            assert server.get("/").status == 200
            assert server.get("/static/jquery.min.js").text == "go()"
