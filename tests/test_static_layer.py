"""What a client gets for a static file, by the letter of RFC 9110 and of Django's SecurityMiddleware."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import subprocess
import sys
import time
import timeit
from pathlib import Path

import brotli
import pytest
from django.core.handlers.wsgi import WSGIHandler
from django.middleware.security import SecurityMiddleware
from django.templatetags.static import static
from whitenoise import WhiteNoise

from tests.static_site import FILES, STYLE, a_project, ask, django

SECURITY = "django.middleware.security.SecurityMiddleware"
PLAIN = "/static/site.css"


class OwnSecurityMiddleware(SecurityMiddleware):
    """A project's own version, which does the same."""


@pytest.fixture
def project(tmp_path, monkeypatch):
    with a_project(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def app(project):
    return project.prepare().layer(django)


def test_other_paths_reach_django(app):
    for path in ("/", "/static/", "/static/nowhere.css", "/static/../static/site.css", "/static/é", ""):
        assert ask(app, path).body == b"django"


@pytest.mark.parametrize(
    ("accepted", "encoding"),
    [
        pytest.param("gzip, deflate, br, zstd", "br", id="a browser"),
        pytest.param("gzip", "gzip", id="an older client"),
        pytest.param("", None, id="no wish"),
        pytest.param("br;q=0, gzip;q=1.0", "gzip", id="br refused"),
        pytest.param("br;q=0.0,gzip; q=0", None, id="both refused"),
        pytest.param("gzip;q=0.5", "gzip", id="a low wish is a wish"),
        pytest.param("identity;q=1, *;q=0", None, id="Chrome asking for media"),
    ],
)
def test_encodings(app, accepted, encoding):
    answer = ask(app, PLAIN, HTTP_ACCEPT_ENCODING=accepted)
    assert answer.headers.get("Content-Encoding") == encoding
    assert answer.headers["Vary"] == "Accept-Encoding"
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    unpack = {"br": brotli.decompress, "gzip": gzip.decompress, None: bytes}[encoding]
    assert unpack(answer.body) == STYLE.encode()


def test_a_hashed_name_is_kept_for_a_year_and_a_plain_one_for_a_minute(app):
    hashed = ask(app, static("app.js")).headers
    assert hashed["Cache-Control"] == "max-age=31536000, public, immutable"
    assert ask(app, "/static/app.js").headers["Cache-Control"] == "max-age=60, public"
    assert hashed["X-Content-Type-Options"] == "nosniff"


def test_a_hashed_style_refers_to_hashed_images(app):
    style = ask(app, static("site.css")).body.decode()
    drawing = static("img/dot.svg").removeprefix("/static/")
    assert drawing in style
    assert ask(app, f"/static/{drawing}").body.decode() == FILES["img/dot.svg"]


def test_head_has_the_length_and_no_body(app):
    answer = ask(app, PLAIN, "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["Content-Length"] == str(len(STYLE))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_other_methods_are_refused(app, method):
    answer = ask(app, PLAIN, method)
    assert (answer.status, answer.headers["Allow"], answer.body) == (405, "GET, HEAD", b"")
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


class TestUnchanged:
    @pytest.mark.parametrize("tag", ["{}", "W/{}", '"other", {}', "*"])
    def test_a_known_tag(self, app, tag):
        etag = ask(app, PLAIN).headers["ETag"]
        answer = ask(app, PLAIN, HTTP_IF_NONE_MATCH=tag.format(etag))
        assert (answer.status, answer.body) == (304, b"")
        assert answer.headers["ETag"] == etag
        assert answer.headers["Cache-Control"] == "max-age=60, public"

    def test_a_known_date(self, app):
        date = ask(app, PLAIN).headers["Last-Modified"]
        assert ask(app, PLAIN, HTTP_IF_MODIFIED_SINCE=date).status == 304
        assert ask(app, PLAIN, HTTP_IF_MODIFIED_SINCE="Sat, 01 Jan 2000 00:00:00 GMT").status == 200
        assert ask(app, PLAIN, HTTP_IF_MODIFIED_SINCE="nonsense").status == 200

    def test_an_unknown_tag_wins_over_a_known_date(self, app):
        date = ask(app, PLAIN).headers["Last-Modified"]
        assert ask(app, PLAIN, HTTP_IF_NONE_MATCH='"x"', HTTP_IF_MODIFIED_SINCE=date).status == 200


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "part"),
        [
            pytest.param("bytes=0-0", STYLE[0:1], id="the first byte alone"),
            pytest.param("bytes=5-9", STYLE[5:10], id="the middle"),
            pytest.param("bytes=1630-", STYLE[1630:], id="open end"),
            pytest.param("bytes=-5", STYLE[-5:], id="the last five"),
            pytest.param("bytes=-999999", STYLE, id="more than all from the end"),
            pytest.param("bytes=1600-999999999999999999", STYLE[1600:], id="beyond the end"),
            pytest.param(f"bytes={len(STYLE) - 1}-{len(STYLE) - 1}", STYLE[-1], id="the last byte alone"),
        ],
    )
    def test_a_part(self, app, wanted, part):
        answer = ask(app, PLAIN, HTTP_RANGE=wanted)
        assert (answer.status, answer.body.decode()) == (206, part)
        start = len(STYLE) - len(part) if wanted.startswith("bytes=-") else int(wanted[6:].split("-")[0])
        assert answer.headers["Content-Range"] == f"bytes {start}-{start + len(part) - 1}/{len(STYLE)}"
        assert answer.headers["Content-Length"] == str(len(part))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    @pytest.mark.parametrize("wanted", ["bytes=999999-", f"bytes={len(STYLE)}-", "bytes=9-5", "bytes=-0"])
    def test_nothing_of_the_file(self, app, wanted):
        answer = ask(app, PLAIN, HTTP_RANGE=wanted)
        assert (answer.line, answer.body) == ("416 Range Not Satisfiable", b"")
        assert answer.headers["Content-Range"] == f"bytes */{len(STYLE)}"

    @pytest.mark.parametrize(
        "wanted",
        [
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=-",
            "bytes=a-b",
            "bytes=--5",
            "bytes=1_0-2_0",
            "bytes=" + "9" * 5000 + "-",
        ],
    )
    def test_what_is_no_single_range_gets_the_whole_file(self, app, wanted):
        answer = ask(app, PLAIN, HTTP_RANGE=wanted)
        assert (answer.status, len(answer.body)) == (200, len(STYLE))

    def test_only_get_has_ranges(self, app):
        answer = ask(app, PLAIN, "HEAD", HTTP_RANGE="bytes=0-0")
        assert (answer.status, answer.headers["Content-Length"]) == (200, str(len(STYLE)))

    def test_a_range_of_an_empty_file(self, project):
        project.write({"empty.txt": ""})
        app = project.prepare().layer(django)
        assert ask(app, "/static/empty.txt", HTTP_RANGE="bytes=0-0").status == 416
        assert ask(app, "/static/empty.txt").status == 200

    def test_a_range_of_the_compressed_file(self, app):
        whole = ask(app, PLAIN, HTTP_ACCEPT_ENCODING="br").body
        answer = ask(app, PLAIN, HTTP_ACCEPT_ENCODING="br", HTTP_RANGE="bytes=2-5")
        assert (answer.body, answer.headers["Content-Encoding"]) == (whole[2:6], "br")

    def test_a_resumed_download_of_another_version_starts_again(self, app):
        known = ask(app, PLAIN).headers
        for condition, status in [(known["ETag"], 206), (known["Last-Modified"], 206), ('"x"', 200)]:
            assert ask(app, PLAIN, HTTP_RANGE="bytes=5-", HTTP_IF_RANGE=condition).status == status


