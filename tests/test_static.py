"""What is chosen, why, and what a project then serves; every file is real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.staticfiles.storage import (
    ManifestStaticFilesStorage,
    StaticFilesStorage,
    staticfiles_storage,
)
from django.core.files.storage import Storage, storages
from django.template import Context, Engine
from django.templatetags.static import static
from django.test import override_settings
from whitenoise.middleware import WhiteNoiseMiddleware
from whitenoise.storage import CompressedManifestStaticFilesStorage

from django_prodserve.errors import ProdserveError
from django_prodserve.staticfiles import choose_static, describe, prepare_static
from tests.static_site import DEFAULT_STORAGES, a_project, ask, django

HERE = "tests.test_static"
PAGE = '{% load static %}<link href="{% static "site.css" %}">'


class OwnMiddleware(WhiteNoiseMiddleware):
    """A project's own version."""


class RemoteStorage(Storage):
    """Files somewhere else; asking it for anything would be a mistake."""

    def __init__(self):
        raise AssertionError("a remote storage must not be made")


class StrayStorage(StaticFilesStorage):
    """Writes to a place of its own, whatever the settings say."""

    def __init__(self, **options):
        super().__init__(location=os.environ["STRAY"], **options)


def staticfiles(backend, **options):
    return {**DEFAULT_STORAGES, "staticfiles": {"BACKEND": backend, "OPTIONS": options}}


MANIFEST = staticfiles("whitenoise.storage.CompressedManifestStaticFilesStorage")


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        yield found


@pytest.mark.parametrize(
    ("changes", "wishes", "mode", "because"),
    [
        pytest.param({}, {}, "collect", "STATIC_ROOT is not set", id="a fresh project"),
        pytest.param({}, {"wanted": False}, "off", "--no-static", id="not wanted"),
        pytest.param({}, {"collect": False}, "finders", "--no-private-static", id="not to be collected"),
        pytest.param({"STATIC_URL": None}, {}, "off", "STATIC_URL", id="no address"),
        pytest.param({"STATIC_URL": ""}, {}, "off", "STATIC_URL", id="an empty address"),
        pytest.param(
            {"MIDDLEWARE": [f"{HERE}.OwnMiddleware"]}, {}, "project", "OwnMiddleware", id="own middleware"
        ),
        pytest.param(
            {"MIDDLEWARE": ["whitenoise.middleware.WhiteNoiseMiddleware", "no.such.Thing"]},
            {},
            "collect",
            "STATIC_ROOT is not set",
            id="the plain middleware is wrapped all the same",
        ),
        pytest.param(
            {"STORAGES": staticfiles(f"{HERE}.RemoteStorage")},
            {},
            "project",
            "elsewhere",
            id="remote storage",
        ),
        pytest.param({"STORAGES": MANIFEST}, {}, "collect", "CompressedManifest", id="own local storage"),
        pytest.param({"STORAGES": {}}, {}, "collect", "hashed", id="STORAGES without staticfiles"),
    ],
)
def test_choice(project, changes, wishes, mode, because):
    project.settings(**changes)
    choice = choose_static(**wishes)
    assert choice.mode == mode
    assert because in choice.why
    assert not project.cache.exists(), "choosing must not write"


@pytest.mark.parametrize(
    ("files", "storages", "mode", "compressed"),
    [
        pytest.param([], DEFAULT_STORAGES, "collect", True, id="empty"),
        pytest.param([".gitkeep"], DEFAULT_STORAGES, "collect", True, id="empty for git"),
        pytest.param(["a.css"], DEFAULT_STORAGES, "root", False, id="collected"),
        pytest.param(["a.css", "staticfiles.json"], DEFAULT_STORAGES, "root", True, id="with a manifest"),
        pytest.param(["a.css", "staticfiles.json"], MANIFEST, "root", False, id="with a storage of its own"),
        pytest.param(
            ["a.css"], staticfiles(f"{HERE}.RemoteStorage"), "root", False, id="and a remote storage"
        ),
    ],
)
def test_choice_by_what_static_root_holds(project, files, storages, mode, compressed):
    root = project.place / "root"
    root.mkdir()
    for name in files:
        (root / name).write_text("{}")
    project.settings(STATIC_ROOT=root, STORAGES=storages)
    choice = choose_static()
    assert (choice.mode, choice.compressed) == (mode, compressed)
    assert choice.root == (str(root) if mode == "root" else "")


