"""Production settings; variables of the bench say where files lie and who serves static ones."""

import importlib.util
import os
from pathlib import Path
from urllib.parse import urlsplit

WORK = Path(os.environ["BENCH_WORK"])
STATIC = os.environ["BENCH_STATIC"]  # whitenoise, mount (a server's own) or nothing
APP = os.environ.get("BENCH_APP", "")

SECRET_KEY = "only for the bench, and long enough that no check complains about it 0123456789"
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
VIEWS = os.environ.get("BENCH_VIEWS", "")  # async, sync (the same without them), or nothing (the usual site)
WSGI_APPLICATION = "benchsite.wsgi.django" if VIEWS else "benchsite.wsgi.application"
ROOT_URLCONF = "benchsite.async_urls" if VIEWS == "async" else "benchsite.urls"
if VIEWS == "async":
    ASGI_APPLICATION = "benchsite.async_site.application"
    if importlib.util.find_spec("channels"):
        CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    *([APP] if APP else []),
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    *(["whitenoise.middleware.WhiteNoiseMiddleware"] if STATIC == "whitenoise" else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [Path(__file__).parent / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": WORK / "db.sqlite3",
        "CONN_MAX_AGE": None,
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
}
if "BENCH_DATABASE" in os.environ:  # the address of a PostgreSQL database
    found = urlsplit(os.environ["BENCH_DATABASE"])
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": found.path.lstrip("/"),
        "HOST": found.hostname or "",
        "PORT": str(found.port or ""),
        "USER": found.username or "",
        "PASSWORD": found.password or "",
        "CONN_MAX_AGE": 60,
    }
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
STATIC_URL = "static/"
STATICFILES_DIRS = [WORK / "assets"]
if STATIC:
    STATIC_ROOT = WORK / "static"
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"},
    }

# django-prodserver, as its documentation shows it.
PRODUCTION_PROCESSES = {
    "web": {
        "BACKEND": "django_prodserver.backends.servers.gunicorn.GunicornServer",
        "ARGS": {"bind": f"127.0.0.1:{os.environ.get('BENCH_PORT', '8000')}"},
    }
}
