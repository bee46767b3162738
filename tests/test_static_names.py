"""Every literal name in a ``{% static %}`` tag, in every template that the project can load."""

from __future__ import annotations

import site
from pathlib import Path

import pytest
from django.template.backends.base import BaseEngine

from django_prodserve.staticfiles import missing_names
from tests.static_site import a_project

DJANGO = "django.template.backends.django.DjangoTemplates"


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        yield found


def templates(project, files, **options):
    """Write templates and make them the project's."""
    place = project.place / "templates"
    project.write(files, below=place)
    project.settings(TEMPLATES=[{"BACKEND": DJANGO, "DIRS": [place], "OPTIONS": options}])
    return place


@pytest.mark.parametrize(
    ("tag", "problem"),
    [
        pytest.param("{% static 'site.css' %}", None, id="exists"),
        pytest.param("{% static '/site.css' %}", None, id="with a slash in front"),
        pytest.param("{% static 'img/dot.svg#icon' %}", None, id="with a fragment"),
        pytest.param("{% static 'img/dot.svg?v=2' %}", None, id="with a query"),
        pytest.param("{% static 'img/' %}", None, id="a directory"),
        pytest.param("{% static 'img' %}", None, id="a directory without a slash"),
        pytest.param("{% static '' %}", None, id="the address alone"),
        pytest.param("{% static name %}", None, id="a variable"),
        pytest.param("{% static 'a'|add:b %}", None, id="a filter"),
        pytest.param("{% static 'https://cdn.example/a.css' %}", None, id="another host"),
        pytest.param("{% comment %}{% static 'a.css' %}{% endcomment %}", None, id="a comment"),
        pytest.param("{# {% static 'a.css' %} #}", None, id="a short comment"),
        pytest.param("{% verbatim %}{% static 'a.css' %}{% endverbatim %}", None, id="verbatim"),
        pytest.param("<img src=\"{% static 'flags/f' %}{{ country }}.svg\">", None, id="the start of a name"),
        pytest.param("{% static 'flags/f' %}-{{ country }}.svg", None, id="the start, then text"),
        pytest.param("{% static 'f' %}{% if a %}a{% endif %}.css", None, id="the start, then a tag"),
        pytest.param(
            "{% block a %}{% static 'zz' %}{% endblock %}", "no such file", id="missing, in a block"
        ),
        pytest.param("{% static 'sit.css' %}", "no such file; did you mean 'site.css'?", id="missing"),
        pytest.param('{% static "zzz" as url %}', "no such file", id="missing, kept in a variable"),
        pytest.param('"{% static "img/dott.svg" %}"', "did you mean 'img/dot.svg'", id="missing, in quotes"),
        pytest.param("{% comment %}{% endcomment %}{% static 'zz' %}", "no such file", id="after a comment"),
    ],
)
def test_tags(project, tag, problem):
    templates(project, {"page.html": "{% load static %}\n\n" + tag})
    lines = missing_names()
    if problem is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith("templates/page.html:3: static '")
        assert problem in line


def test_the_names_are_known_after_collecting_too(project):
    project.settings(WHITENOISE_KEEP_ONLY_HASHED_FILES=True)
    templates(project, {"page.html": "{% static 'site.css' %}"})
    project.prepare()
    assert missing_names() == []


def test_a_file_that_was_not_collected_into_static_root_says_what_to_run(project):
    project.write({"app.js": "x"}, below=project.place / "root")
    project.settings(STATIC_ROOT=project.place / "root")
    templates(project, {"page.html": "{% static 'site.css' %}"})
    assert missing_names() == [
        "templates/page.html:1: static 'site.css': is not in STATIC_ROOT; run manage.py collectstatic"
    ]


def test_a_template_that_hides_another_is_the_one_that_counts(project):
    hidden = project.place / "hidden"
    project.write(
        {"page.html": "{% static 'gone.css' %}", "other.html": "{% static 'lost.css' %}"}, below=hidden
    )
    place = templates(project, {"page.html": "{% static 'site.css' %}"})
    project.settings(TEMPLATES=[{"BACKEND": DJANGO, "DIRS": [place, hidden]}])
    assert [line.split(":")[0] for line in missing_names()] == ["hidden/other.html"]


def test_templates_of_explicit_and_cached_loaders(project):
    place = project.place / "templates"
    loader = "django.template.loaders.filesystem.Loader"
    nested = [("django.template.loaders.cached.Loader", [(loader, [str(place)])])]
    templates(project, {"page.html": "{% static 'gone.css' %}"}, loaders=nested)
    project.settings(TEMPLATES=[{"BACKEND": DJANGO, "OPTIONS": {"loaders": nested}}])
    assert len(missing_names()) == 1


def test_templates_of_applications(project):
    project.settings(
        INSTALLED_APPS=[
            "django.contrib.staticfiles",
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.admin",
            "django.contrib.messages",
            "django.contrib.sessions",
        ],
        TEMPLATES=[{"BACKEND": DJANGO, "APP_DIRS": True}],
        STATICFILES_FINDERS=["django.contrib.staticfiles.finders.FileSystemFinder"],
    )
    lines = missing_names(third_party=True)
    assert any("admin/base.html" in line and "admin/css/base.css" in line for line in lines)
    third_party = any(Path(place) in Path(pytest.__file__).parents for place in site.getsitepackages())
    assert missing_names() == ([] if third_party else lines)


def test_files_that_are_no_text_are_passed_over(project):
    templates(project, {"logo.png": b"\x89PNG static \xff", "page.html": "no tags, but static"})
    assert missing_names() == []


def test_engines_that_cannot_be_built_are_one_line(project):
    project.settings(TEMPLATES=[{"BACKEND": DJANGO, "APP_DIRS": True, "OPTIONS": {"loaders": []}}])
    (line,) = missing_names()
    assert "TEMPLATES" in line


class OtherTemplates(BaseEngine):
    """An engine for another language, such as Jinja2's."""

    def __init__(self, params):
        super().__init__({name: value for name, value in params.items() if name != "OPTIONS"})


def test_calls_in_other_languages(project):
    page = "<a>\n{{ static('gone.css') }} {{ static('site.css') }} {{ static(name) }}"
    project.write({"page.html": page}, below=project.place / "jinja2")
    project.settings(
        TEMPLATES=[{"BACKEND": f"{__name__}.OtherTemplates", "DIRS": [project.place / "jinja2"]}]
    )
    assert missing_names() == [
        "jinja2/page.html:2: static 'gone.css': no such file; did you mean 'site.css'?"
    ]