def test_a_plain_static_root_says_what_is_lost_and_how_to_gain_it(project):
    project.write({"a.css": "a"}, below=project.place / "root")
    project.settings(STATIC_ROOT=project.place / "root")
    assert "cached for a minute" in choose_static().why
    assert "Unset STATIC_ROOT" in choose_static().why


@pytest.mark.parametrize(
    ("changes", "host"),
    [
        pytest.param({"STATIC_URL": "https://cdn.example/s/"}, "cdn.example", id="a CDN"),
        pytest.param({"STATIC_URL": "//cdn.example/s/"}, "cdn.example", id="without a scheme"),
        pytest.param({"STATIC_URL": "https://shop.example/s/"}, "", id="the site itself"),
        pytest.param({"STATIC_URL": "https://a.shops.example/s/"}, "", id="a domain of the site"),
        pytest.param({"STATIC_URL": "static/"}, "", id="relative"),
        pytest.param(
            {"STATIC_URL": "https://cdn.example/s/", "STORAGES": staticfiles(f"{HERE}.RemoteStorage")},
            "",
            id="a storage that uploads",
        ),
        pytest.param(
            {"STATIC_URL": "https://cdn.example/s/", "MIDDLEWARE": [f"{HERE}.OwnMiddleware"]},
            "cdn.example",
            id="own middleware",
        ),
    ],
)
def test_another_host_has_nothing_to_fetch_where_static_root_is_empty(project, changes, host):
    project.settings(ALLOWED_HOSTS=["*", "shop.example", ".shops.example"], **changes)
    assert choose_static().elsewhere == host
    assert not choose_static(wanted=False).elsewhere
    project.write({"a.css": "a"}, below=project.place / "root")
    project.settings(STATIC_ROOT=project.place / "root")
    assert not choose_static().elsewhere


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        pytest.param({"STATIC_URL": "static/"}, "/static/", id="relative"),
        pytest.param({"STATIC_URL": "/assets/"}, "/assets/", id="absolute"),
        pytest.param({"STATIC_URL": "https://cdn.example/s/"}, "/s/", id="behind a CDN"),
        pytest.param({"STATIC_URL": "/app/s/", "FORCE_SCRIPT_NAME": "/app"}, "/s/", id="below a script name"),
        pytest.param({"WHITENOISE_STATIC_PREFIX": "/w/"}, "/w/", id="WhiteNoise's own setting"),
        pytest.param(
            {"STORAGES": staticfiles(DEFAULT_STORAGES["staticfiles"]["BACKEND"], base_url="/b/")},
            "/b/",
            id="the storage's base_url",
        ),
    ],
)
def test_files_answer_where_pages_ask_for_them(project, changes, url):
    project.settings(**changes)
    files = project.prepare()
    assert files.choice.url == url
    app = files.layer(django)
    assert ask(app, f"{url}site.css").status == 200
    asked = static("site.css").removeprefix("https://cdn.example").removeprefix("/app")
    if "WHITENOISE_STATIC_PREFIX" not in changes:
        assert "immutable" in ask(app, asked).headers["Cache-Control"]


def test_a_storage_that_cannot_be_imported_is_one_clear_error(project):
    project.settings(STORAGES=staticfiles("no_such_package.Storage"))
    with pytest.raises(ProdserveError, match="no_such_package") as caught:
        choose_static()
    assert "no_such_package.Storage" in caught.value.hint


def test_settings_that_django_refuses_are_one_clear_error(project):
    project.settings(MEDIA_URL="/static/")
    with pytest.raises(ProdserveError, match="must have different values"):
        prepare_static(choose_static())


