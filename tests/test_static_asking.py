"""What the project's own objects are asked at a start, none of them can keep it from listening."""

from __future__ import annotations

import os
import threading

import pytest
from django.contrib.staticfiles.finders import BaseFinder, FileSystemFinder
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage, StaticFilesStorage
from django.template.loaders.base import Loader
from django.test.utils import override_settings
from whitenoise.storage import CompressedManifestStaticFilesStorage

from django_prodserve.staticfiles import asking, missing_names
from django_prodserve.staticfiles.asking import is_known
from tests.static_site import DEFAULT_STORAGES, a_project, ask, django

HERE = __name__
PID = os.getpid()


def hang():
    """Stand for an address that does not answer."""
    threading.Event().wait()


class HangsWhenMade(StaticFilesStorage):
    def __init__(self, *args, **kwargs):
        hang()


class HangsForItsManifest(ManifestStaticFilesStorage):
    def read_manifest(self):
        hang()


class HangsForAddresses(StaticFilesStorage):
    def url(self, name):
        hang()


class Broken(StaticFilesStorage):
    def __init__(self, *args, **kwargs):
        raise RuntimeError("no such bucket")


class Versioned(StaticFilesStorage):
    """Answers, and must not be asked in this process."""

    def url(self, name):
        assert os.getpid() != PID
        return super().url(f"{name[:-3]}.0123456789ab.js" if name.endswith(".js") else name)


class NotStrict(ManifestStaticFilesStorage):
    """A version with an attribute alone."""

    manifest_strict = False


class SilentFinder(BaseFinder):
    def list(self, ignore_patterns):
        hang()

    def find(self, path, **options):
        return []


class BrokenFinder(FileSystemFinder):
    def list(self, ignore_patterns):
        raise OSError("no such registry")


class SilentLoader(Loader):
    def __init__(self, engine):
        hang()


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setattr(asking, "ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(asking, "SILENT", set())
    with a_project(tmp_path, monkeypatch) as found:
        yield found


def storage(name):
    return {**DEFAULT_STORAGES, "staticfiles": {"BACKEND": f"{HERE}.{name}"}}


def lines(project):
    files = project.prepare()
    return files, [*dict.fromkeys((*files.warnings, *missing_names()))]


@pytest.mark.parametrize("collected", [True, False], ids=["STATIC_ROOT", "collecting"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("HangsWhenMade", "did not answer: the process took more than 1 s"),
        ("HangsForItsManifest", "did not answer: the process took more than 1 s"),
        ("HangsForAddresses", "did not answer: the process took more than 1 s"),
        ("Broken", "RuntimeError: no such bucket"),
    ],
)
def test_a_storage_that_does_not_answer_is_one_line(project, name, said, collected):
    root = project.place / "root"
    if collected:
        project.write({"site.css": "p {}", "jquery.min.js": "go()"}, below=root)
    project.write({"jquery.min.js": "go()"})
    project.settings(STATIC_ROOT=root, STORAGES=storage(name))
    files, found = lines(project)
    assert len(found) == 1, found
    assert said in found[0]
    assert f"{HERE}.{name}" in found[0] or "not collected" in files.choice.why
    assert ask(files.layer(django), "/static/jquery.min.js").headers["Cache-Control"] == "max-age=60, public"


def test_one_that_answers_is_asked_in_another_process_alone(project):
    root = project.place / "root"
    project.write({"a.js": "a", "a.0123456789ab.js": "a", "b.min.js": "b"}, below=root)
    project.settings(STATIC_ROOT=root, STORAGES=storage("Versioned"))
    files, found = lines(project)
    app = files.layer(django)
    assert not found
    assert "immutable" in ask(app, "/static/a.0123456789ab.js").headers["Cache-Control"]
    assert "immutable" not in ask(app, "/static/b.min.js").headers["Cache-Control"]


@pytest.mark.parametrize(
    ("finder", "said"),
    [("SilentFinder", "did not answer"), ("BrokenFinder", "raised OSError: no such registry")],
)
def test_a_finder_that_does_not_answer_is_left_out_with_a_line(project, finder, said):
    project.settings(
        STATICFILES_FINDERS=[f"{HERE}.{finder}", "django.contrib.staticfiles.finders.FileSystemFinder"]
    )
    files, found = lines(project)
    assert len(found) == 1
    assert f"{HERE}.{finder} (STATICFILES_FINDERS) {said}" in found[0]
    assert ask(files.layer(django), "/static/site.css").status == 200


def test_template_engines_that_do_not_answer_are_one_line(project):
    engine = {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"loaders": [("django.template.loaders.cached.Loader", [f"{HERE}.SilentLoader"])]},
    }
    with override_settings(TEMPLATES=[engine]):
        found = missing_names()
    assert len(found) == 1
    assert "TEMPLATES) did not answer" in found[0]


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        (StaticFilesStorage, True),
        (CompressedManifestStaticFilesStorage, True),
        (NotStrict, True),
        (FileSystemFinder, True),
        (Versioned, False),
        (HangsWhenMade, False),
        (SilentFinder, False),
        (print, False),
    ],
)
def test_what_adds_no_code_is_as_harmless_as_what_it_stands_on(kind, known):
    assert is_known(kind) == known
