"""Other people's style sheets are broken; collecting them must work, say so, and change nothing by guess."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.templatetags.static import static

from django_prodserve.staticfiles.storage import link_or_copy
from tests.static_site import DEFAULT_STORAGES, a_project, ask, django


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        yield found


def collected(project, files):
    """Collect these files too; return what clients get for their hashed names, and the lines."""
    project.write(files)
    prepared = project.prepare()
    assert prepared.choice.mode == "collect", prepared.choice.why
    app = prepared.layer(django)
    for name in files:
        assert static(name) != f"/static/{name}", f"{name} has no hashed name"
    return {name: ask(app, static(name)).body for name in files}, prepared.warnings


@pytest.mark.parametrize(
    ("name", "content", "reference"),
    [
        pytest.param("a.css", "p { background: url('gone.png') }", "gone.png", id="an image"),
        pytest.param("deep/a.css", "p { background: url(../../gone.png) }", "../../gone.png", id="outside"),
        pytest.param("a.css", '@import "gone.css";', "gone.css", id="an import"),
        pytest.param("a.css", "p { }\n/*# sourceMappingURL=a.css.map */", "a.css.map", id="a source map"),
        pytest.param("a.js", "let a;\n//# sourceMappingURL=a.js.map", "a.js.map", id="a script's source map"),
        pytest.param("a.css", "p { background: url(/static/gone.png) }", "/static/gone.png", id="absolute"),
    ],
)
def test_a_reference_to_nothing_stays_and_is_told(project, name, content, reference):
    served, lines = collected(project, {name: content})
    assert reference.encode() in served[name]
    assert lines == (f"{name}: refers to {reference}, which cannot be found; left as written",)


def test_the_good_references_of_a_broken_style_are_hashed(project):
    served, _ = collected(
        project, {"a.css": "p { background: url(gone.png) } b { background: url(photo.png) }"}
    )
    assert static("photo.png").removeprefix("/static/").encode() in served["a.css"]


def test_many_broken_references_are_one_line(project):
    style = "".join(f"p {{ background: url(gone{number}.png) }}\n" for number in range(20))
    _, lines = collected(project, {"a.css": style})
    assert lines == (
        "a.css: refers to gone0.png, gone1.png, gone2.png, ..., which cannot be found; left as written",
    )


def test_a_style_in_another_encoding_is_served_as_it_is(project):
    content = "p::before { content: 'é' } b { background: url(photo.png) }".encode("latin-1")
    served, lines = collected(project, {"old.css": content, "good.css": "@import 'old.css';"})
    assert served["old.css"] == content
    assert static("old.css").removeprefix("/static/").encode() in served["good.css"]
    assert lines == ("old.css: left as it is, because it is not UTF-8",)


def test_styles_that_import_each_other_are_served_as_they_are(project):
    circle = {"one.css": '@import "two.css";', "two.css": '@import "one.css";'}
    served, lines = collected(project, circle)
    assert served == {name: content.encode() for name, content in circle.items()}
    assert len(lines) == 2
    assert "circle" in lines[0]


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("gone.css", "/static/gone.css"),
        ("../up.css", "/up.css"),
        ("img/", "/static/img/"),
        ("", "/static/"),
        ("gone.css?v=1", "/static/gone.css?v=1"),
        ("dir/gone.js#part", "/static/dir/gone.js#part"),
    ],
)
def test_an_unknown_name_keeps_its_plain_address_and_needs_no_disk(project, name, address):
    files = project.prepare()
    assert static("site.css") != "/static/site.css"
    Path(files.directory).rename(project.place / "away")
    assert static(name) == address


def test_what_follows_a_known_name_is_kept(project):
    project.prepare()
    assert static("img/dot.svg#icon") == static("img/dot.svg") + "#icon"
    assert static("img/dot.svg?#iefix") == static("img/dot.svg") + "?#iefix"


def test_a_project_that_wants_strictness_has_it(project):
    project.settings(WHITENOISE_MANIFEST_STRICT=True)
    project.prepare()
    with pytest.raises(ValueError, match="manifest entry"):
        static("gone.css")


def test_options_of_the_default_storage_are_kept(project):
    entry = {
        **DEFAULT_STORAGES["staticfiles"],
        "OPTIONS": {"base_url": "/other/", "file_permissions_mode": 0o640},
    }
    project.settings(STORAGES={**DEFAULT_STORAGES, "staticfiles": entry})
    files = project.prepare()
    assert static("site.css").startswith("/other/site.")
    assert Path(files.directory, "site.css").stat().st_mode & 0o777 == 0o640
    assert files.choice.url == "/other/"


def test_a_location_of_the_default_storage_is_its_root(project):
    root = project.place / "located"
    project.write({"only.css": "here"}, below=root)
    entry = {**DEFAULT_STORAGES["staticfiles"], "OPTIONS": {"location": str(root)}}
    project.settings(STORAGES={**DEFAULT_STORAGES, "staticfiles": entry})
    files = project.prepare()
    assert (files.choice.mode, ask(files.layer(django), "/static/only.css").body) == ("root", b"here")
    (root / "only.css").unlink()
    again = project.prepare()
    assert again.choice.mode == "collect"
    assert not list(root.iterdir())


def test_only_hashed_files_where_the_project_wants_that(project):
    project.settings(WHITENOISE_KEEP_ONLY_HASHED_FILES=True)
    files = project.prepare()
    app = files.layer(django)
    assert files.count == 4
    assert ask(app, "/static/site.css").body == b"django"
    assert ask(app, static("site.css"), HTTP_ACCEPT_ENCODING="br").headers["Content-Encoding"] == "br"


def test_equal_files_are_compressed_once(project):
    files = project.prepare()
    plain, hashed = Path(files.directory, "app.js.br"), Path(files.directory, static("app.js")[8:] + ".br")
    assert plain.stat().st_ino == hashed.stat().st_ino


def test_extensions_that_are_not_to_be_compressed_are_not(project):
    project.settings(WHITENOISE_SKIP_COMPRESS_EXTENSIONS=["js"])
    files = project.prepare()
    assert {path.suffixes[0] for path in Path(files.directory).glob("*.br")} == {".css", *_hashes(files)}


def _hashes(files):
    return {path.suffixes[0] for path in Path(files.directory).glob("site.*.css.br")}


def test_a_second_name_replaces_what_was_there(tmp_path):
    (tmp_path / "source").write_text("new")
    (tmp_path / "target").write_text("old")
    link_or_copy(str(tmp_path / "source"), str(tmp_path / "target"))
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_a_second_name_works_without_hard_links(tmp_path):
    (tmp_path / "source").write_text("new")
    other = Path(f"/dev/shm/prodserve-test-{os.getpid()}")
    try:
        link_or_copy(str(tmp_path / "source"), str(other))
        assert other.read_text() == "new"
    finally:
        other.unlink()
