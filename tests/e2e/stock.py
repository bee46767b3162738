"""Projects from the package index, as their own commands and installation pages make them.

What is added is what anybody adds for production: DEBUG, ALLOWED_HOSTS, SECRET_KEY; and our INSTALLED_APPS
line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .needs import need_package
from .serving import environment, run

PATIENCE_MAKING = 200.0  # seconds; Wagtail's migrations alone take 17 s of CPU, where no other test runs
KEEPER = ("keeper", "a lamp that is never out")

PRODUCTION = """
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
SECRET_KEY = "0123456789 made for this test and long enough for every check"
"""
OUR_LINE = 'INSTALLED_APPS += ["django_prodserve"]\n'


@dataclass(frozen=True, kw_only=True)
class Stock:
    """A project to make: what is installed for it, and what its installation page says to write."""

    packages: tuple[str, ...] = ()
    settings: str = ""
    urls: str = ""
    login: str = "/admin/login/?next=/admin/"
    """Read before the login; ``pages`` after it."""
    pages: tuple[str, ...] = ("/admin/", "/admin/auth/user/", "/admin/auth/user/add/")
    extra: Mapping[str, str] | None = None
    """More of the environment."""


UNFOLD = """
INSTALLED_APPS = ["unfold", "unfold.contrib.filters", "unfold.contrib.forms", *INSTALLED_APPS]
"""
JAZZMIN = """
INSTALLED_APPS = ["jazzmin", *INSTALLED_APPS]
"""
GRAPPELLI = """
INSTALLED_APPS = ["grappelli", *INSTALLED_APPS]
"""
GRAPPELLI_URLS = """
from django.urls import include
urlpatterns += [path("grappelli/", include("grappelli.urls"))]
"""
TOOLBAR = """
INSTALLED_APPS += ["debug_toolbar"]
MIDDLEWARE.insert(0, "debug_toolbar.middleware.DebugToolbarMiddleware")
INTERNAL_IPS = ["127.0.0.1"]
"""
TOOLBAR_URLS = """
from debug_toolbar.toolbar import debug_toolbar_urls
urlpatterns += debug_toolbar_urls()
"""
REST = """
INSTALLED_APPS += ["rest_framework"]
"""
REST_URLS = """
from django.contrib.auth.models import Group
from django.urls import include
from rest_framework import routers, serializers, viewsets


class GroupSerializer(serializers.HyperlinkedModelSerializer):
    class Meta:
        model = Group
        fields = ["url", "name"]


class GroupViewSet(viewsets.ModelViewSet):
    queryset = Group.objects.order_by("name")
    serializer_class = GroupSerializer


router = routers.DefaultRouter()
router.register("groups", GroupViewSet)
urlpatterns += [path("api-auth/", include("rest_framework.urls")), path("api/", include(router.urls))]
"""
CMS = """
INSTALLED_APPS += ["django.contrib.sites", "cms", "menus", "treebeard", "sekizai"]
SITE_ID = 1
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English")]
MIDDLEWARE += [
    "django.middleware.locale.LocaleMiddleware",
    "cms.middleware.user.CurrentUserMiddleware",
    "cms.middleware.page.CurrentPageMiddleware",
    "cms.middleware.toolbar.ToolbarMiddleware",
    "cms.middleware.language.LanguageCookieMiddleware",
]
X_FRAME_OPTIONS = "SAMEORIGIN"
TEMPLATES[0]["DIRS"] = [BASE_DIR / "templates"]
TEMPLATES[0]["OPTIONS"]["context_processors"] += [
    "django.template.context_processors.i18n",
    "sekizai.context_processors.sekizai",
    "cms.context_processors.cms_settings",
]
CMS_CONFIRM_VERSION4 = True
CMS_TEMPLATES = [("page.html", "Page")]
"""
CMS_URLS = """
from django.urls import include
urlpatterns += [path("", include("cms.urls"))]
"""

STOCK = {
    "startproject": Stock(),
    "wagtail": Stock(
        packages=("wagtail",),
        pages=("/", "/admin/", "/admin/pages/", "/admin/pages/3/edit/", "/admin/images/", "/django-admin/"),
        extra={"DJANGO_SETTINGS_MODULE": "stock.settings.production"},
    ),
    "unfold": Stock(packages=("unfold",), settings=UNFOLD),
    "jazzmin": Stock(packages=("jazzmin",), settings=JAZZMIN),
    "grappelli": Stock(packages=("grappelli",), settings=GRAPPELLI, urls=GRAPPELLI_URLS),
    "debug-toolbar": Stock(packages=("debug_toolbar",), settings=TOOLBAR, urls=TOOLBAR_URLS),
    "rest-framework": Stock(
        packages=("rest_framework",),
        settings=REST,
        urls=REST_URLS,
        login="/api-auth/login/?next=/api/",
        pages=("/api/", "/api/groups/"),
    ),
    "django-cms": Stock(
        packages=("cms",),
        settings=CMS,
        urls=CMS_URLS,
        pages=("/", "/admin/", "/admin/cms/pagecontent/"),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A project that was made, with its database and a keeper."""

    stock: Stock
    directory: Path
    env: dict[str, str]


def make(name: str, directory: Path) -> Made:
    """Make the project of this name in a directory, or skip where its packages are not installed."""
    stock = STOCK[name]
    need_package(*stock.packages)
    env = environment(directory, stock.extra)
    (_make_wagtail if name == "wagtail" else _make_plain)(directory, stock, env)
    if name == "django-cms":
        (directory / "templates").mkdir()
        template = "{% load cms_tags sekizai_tags %}<html><head>{% render_block 'css' %}</head>"
        template += "<body>{% cms_toolbar %}{% render_block 'js' %}</body></html>"
        (directory / "templates" / "page.html").write_text(template)
    manage(directory, env, "migrate", "--verbosity", "0")
    username, password = KEEPER
    keeper = {"DJANGO_SUPERUSER_PASSWORD": password}
    who = ("--username", username, "--email", "keeper@example.com")
    manage(directory, env | keeper, "createsuperuser", "--noinput", *who)
    return Made(stock=stock, directory=directory, env=env)


def _make_plain(directory: Path, stock: Stock, env: Mapping[str, str]) -> None:
    manage(directory, env, "startproject", "stock", ".", command=("-m", "django"))
    with (directory / "stock" / "settings.py").open("a") as file:
        file.write(stock.settings + PRODUCTION + OUR_LINE)
    with (directory / "stock" / "urls.py").open("a") as file:
        file.write(stock.urls)


def _make_wagtail(directory: Path, stock: Stock, env: Mapping[str, str]) -> None:
    start = "from wagtail.bin.wagtail import main; main()"
    manage(directory, env, "start", "stock", ".", command=("-c", start))
    settings = directory / "stock" / "settings"
    # local.py is where wagtail's production.py looks for what is not in the repository.
    (settings / "local.py").write_text(PRODUCTION.replace("DEBUG = False\n", ""))
    with (settings / "base.py").open("a") as file:
        file.write(OUR_LINE)


def manage(directory: Path, env: Mapping[str, str], *arguments: str, command: tuple[str, ...] = ()) -> str:
    """Run a command of the project, and return what it printed."""
    words = (*(command or ("manage.py",)), *arguments)
    done = run(*words, env=env, cwd=directory, patience=PATIENCE_MAKING)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
