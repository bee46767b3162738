"""Files that appear after the start are served; nothing else is."""

from __future__ import annotations

import os
import sys
import types

import pytest
from django.apps import AppConfig

from tests.static_site import DEFAULT_STORAGES, a_project, ask, django

MANIFEST = {
    **DEFAULT_STORAGES,
    "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        found.root = tmp_path / "root"
        found.settings(STATIC_ROOT=found.root)
        yield found


@pytest.fixture(params=["filled", "empty", "in place"])
def app(project, request):
    """The files behind a filled STATIC_ROOT, an empty one, and the sources where they lie."""
    if request.param == "filled":
        project.write({"site.css": "p {}"}, below=project.root)
    files = project.prepare(collect=request.param != "in place")
    assert files.choice.mode == {"filled": "root", "empty": "collect", "in place": "finders"}[request.param]
    return files.layer(django)


def test_a_file_that_appears_is_served_as_all_others(project, app):
    path = "/static/CACHE/css/output.0123456789ab.css"
    assert ask(app, path).body == b"django"
    project.write({"CACHE/css/output.0123456789ab.css": "b {}" * 100}, below=project.root)
    answer = ask(app, path)
    assert (answer.status, answer.body) == (200, b"b {}" * 100)
    assert answer.headers["Content-Type"] == 'text/css; charset="utf-8"'
    assert answer.headers["Cache-Control"] == "max-age=60, public"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert ask(app, path, "HEAD").headers["Content-Length"] == "400"
    assert ask(app, path, HTTP_RANGE="bytes=0-1").body == b"b "
    assert ask(app, path, HTTP_IF_NONE_MATCH=answer.headers["ETag"]).status == 304
    assert ask(app, path, "POST").status == 405
    project.write({"CACHE/css/output.0123456789ab.css.gz": "packed"}, below=project.root)
    packed = ask(app, path, HTTP_ACCEPT_ENCODING="gzip")
    assert (packed.body, packed.headers["Content-Encoding"]) == (b"packed", "gzip")
    assert ask(app, f"{path}.gz").body == b"django"


def test_it_may_be_written_again_and_taken_away(project, app):
    for text in ("one", "two and more", "3"):
        project.write({"ü/late.txt": text}, below=project.root)
        assert ask(app, "/static/ü/late.txt".encode().decode("latin-1")).body == text.encode()
    (project.root / "ü" / "late.txt").unlink()
    assert ask(app, "/static/ü/late.txt".encode().decode("latin-1")).body == b"django"


def test_nothing_else_is_opened(project, app):
    project.write({"secret.txt": "secret"}, below=project.place)
    project.write(
        {".env": "secret", "CACHE/.tmp": "secret", ".git/config": "secret", "d/a.txt": "a"},
        below=project.root,
    )
    (project.root / "link.txt").symlink_to(project.place / "secret.txt")
    (project.root / "out").symlink_to(project.place)
    os.mkfifo(project.root / "pipe")
    for name in (
        *(".env", "CACHE/.tmp", ".git/config", "link.txt", "out/secret.txt", "pipe", "d", "d/", ""),
        *(
            "../secret.txt",
            "d/../../secret.txt",
            "d//a.txt",
            "/etc/passwd",
            "d\\a.txt",
            "d/a.txt/",
            "\0",
            "./d/a.txt",
        ),
        "d/" + "x" * 5000,
    ):
        assert ask(app, f"/static/{name}").body == b"django", name
    assert ask(app, "/static/d/a.txt").body == b"a"


def test_a_link_within_is_followed(project, app):
    project.write({"v2/a.txt": "a"}, below=project.root)
    (project.root / "current").symlink_to("v2")
    assert ask(app, "/static/current/a.txt").body == b"a"


def test_a_known_file_that_is_written_again_has_its_own_length(project):
    project.write({"site.css": "p {}"}, below=project.root)
    app = project.prepare().layer(django)
    project.write({"site.css": "p { margin: 0 }"}, below=project.root)
    answer = ask(app, "/static/site.css")
    assert (answer.body, answer.headers["Content-Length"]) == (b"p { margin: 0 }", "15")
    assert ask(app, "/static/site.css", HTTP_RANGE="bytes=8-13").body == b"in: 0 "[:6]


def test_a_hashed_name_is_judged_as_whitenoise_does(project):
    project.write(
        {"site.css": "p {}", "staticfiles.json": '{"version": "1.1", "paths": {"a.css": "a.0.css"}}'},
        below=project.root,
    )
    project.settings(STORAGES=MANIFEST)
    app = project.prepare().layer(django)
    project.write({"a.0.css": "a", "b.0123456789ab.css": "b"}, below=project.root)
    assert "immutable" in ask(app, "/static/a.0.css").headers["Cache-Control"]
    assert "immutable" not in ask(app, "/static/b.0123456789ab.css").headers["Cache-Control"]


class TestCompressor:
    """What django-compressor's settings show at the start."""

    @pytest.fixture(autouse=True)
    def installed(self, project, monkeypatch):
        module = types.ModuleType("compressor")
        module.__file__ = __file__
        module.__path__ = [os.path.dirname(__file__)]
        monkeypatch.setitem(sys.modules, "compressor", module)
        module.Config = type("Config", (AppConfig,), {"name": "compressor"})
        project.settings(INSTALLED_APPS=["django.contrib.staticfiles", "compressor.Config"])

    @pytest.mark.parametrize(
        ("filled", "changes", "said"),
        [
            (True, {}, ""),
            (False, {}, "which is empty"),
            (True, {"COMPRESS_ROOT": "elsewhere"}, "only files in STATIC_ROOT are served"),
            (False, {"COMPRESS_OFFLINE": True}, ""),
            (False, {"COMPRESS_ENABLED": False}, ""),
        ],
    )
    def test_what_cannot_work_is_told(self, project, filled, changes, said):
        if filled:
            project.write({"site.css": "p {}"}, below=project.root)
        project.settings(**changes)
        found = [line for line in project.prepare().warnings if "compressor" in line]
        assert len(found) == bool(said)
        assert not said or said in found[0]