def test_a_file_that_vanished_is_djangos_404(project):
    files = project.prepare()
    Path(files.directory, "photo.png").unlink()
    assert ask(files.layer(django), "/static/photo.png").body == b"django"


def test_names_outside_ascii(project):
    project.write({"naïve/ü b.txt": "text"})
    app = project.prepare().layer(django)
    assert ask(app, "/static/naïve/ü b.txt".encode().decode("latin-1")).body == b"text"


class TestSecurity:
    """What SecurityMiddleware does to the pages is done to the files."""

    def site(self, project, **changes):
        middleware = {"MIDDLEWARE": [SECURITY], "ALLOWED_HOSTS": ["localhost"], "ROOT_URLCONF": "tests.urls"}
        project.settings(**{**middleware, **changes})
        return project.prepare().layer(WSGIHandler())

    @pytest.mark.parametrize("middleware", [SECURITY, f"{__name__}.OwnSecurityMiddleware"])
    def test_headers_are_those_of_a_page(self, project, middleware):
        app = self.site(
            project,
            MIDDLEWARE=[middleware],
            SECURE_HSTS_SECONDS=60,
            SECURE_HSTS_INCLUDE_SUBDOMAINS=True,
            SECURE_HSTS_PRELOAD=True,
            SECURE_REFERRER_POLICY="origin, no-referrer",
        )
        secure = {"wsgi.url_scheme": "https"}
        page, file = ask(app, "/nowhere", **secure).headers, ask(app, PLAIN, **secure).headers
        for name in (
            "X-Content-Type-Options",
            "Referrer-Policy",
            "Cross-Origin-Opener-Policy",
            "Strict-Transport-Security",
        ):
            assert file[name] == page[name], name
        assert "Strict-Transport-Security" not in ask(app, PLAIN).headers

    def test_headers_that_are_switched_off_are_off(self, project):
        app = self.site(
            project,
            SECURE_CONTENT_TYPE_NOSNIFF=False,
            SECURE_REFERRER_POLICY=None,
            SECURE_CROSS_ORIGIN_OPENER_POLICY=None,
        )
        headers = ask(app, PLAIN).headers
        assert not headers.keys() & {
            "X-Content-Type-Options",
            "Referrer-Policy",
            "Cross-Origin-Opener-Policy",
        }

    def test_a_header_of_the_projects_own_stays(self, project):
        def own(headers, path, url):
            headers["Referrer-Policy"] = "no-referrer"

        app = self.site(project, WHITENOISE_ADD_HEADERS_FUNCTION=own)
        assert ask(app, PLAIN).headers["Referrer-Policy"] == "no-referrer"

    def test_without_the_middleware_only_nosniff(self, project):
        app = self.site(project, MIDDLEWARE=[], SECURE_SSL_REDIRECT=True, SECURE_HSTS_SECONDS=60)
        answer = ask(app, PLAIN, **{"wsgi.url_scheme": "https"})
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert not answer.headers.keys() & {"Referrer-Policy", "Strict-Transport-Security"}
        assert ask(app, PLAIN).status == 200

    def test_the_redirect_is_djangos(self, project):
        app = self.site(project, SECURE_SSL_REDIRECT=True)
        answer = ask(app, PLAIN, QUERY_STRING="v=1")
        assert (answer.status, answer.headers["Location"]) == (301, f"https://localhost{PLAIN}?v=1")
        assert ask(app, PLAIN, **{"wsgi.url_scheme": "https"}).status == 200

    @pytest.mark.filterwarnings("ignore")
    def test_a_forged_host_is_not_redirected_to(self, project):
        app = self.site(project, SECURE_SSL_REDIRECT=True)
        answer = ask(app, PLAIN, HTTP_HOST="evil.example")
        assert (answer.status, "Location" in answer.headers) == (400, False)

    def test_the_host_and_the_exceptions_of_the_redirect(self, project):
        app = self.site(
            project,
            SECURE_SSL_REDIRECT=True,
            SECURE_SSL_HOST="tls.example",
            SECURE_REDIRECT_EXEMPT=[r"^static/app"],
        )
        assert ask(app, PLAIN).headers["Location"] == f"https://tls.example{PLAIN}"
        assert ask(app, "/static/app.js").status == 200

    def test_the_exceptions_see_the_script_name_as_django_does(self, project):
        app = self.site(project, SECURE_SSL_REDIRECT=True, SECURE_REDIRECT_EXEMPT=[r"^below/static/app"])
        assert ask(app, "/static/app.js", SCRIPT_NAME="/below").status == 200
        assert ask(app, "/static/app.js").status == 301

    @pytest.mark.parametrize(
        ("said", "status"), [("https", 200), ("https, http", 200), ("http", 301), (None, 301)]
    )
    def test_the_proxys_word_counts_where_the_project_trusts_it(self, project, said, status):
        app = self.site(
            project, SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
        )
        environ = {} if said is None else {"HTTP_X_FORWARDED_PROTO": said}
        assert ask(app, PLAIN, **environ).status == status
        assert (ask(app, "/nowhere", **environ).status == 301) == (status == 301), "as for a page"