def test_a_project_without_staticfiles_is_left_alone():
    script = (
        "import sys, django; from django.conf import settings\n"
        "settings.configure(STATIC_URL='static/', STATIC_ROOT='/nowhere'); django.setup()\n"
        "from django_prodserve.staticfiles import *\n"
        "files = prepare_static(choose_static())\n"
        "assert files.layer(print) is print and not missing_names()\n"
        "assert not [name for name in sys.modules if 'contrib.staticfiles' in name or 'whitenoise' in name]\n"
        "print(describe(files))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "django.contrib.staticfiles is not in INSTALLED_APPS\n", done.stderr


def test_pages_ask_for_hashed_names_even_if_the_storage_was_in_use_before(project):
    template = Engine(libraries={"static": "django.templatetags.static"}).from_string(PAGE)
    assert template.render(Context()) == '<link href="/static/site.css">'
    files = project.prepare()
    page = template.render(Context())
    address = page.split('"')[1]
    assert address != "/static/site.css"
    assert ask(files.layer(django), address).headers["Cache-Control"] == "max-age=31536000, public, immutable"
    files.undo()
    assert template.render(Context()) == '<link href="/static/site.css">'


def test_only_the_static_storage_is_made_anew(project):
    memory = {"BACKEND": "django.core.files.storage.InMemoryStorage"}
    project.settings(STORAGES={**DEFAULT_STORAGES, "default": memory})
    held = storages["default"]
    project.prepare()
    assert storages["default"] is held


def test_the_second_start_has_nothing_to_do(project):
    first = project.prepare()
    dates = {path: path.stat().st_mtime_ns for path in Path(first.directory).rglob("*")}
    first.undo()
    second = project.prepare()
    assert (first.collected, second.collected) == (True, False)
    assert second.directory == first.directory
    assert {path: path.stat().st_mtime_ns for path in Path(first.directory).rglob("*")} == dates
    assert (second.count, second.size) == (first.count, first.size)


def test_collecting_never_touches_static_root(project):
    root = project.place / "root"
    root.mkdir()
    project.settings(STATIC_ROOT=root)
    files = project.prepare()
    assert files.choice.mode == "collect"
    assert not list(root.iterdir())
    assert not Path(files.directory).is_relative_to(root)


def test_a_storage_of_the_project_is_kept_and_collects_privately(project):
    project.settings(STORAGES=MANIFEST)
    files = project.prepare()
    assert type(staticfiles_storage._wrapped) is CompressedManifestStaticFilesStorage
    hit = ask(files.layer(django), static("site.css"), HTTP_ACCEPT_ENCODING="gzip, br")
    assert hit.headers["Content-Encoding"] == "br"
    with pytest.raises(ValueError, match="manifest entry"):
        static("nowhere.css")


def test_a_storage_that_does_not_compress_is_kept_and_its_files_are_compressed(project):
    project.settings(STORAGES=staticfiles("django.contrib.staticfiles.storage.ManifestStaticFilesStorage"))
    files = project.prepare()
    assert type(staticfiles_storage._wrapped) is ManifestStaticFilesStorage
    assert files.encodings == {"br", "gzip"}
    app = files.layer(django)
    for accepted, wanted in {"gzip, br": "br", "gzip": "gzip"}.items():
        hit = ask(app, static("site.css"), HTTP_ACCEPT_ENCODING=accepted)
        assert hit.headers["Content-Encoding"] == wanted
        assert "immutable" in hit.headers["Cache-Control"]


def test_files_that_the_projects_storage_has_compressed_are_left_alone(project):
    project.write({"app.js.gz": "made by somebody else"})
    project.settings(STORAGES=staticfiles("django.contrib.staticfiles.storage.ManifestStaticFilesStorage"))
    directory = Path(project.prepare().directory)
    assert (directory / "app.js.gz").read_text() == "made by somebody else"
    assert not (directory / "app.js.br").exists()


def test_a_strict_storage_that_cannot_collect_gives_working_pages_and_a_line(project):
    project.write({"broken.css": "p { background: url(gone.png) }"})
    project.settings(STORAGES=MANIFEST)
    files = project.prepare()
    assert files.choice.mode == "finders"
    assert not files.choice.compressed
    assert "gone.png" in files.warnings[0]
    assert static("site.css") == "/static/site.css"
    assert ask(files.layer(django), "/static/site.css").headers["Cache-Control"] == "max-age=60, public"
    assert not project.builds(), "a failed build must leave nothing"


def test_a_storage_with_a_place_of_its_own_is_not_collected_into(project, monkeypatch):
    stray = project.place / "stray"
    monkeypatch.setenv("STRAY", str(stray))
    project.settings(STORAGES=staticfiles(f"{HERE}.StrayStorage"))
    files = project.prepare()
    assert "StrayStorage keeps its files elsewhere" in files.warnings[0]
    assert not stray.exists()
    assert ask(files.layer(django), "/static/site.css").status == 200


def test_where_nothing_can_be_written_the_sources_are_served(project, monkeypatch):
    choice = choose_static()
    blocked = project.place / "blocked"
    blocked.write_text("a file, so no directory can be below it")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # the superuser would go to /var/cache
    for name in ("XDG_CACHE_HOME", "HOME", "TMPDIR"):
        monkeypatch.setenv(name, str(blocked / name))
    again = choose_static()
    assert (again.mode, "no directory is writable" in again.why) == ("finders", True)
    files = prepare_static(choice)
    assert choice.mode == "collect"
    assert files.choice.mode == "finders"
    assert str(blocked) in files.warnings[0]
    assert "XDG_CACHE_HOME" in files.warnings[0]
    hit = ask(files.layer(django), "/static/site.css", HTTP_ACCEPT_ENCODING="br, gzip")
    assert "Content-Encoding" not in hit.headers
    assert static("site.css") == "/static/site.css"
    assert describe(files) == "4 files, 2.9 KiB, not compressed, cached for 1 min"
    files.undo()


def test_a_first_place_that_fails_is_followed_by_the_next(project, monkeypatch):
    (project.place / "file").write_text("")
    (project.place / "home").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.place / "file"))
    monkeypatch.setenv("HOME", str(project.place / "home"))
    files = project.prepare()
    assert Path(files.directory).is_relative_to(project.place / "home" / ".cache" / "django-prodserve")


