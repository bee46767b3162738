"""A project with what may differ between two handlers: sessions, messages, forms, files, languages."""

from __future__ import annotations

import os

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver"]
ROOT_URLCONF = "tests.asgi.urls"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("ASGI_TESTS_DATABASE", ":memory:"),
        "CONN_MAX_AGE": 60,
        "OPTIONS": {"timeout": 20},
    }
}
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
            "loaders": [
                (
                    "django.template.loaders.locmem.Loader",
                    {
                        "page.html": "{% for m in messages %}[{{ m }}]{% endfor %}{{ user }} {{ word }}",
                        "form.html": "<form>{% csrf_token %}</form>",
                        "404.html": "no {{ request.path }} for {{ user.is_authenticated }}",
                        "500.html": "sorry",
                    },
                )
            ],
        },
    }
]
LOGGING_CONFIG = None
USE_I18N = USE_TZ = True
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "German"), ("fr", "French")]
TIME_ZONE = "UTC"
FILE_UPLOAD_MAX_MEMORY_SIZE = 1000
DATA_UPLOAD_MAX_MEMORY_SIZE = 10_000
DATA_UPLOAD_MAX_NUMBER_FIELDS = 20
"""Small, so that small requests meet them."""