def test_a_real_server_sends_the_file(project):
    """Gunicorn, its sendfile, and a client that reads by Content-Length on one connection."""
    project.write({"large.bin": os.urandom(300_000)})
    script = project.place / "site_wsgi.py"
    script.write_text(
        "import django\nfrom django.conf import settings\n"
        "settings.configure(STATIC_URL='static/', ALLOWED_HOSTS=['*'], ROOT_URLCONF='tests.urls',\n"
        f"    STATICFILES_DIRS=[{str(project.source)!r}], INSTALLED_APPS=['django.contrib.staticfiles'])\n"
        "django.setup()\n"
        "from django.core.handlers.wsgi import WSGIHandler\n"
        "from django_prodserve.staticfiles import *\n"
        "application = prepare_static(choose_static()).layer(WSGIHandler())\n"
    )
    repository = str(Path(__file__).parent.parent)
    environ = {**os.environ, "PYTHONPATH": f"{repository}{os.pathsep}{project.place}"}
    command = [sys.executable, "-m", "gunicorn", "--threads", "2", "--preload", "--no-control-socket"]
    with subprocess.Popen(
        [*command, "-b", "127.0.0.1:0", "site_wsgi"], env=environ, stderr=subprocess.PIPE, text=True
    ) as server:
        try:
            line = next(line for line in server.stderr if "Listening at" in line)
            port = int(line.rsplit(":", 1)[1].split()[0].strip("/"))
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            whole = (project.source / "large.bin").read_bytes()
            for method, headers, status, body in [
                ("GET", {}, 200, whole),
                ("GET", {"Range": "bytes=0-0"}, 206, whole[:1]),
                ("GET", {"Range": "bytes=100000-299998"}, 206, whole[100_000:299_999]),
                ("HEAD", {}, 200, b""),
                ("GET", {"Range": "bytes=900000-"}, 416, b""),
                ("POST", {}, 405, b""),
                ("GET", {}, 200, whole),
            ]:
                client.request(method, "/static/large.bin", headers=headers)
                answer = client.getresponse()
                assert (answer.status, answer.read() == body) == (status, True), (method, headers)
            client.request("GET", "/nowhere")
            assert client.getresponse().status == 404
            client.close()
        finally:
            server.send_signal(signal.SIGTERM)
            server.communicate(timeout=20)


def test_a_hit_costs_no_more_than_whitenoises_own(project):
    """The promise is 2 microseconds; ten times that fails on no machine by chance."""
    files = project.prepare()
    layer = files.layer(django)
    plain = WhiteNoise(django, root=files.directory, prefix="/static/")
    environ = {"PATH_INFO": PLAIN, "REQUEST_METHOD": "GET", "HTTP_ACCEPT_ENCODING": "gzip, br"}

    def cost(answer):
        def once():
            answer(environ, lambda status, headers: None).filelike.close()

        return min(timeit.repeat(once, timer=time.thread_time, number=300, repeat=5)) / 300

    assert cost(layer) - cost(plain) < 20e-6