class TestStaticRoot:
    """Files that the project collected itself are used as they are."""

    def filled(self, project, **files):
        root = project.place / "root"
        project.write({"site.css": "new", **files}, below=root)
        project.settings(STATIC_ROOT=root)
        return root

    def test_without_a_manifest_names_stay_plain(self, project):
        root = self.filled(project)
        files = project.prepare()
        assert static("site.css") == "/static/site.css"
        assert ask(files.layer(django), "/static/site.css").body == b"new"
        assert [path.name for path in root.iterdir()] == ["site.css"]

    def test_a_manifest_is_used(self, project):
        self.filled(
            project,
            **{
                "site.abc123.css": "new",
                "staticfiles.json": '{"version":"1.1","paths":{"site.css":"site.abc123.css"}}',
            },
        )
        files = project.prepare()
        assert static("site.css") == "/static/site.abc123.css"
        assert static("added-later.css") == "/static/added-later.css"
        assert "immutable" in ask(files.layer(django), "/static/site.abc123.css").headers["Cache-Control"]
        assert ask(files.layer(django), "/static/staticfiles.json").body == b"django", (
            "the list is not public"
        )

    @pytest.mark.parametrize(
        ("manifest", "because"),
        [
            pytest.param("not JSON", "cannot be read", id="no JSON"),
            pytest.param(
                '{"version":"1.1","paths":{"site.css":"site.gone.css"}}', "does not exist", id="stale"
            ),
            pytest.param('{"version":"1.1","paths":{}}', "empty", id="empty"),
        ],
    )
    def test_a_manifest_that_lies_is_not(self, project, manifest, because):
        self.filled(project, **{"staticfiles.json": manifest})
        files = project.prepare()
        assert because in files.warnings[0]
        assert static("site.css") == "/static/site.css"
        assert not files.choice.compressed

    def test_nor_one_that_a_later_collectstatic_left_behind(self, project):
        root = self.filled(
            project,
            **{
                "site.abc123.css": "old",
                "staticfiles.json": '{"version":"1.1","paths":{"site.css":"site.abc123.css"}}',
            },
        )
        os.utime(root / "staticfiles.json", (0, 0))
        files = project.prepare()
        assert "older than site.css" in files.warnings[0]
        assert static("site.css") == "/static/site.css"

    def test_a_strict_storage_without_its_manifest_is_told(self, project):
        self.filled(project)
        project.settings(STATIC_ROOT=project.place / "root", STORAGES=MANIFEST)
        assert "every page" in project.prepare().warnings[0]

    def test_broken_links_in_it_do_not_stop_the_start(self, project):
        root = self.filled(project)
        (root / "broken.css").symlink_to("nowhere")
        os.mkfifo(root / "pipe")
        files = project.prepare()
        assert "broken.css: left out" in files.warnings[0]
        assert files.count == 1


