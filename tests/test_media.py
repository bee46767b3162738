"""What a client gets for an upload: the file, its part, or nothing; never a page that acts as this site."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.errors import ProdserveError
from django_prodserve.staticfiles.media import MediaRoot, find_uploads
from tests.static_site import ask, django

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
SECURITY = "django.middleware.security.SecurityMiddleware"


@pytest.fixture
def root(tmp_path: Path, settings: Any) -> Path:
    """Return MEDIA_ROOT with a few uploads, beside a secret."""
    root = tmp_path / "media"
    (root / "books" / ".thumbs").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"secret")
    (root / "books" / "cover.png").write_bytes(PNG)
    (root / "books" / ".thumbs" / "cover.png").write_bytes(b"secret")
    (root / ".htpasswd").write_bytes(b"secret")
    (root / "empty.png").touch()
    (root / "Größe.png").write_bytes(PNG)
    (root / "a b+c%2e.png").write_bytes(PNG)
    settings.MEDIA_ROOT, settings.MEDIA_URL, settings.MIDDLEWARE = root, "/media/", []
    return root


@pytest.fixture
def app(root: Path) -> Any:
    return find_uploads(wanted=True).layer(django)


COVER = "/media/books/cover.png"


def test_a_file_comes_with_safe_headers(app: Any) -> None:
    answer = ask(app, COVER)
    assert (answer.status, answer.body) == (200, PNG)
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(PNG))
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "private, max-age=60"
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; ")
    assert policy.endswith("; sandbox allow-same-origin")  # and never allow-scripts beside it
    assert "script" not in policy
    assert "Content-Disposition" not in answer.headers


@pytest.mark.parametrize(
    ("name", "kind", "shown"),
    [
        ("a.JPG", "image/jpeg", True),
        ("a.webp", "image/webp", True),
        ("a.avif", "image/avif", True),
        ("a.mp4", "video/mp4", True),
        ("a.webm", "video/webm", True),
        ("a.mp3", "audio/mpeg", True),
        ("a.ogg", "audio/ogg", True),
        ("a.svg", "image/svg+xml", False),
        ("a.svgz", "image/svg+xml", False),
        ("a.pdf", "application/pdf", False),
        ("a.html", "application/octet-stream", False),
        ("a.png.html", "application/octet-stream", False),
        ("a.htm", "application/octet-stream", False),
        ("a.shtml", "application/octet-stream", False),
        ("a.xhtml", "application/octet-stream", False),
        ("a.xml", "application/octet-stream", False),
        ("crossdomain.xml", "application/octet-stream", False),
        ("a.js", "application/octet-stream", False),
        ("a.css", "application/octet-stream", False),
        ("a.swf", "application/octet-stream", False),
        ("a.txt", "application/octet-stream", False),
        ("a.unheard", "application/octet-stream", False),
        ("a", "application/octet-stream", False),
    ],
)
def test_what_may_hold_script_is_a_download(root: Path, app: Any, name: str, kind: str, shown: bool) -> None:
    (root / name).write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    for answer in (ask(app, f"/media/{name}"), ask(app, f"/media/{name}", HTTP_RANGE="bytes=0-9")):
        assert answer.headers["Content-Type"] == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert answer.headers.get("Content-Disposition") == (None if shown else "attachment")


def latin(text: str) -> str:
    """Return a path as a server hands it over: bytes, each as the character of its number."""
    return text.encode().decode("latin-1")


@pytest.mark.parametrize("name", ["Größe.png", "a b+c%2e.png"])
def test_names_are_bytes(app: Any, name: str) -> None:
    assert ask(app, latin(f"/media/{name}")).body == PNG


@pytest.mark.parametrize(
    "path",
    [
        "/media",
        "/media/",
        "/media/books",
        "/media/books/",
        "/media/nowhere.png",
        "/media/books/cover.png/",
        "/media/books/cover.png/x",
        "/media//books/cover.png",
        "/media/books//cover.png",
        "/media/./books/cover.png",
        "/media/../secret.png",
        "/media/books/../../secret.png",
        "/media/books/../books/cover.png",
        "/media/..",
        "/media/%2e%2e/secret.png",
        "/media/..%2fsecret.png",
        "/media/%252e%252e%252fsecret.png",
        "/media/..\\secret.png",
        "/media/books\\cover.png",
        "/media/..;/secret.png",
        "/media/\0",
        "/media/books/cover.png\0",
        "/media/books/cover.png\0.html",
        "/media/books/cover.png\n",
        "/media/\xc0\xae\xc0\xae/secret.png",  # an overlong ".."
        "/media/\uff0e\uff0e/secret.png",
        "/media/.htpasswd",
        "/media/books/.thumbs/cover.png",
        "/media/books/.",
        "/media/out.png",
        "/media/outside/secret.png",
        "/media/hidden.png",
        "/media/loop",
        "/media/dangling.png",
        "/media/pipe.png",
        "/media/" + "a" * 300,
        "/media/" + "a/" * 3000 + "a",
        "/MEDIA/books/cover.png",
        "/other/books/cover.png",
        "",
    ],
)
def test_everything_else_is_djangos(root: Path, app: Any, path: str) -> None:
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "outside").symlink_to(root.parent, target_is_directory=True)
    (root / "hidden.png").symlink_to(root / ".htpasswd")
    (root / "loop").symlink_to(root / "loop")
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    os.mkfifo(root / "pipe.png")
    before = open_files()
    absolute = "/media/" + str(root / "books" / "cover.png")
    for written in (path, absolute):
        assert ask(app, written).body == b"django"
    assert open_files() == before


def open_files() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def test_links_within_are_followed_and_the_root_may_be_one(root: Path, settings: Any) -> None:
    (root / "link.png").symlink_to(root / "books" / "cover.png")
    (root.parent / "shared").symlink_to(root, target_is_directory=True)
    settings.MEDIA_ROOT = root.parent / "shared"
    app = find_uploads(wanted=True).layer(django)
    for path in ("/media/link.png", COVER):
        assert ask(app, path).body == PNG


def test_uploads_come_and_go(root: Path, app: Any) -> None:
    new = root / "new" / "upload.png"
    assert ask(app, "/media/new/upload.png").body == b"django"
    new.parent.mkdir()
    new.write_bytes(PNG)
    first = ask(app, "/media/new/upload.png")
    assert first.body == PNG
    new.write_bytes(b"another")
    assert ask(app, "/media/new/upload.png", HTTP_IF_NONE_MATCH=first.headers["ETag"]).body == b"another"
    new.unlink()
    assert ask(app, "/media/new/upload.png").body == b"django"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused_for_files_only(app: Any, method: str) -> None:
    before = open_files()
    answer = ask(app, COVER, method)
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")
    assert ask(app, "/media/upload-here/", method).body == b"django"
    assert open_files() == before


def test_head_and_conditions(app: Any) -> None:
    before = open_files()
    whole = ask(app, COVER)
    head = ask(app, COVER, "HEAD")
    assert (head.status, head.body, head.headers) == (200, b"", whole.headers)
    for condition in (
        {"HTTP_IF_NONE_MATCH": whole.headers["ETag"]},
        {"HTTP_IF_NONE_MATCH": f'"x", W/{whole.headers["ETag"]}'},
        {"HTTP_IF_MODIFIED_SINCE": whole.headers["Last-Modified"]},
    ):
        answer = ask(app, COVER, **condition)
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == whole.headers["ETag"]
        assert answer.headers["Cache-Control"] == whole.headers["Cache-Control"]
    assert ask(app, COVER, HTTP_IF_NONE_MATCH='"x"').status == 200
    assert open_files() == before


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-0", 206, slice(0, 1)),
        ("bytes=5-9", 206, slice(5, 10)),
        ("bytes=200-", 206, slice(200, None)),
        ("bytes=-3", 206, slice(-3, None)),
        ("bytes=0-99999", 206, slice(0, None)),
        ("bytes=0-1,5-6", 200, slice(0, None)),
        ("lines=0-1", 200, slice(0, None)),
        ("bytes=a-b", 200, slice(0, None)),
        ("bytes=9-5", 416, slice(0, 0)),
        ("bytes=208-", 416, slice(0, 0)),
        ("bytes=-0", 416, slice(0, 0)),
    ],
)
def test_ranges(app: Any, wanted: str, status: int, part: slice) -> None:
    before = open_files()
    answer = ask(app, COVER, HTTP_RANGE=wanted)
    assert (answer.status, answer.body) == (status, PNG[part])
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert open_files() == before


def test_a_range_of_another_version_is_the_whole_file(app: Any) -> None:
    tag = ask(app, COVER).headers["ETag"]
    assert ask(app, COVER, HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE=tag).status == 206
    assert ask(app, COVER, HTTP_RANGE="bytes=0-1", HTTP_IF_RANGE='"old"').status == 200


def test_an_empty_file(app: Any) -> None:
    assert ask(app, "/media/empty.png").headers["Content-Length"] == "0"
    assert ask(app, "/media/empty.png", HTTP_RANGE="bytes=0-").status == 416


def test_security_middleware_is_obeyed(root: Path, settings: Any) -> None:
    settings.MIDDLEWARE = [SECURITY]
    settings.SECURE_HSTS_SECONDS, settings.SECURE_SSL_REDIRECT = 60, True
    app = find_uploads(wanted=True).layer(django)
    before = open_files()
    assert ask(app, COVER).body == b"django"  # which redirects
    assert open_files() == before
    answer = ask(app, COVER, **{"wsgi.url_scheme": "https"})
    assert answer.body == PNG
    assert answer.headers["Strict-Transport-Security"] == "max-age=60"
    assert answer.headers["Referrer-Policy"] == "same-origin"


class Elsewhere:
    """A storage that keeps its files in a bucket."""


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no root": ({"MEDIA_ROOT": ""}, "needs MEDIA_ROOT"),
    "no url": ({"MEDIA_URL": ""}, "needs MEDIA_URL"),
    "every url": ({"MEDIA_URL": "/"}, "needs MEDIA_URL"),
    "remote": ({"MEDIA_URL": "https://cdn.example/media/"}, "but MEDIA_URL is https://cdn.example/media/"),
    "remote too": ({"MEDIA_URL": "//cdn.example/media/"}, "but MEDIA_URL is //cdn.example/media/"),
    "bucket": ({"STORAGES": {"default": {"BACKEND": f"{__name__}.Elsewhere"}}}, "is Elsewhere"),
    "static is it": ({"STATIC_ROOT": "{root}"}, "contains STATIC_ROOT"),
    "static within": ({"STATIC_ROOT": "{root}/static"}, "contains STATIC_ROOT"),
    "within static": ({"STATIC_ROOT": "{root}/.."}, "contains STATIC_ROOT"),
    "the project": ({"BASE_DIR": "{root}/project"}, "it contains the project"),
    "everything": ({"MEDIA_ROOT": "/"}, "it contains "),
    "database": (
        {"DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "{root}/db.sqlite3"}}},
        "it contains a database",
    ),
}


def filled(value: Any, root: Path) -> Any:
    """Return a setting with the directory put in, at any depth."""
    if isinstance(value, dict):
        return {key: filled(part, root) for key, part in value.items()}
    return value.replace("{root}", str(root)) if isinstance(value, str) else value


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_what_cannot_be_served_or_must_not_is_refused(root: Path, settings: Any, case: str) -> None:
    changed, message = REFUSED[case]
    for name, value in filled(changed, root).items():
        setattr(settings, name, value)
    with pytest.raises(ProdserveError, match=message.replace("(", r"\(")):
        MediaRoot.from_settings()


def test_options_of_the_storage_count(root: Path, settings: Any) -> None:
    settings.MEDIA_ROOT, settings.MEDIA_URL = "", ""
    backend = "django.core.files.storage.FileSystemStorage"
    options = {"location": str(root), "base_url": "/app/uploads/"}
    settings.STORAGES = {"default": {"BACKEND": backend, "OPTIONS": options}}
    settings.FORCE_SCRIPT_NAME = "/app"
    assert MediaRoot.from_settings() == MediaRoot(url="/uploads/", root=os.path.realpath(root))


def test_nothing_is_served_unless_asked_for() -> None:
    assert find_uploads(wanted=False) is None


def test_without_proc_the_path_is_resolved(root: Path, app: Any, monkeypatch: Any) -> None:
    (root / "out.png").symlink_to(root.parent / "secret.png")

    def refuse(path: bytes) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr("os.readlink", refuse)
    assert ask(app, COVER).body == PNG
