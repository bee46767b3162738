"""The smallest project that the unit tests need."""

SECRET_KEY = "tests"
ALLOWED_HOSTS = ["testserver", "localhost"]
ROOT_URLCONF = "tests.urls"
INSTALLED_APPS = ["django.contrib.staticfiles", "django_prodserve"]
DATABASES: dict[str, dict[str, str]] = {}
STATIC_URL = "static/"
USE_TZ = True