class TestWhiteNoiseSettings:
    """Every setting of WhiteNoise counts, and DEBUG counts for none."""

    def test_debug_changes_nothing(self, project):
        project.settings(DEBUG=True)
        files = project.prepare()
        assert not files.site.autorefresh
        assert ask(files.layer(django), "/static/site.css").headers["Cache-Control"] == "max-age=60, public"

    def test_an_explicit_autorefresh_does(self, project):
        project.settings(WHITENOISE_AUTOREFRESH=True)
        files = project.prepare()
        app = files.layer(django)
        assert ask(app, "/static/later.txt").body == b"django"
        project.write({"later.txt": "now"}, below=Path(files.directory))
        assert ask(app, "/static/later.txt").body == b"now"
        assert "WHITENOISE_AUTOREFRESH" in describe(files)

    def test_others(self, project):
        project.write({"index.html": "home", "robots.txt": "robots"}, below=project.place / "public")
        project.settings(
            WHITENOISE_ROOT=project.place / "public",
            WHITENOISE_INDEX_FILE=True,
            WHITENOISE_MAX_AGE=7,
            WHITENOISE_ALLOW_ALL_ORIGINS=False,
            WHITENOISE_MIMETYPES={".svg": "image/x-own"},
            WHITENOISE_ADD_HEADERS_FUNCTION=lambda headers, path, url: headers.add_header("X-Own", url),
        )
        app = project.prepare().layer(django)
        assert ask(app, "/").body == b"home"
        assert ask(app, "/index.html").status == 302
        assert ask(app, "/robots.txt").headers["Cache-Control"] == "max-age=7, public"
        drawing = ask(app, "/static/img/dot.svg").headers
        assert (drawing["Content-Type"], drawing["X-Own"]) == ("image/x-own", "/static/img/dot.svg")
        assert "Access-Control-Allow-Origin" not in drawing

    def test_types_beyond_whitenoises_table(self, project):
        names = ("a.ttf", "a.otf", "a.webmanifest", "a.js.map")
        project.write(dict.fromkeys(names, "{}"))
        app = project.prepare().layer(django)
        types = [ask(app, f"/static/{name}").headers["Content-Type"] for name in names]
        assert types == ["font/ttf", "font/otf", "application/manifest+json", "application/json"]

    def test_a_root_that_is_missing_is_a_line_not_a_python_warning(self, project):
        project.settings(WHITENOISE_ROOT=project.place / "nowhere")
        assert "nowhere" in project.prepare().warnings[0]

    def test_a_remote_storage_still_has_the_whitenoise_root(self, project):
        project.write({"robots.txt": "robots"}, below=project.place / "public")
        project.settings(
            STORAGES=staticfiles(f"{HERE}.RemoteStorage"), WHITENOISE_ROOT=project.place / "public"
        )
        assert ask(project.prepare().layer(django), "/robots.txt").body == b"robots"


def test_the_sources_in_place_are_what_collectstatic_would_take(project):
    project.write({".env": "SECRET", "nested/.git/config": "x"})
    files = project.prepare(collect=False)
    assert files.choice.mode == "finders"
    assert sorted(files.site.files) == [
        f"/static/{name}" for name in ("app.js", "img/dot.svg", "photo.png", "site.css")
    ]


def test_the_description(project):
    assert describe(project.prepare()) == "4 files, 2.9 KiB, br + gzip, cached for a year"
    assert describe(prepare_static(choose_static(wanted=False))) == "left to the project, as --no-static asks"


def test_the_description_without_brotli(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.css").write_text("p { margin: 0 }\n" * 100)
    script = (
        "import sys, django; from django.conf import settings\n"
        "sys.modules['brotli'] = None\n"
        "import importlib.util as util; find = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name == 'brotli' else find(name, *rest)\n"
        "settings.configure(STATIC_URL='s/', STATICFILES_DIRS=['assets'],\n"
        "                   INSTALLED_APPS=['django.contrib.staticfiles']); django.setup()\n"
        "from django_prodserve.staticfiles import *\n"
        "print(describe(prepare_static(choose_static())))"
    )
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=environ
    )
    assert done.stdout == (
        "1 file, 1.6 KiB, gzip (install django-prodserve[brotli] for br), cached for a year\n"
    ), done.stderr


@override_settings(MIDDLEWARE=[])
def test_a_clean_undo_restores_every_setting(project):
    from django.conf import settings

    before = settings.STORAGES, settings.STATIC_ROOT
    files = prepare_static(choose_static())
    assert before != (settings.STORAGES, settings.STATIC_ROOT)
    files.undo()
    assert before == (settings.STORAGES, settings.STATIC_ROOT)
    assert type(staticfiles_storage._wrapped) is object or static("site.css") == "/static/site.css"
