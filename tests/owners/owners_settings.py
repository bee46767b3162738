"""Django's own settings for its tests on sqlite, and our runner."""

from test_sqlite import *  # noqa: F403, in Django's sdist

TEST_RUNNER = "django_runner.Runner"
