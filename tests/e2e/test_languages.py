"""A site in five languages: each page is byte for byte what plain Gunicorn answers."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import pytest

from .serving import Server, environment, serving

pytestmark = pytest.mark.slow

LANGUAGES = ("de", "fr", "ja", "ar", "pt-br")
MANAGE = """
import os, sys
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
SETTINGS = """
import os
SECRET_KEY = "0123456789 made for this test and long enough for every check"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF, WSGI_APPLICATION = "site_urls", "site_wsgi.application"
INSTALLED_APPS = ["django_prodserve"]
if os.environ["SITE_APPS"] == "contrib":  # apps that have translations of their own
    INSTALLED_APPS += [f"django.contrib.{name}" for name in ("auth", "contenttypes", "humanize", "sessions")]
MIDDLEWARE = ["django.middleware.locale.LocaleMiddleware", "django.middleware.common.CommonMiddleware"]
LANGUAGE_CODE, TIME_ZONE, USE_TZ = "en", "Europe/Berlin", True
LANGUAGES = [(name, name) for name in ("en", "de", "fr", "ja", "ar", "pt-br")]
STATIC_URL = "static/"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]
"""
URLS = '''
import asyncio, datetime
from asgiref.sync import sync_to_async
from django import forms
from django.apps import apps
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.http import HttpResponse
from django.template import engines
from django.urls import path, reverse
from django.utils import timezone, translation
from django.utils.translation import gettext_lazy, ngettext, pgettext

LIBRARIES = "{% load humanize %}" if apps.is_installed("django.contrib.humanize") else ""
FILTERS = "{{ number|intcomma }} {{ number|intword }} {{ 3|ordinal }}" if LIBRARIES else ""
PAGE = "{% load i18n l10n tz %}" + LIBRARIES + """
{% get_current_language as code %}{% get_language_info for code as info %}
{{ code }} {{ info.name_local }} {{ info.bidi }} {{ settings_module }}
{{ form.as_p }} {{ day|date:"DATE_FORMAT" }} {{ day|date:"l j F Y, H:i" }} {{ day|timesince:later }}
{% for number in numbers %}{{ number }} {% endfor %}{{ yes|yesno }} {{ 12345678|filesizeformat }} {{ lazy }}
{% translate "Monday" %} {% timezone "Asia/Tokyo" %}{{ day }}{% endtimezone %} {{ link }} FILTERS
"""

class Form(forms.Form):
    name = forms.CharField()
    mail = forms.EmailField()
    age = forms.IntegerField(min_value=18)
    born = forms.DateField(widget=forms.SelectDateWidget(years=[2000]))
    kind = forms.ChoiceField(choices=[("a", gettext_lazy("Yes"))])

def rendered(request):
    born = {"born_year": "2000", "born_month": "2", "born_day": "31"}
    form = Form({"mail": "none", "age": "3", "kind": "b", **born})
    form.is_valid()
    day = datetime.datetime(2026, 3, 2, 20, 15, tzinfo=datetime.timezone.utc)
    context = {
        "form": form, "day": day, "later": day + datetime.timedelta(days=3, hours=5), "yes": True,
        "numbers": [each * 1234.5 for each in range(40)], "number": 1234567.5,
        "lazy": gettext_lazy("Tuesday"), "link": reverse("inner"), "settings_module": settings.__module__,
    }
    page = engines["django"].from_string(PAGE.replace("FILTERS", FILTERS)).render(context, request)
    return HttpResponse(page + repr([type(settings).__name__, timezone.get_current_timezone_name()]))

async def in_a_loop(request):
    before = translation.get_language()
    await asyncio.sleep(0)
    answer = await sync_to_async(rendered)(request)
    with translation.override("fr"):
        await asyncio.sleep(0)
        inside = translation.gettext("Yes"), await sync_to_async(translation.get_language)()
    return HttpResponse(answer.content + repr([before, inside, translation.get_language()]).encode())

def broken(request):
    translation.activate("ja")
    raise RuntimeError("the view broke")

urlpatterns = [path("", rendered), path("async/", in_a_loop), path("broken/", broken)]
urlpatterns += i18n_patterns(
    path("in/", rendered, name="inner"),
    path(gettext_lazy("Monday"), in_a_loop),
)
'''
WSGI = """
import os
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")
from django.core.wsgi import get_wsgi_application
application = get_wsgi_application()
"""
WAYS: list[dict[str, str]] = [
    {},
    {"Cookie": "django_language=fr"},
    *({"Accept-Language": f"{code},en;q=0.3"} for code in LANGUAGES),
]
ASKED = [
    *product(("/", "/async/", "/in/"), WAYS),
    *(
        (path, {})
        for path in ("/missing/", "/broken/", "/de/Montag", *(f"/{code}/in/" for code in LANGUAGES))
    ),
]
"""Pages, and the ways to ask for a language."""

Answers = list[tuple[int, str, str, bytes]]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    files = {"manage": MANAGE, "site_settings": SETTINGS, "site_urls": URLS, "site_wsgi": WSGI}
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def answers(server: Server) -> Answers:
    """Ask for everything, four at a time, so that threads work in several languages side by side."""

    def ask(asked: tuple[str, Mapping[str, str]]) -> tuple[int, str, str, bytes]:
        seen = server.get(asked[0], headers=asked[1])
        language, place = (seen.headers.get(name, "") for name in ("content-language", "location"))
        return seen.status, language, place, seen.body

    with ThreadPoolExecutor(4) as pool:
        return [*pool.map(ask, ASKED)]


def under_gunicorn(site: Path, env: Mapping[str, str]) -> Answers:
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        number = listener.fileno()
        flags = ("--worker-class", "gthread", "--threads", "4", "--no-control-socket")
        with serving(
            *flags,
            "site_wsgi",
            env=env,
            cwd=site,
            command=("-m", "gunicorn"),
            bind=("--bind", f"fd://{number}"),
            pass_fds=[number],
            address=f"http://127.0.0.1:{listener.getsockname()[1]}",
        ) as server:
            return answers(server)


@pytest.mark.parametrize("apps", ["contrib", "none"])
def test_five_languages(site: Path, apps: str) -> None:
    env = environment(site, {"SITE_APPS": apps})
    wanted = under_gunicorn(site, env)
    pages = dict(zip([(path, *headers.values()) for path, headers in ASKED], wanted, strict=True))
    assert "Ce champ est obligatoire." in pages["/", "django_language=fr"][3].decode()
    assert "2. März 2026" in pages["/async/", "de,en;q=0.3"][3].decode()
    statuses = [pages[(path,)][0] for path in ("/de/Montag", "/ja/in/", "/async/", "/broken/", "/missing/")]
    assert statuses == [200, 200, 200, 500, 404]
    for flags in (["--preload"], ["--no-preload", "--speedups", "on" if apps == "none" else "off"]):
        with serving(*flags, "--workers", "1", "--threads", "4", env=env, cwd=site) as server:
            found = answers(server)
        for asked, before, now in zip(ASKED, wanted, found, strict=True):
            assert now == before, (flags, asked)
