"""What a project does wrong while the server starts is told by its own name, file and line."""

from __future__ import annotations

from typing import Any

import pytest

from .serving import complaints, copy_site, run

MANAGE, BY_NAME = ("manage.py", "prodserve"), ("-m", "django_prodserve")
STORAGE = "STORAGES = {'staticfiles': {'BACKEND': 'shop.faulty.Mine'}}\n"
FAULTS = {
    "a header function": (
        (*MANAGE, "--no-supervisor"),
        "def headers(headers, path, url):\n    raise ValueError('no header')\n",
        "from shop.faulty import headers as WHITENOISE_ADD_HEADERS_FUNCTION\n",
        ["ValueError: no header", "shop/faulty.py, line 2: raise ValueError('no header')"],
    ),
    "an immutable file test": (
        (*BY_NAME, "--no-preload"),
        "def test(path, url):\n    return {}['key']\n",
        "from shop.faulty import test as WHITENOISE_IMMUTABLE_FILE_TEST\n",
        ["KeyError: 'key'", "shop/faulty.py, line 2: return {}['key']"],
    ),
    "a storage's module": (
        (*BY_NAME,),
        "1 / 0\n",
        STORAGE,
        ['STORAGES["staticfiles"] cannot be imported: ZeroDivisionError', "shop/faulty.py, line 1: 1 / 0"],
    ),
    "a finder that is not there": (
        (*BY_NAME, "check"),
        "",
        "STATICFILES_FINDERS = ['shop.nothing.Mine']\n",
        ["No module named 'shop.nothing'", "setting STATICFILES_FINDERS (shop/settings.py, line "],
    ),
    "a logger": (
        (*MANAGE, "--no-supervisor"),
        "from gunicorn.glogging import Logger\n"
        "class Mine(Logger):\n"
        "    def setup(self, cfg): raise RuntimeError('the logger broke')\n",
        "PRODSERVE = {'GUNICORN': {'logger_class': 'shop.faulty.Mine'}}\n",
        ["The server cannot start: RuntimeError: the logger broke", "shop/faulty.py, line 3: "],
    ),
    "a hook's module": (
        (*BY_NAME,),
        "import nothing_of_this_name\n",
        "PRODSERVE = {'GUNICORN': {'on_starting': 'shop.faulty.hook'}}\n",
        ["cannot be imported: ", "No module named 'nothing_of_this_name'", "shop/faulty.py, line 1: "],
    ),
    "a readiness check's module": (
        (*MANAGE, "--no-preload", "--readiness-checks", "shop.faulty.check"),
        "1 / 0\n",
        "",
        [
            "The check shop.faulty.check (--readiness-checks) cannot be imported",
            "shop/faulty.py, line 1: 1 / 0",
        ],
    ),
    "a middleware": (
        (*BY_NAME, "--no-preload"),
        "class Mine:\n    def __init__(self, get_response):\n        raise RuntimeError('it broke')\n",
        "MIDDLEWARE.append('shop.faulty.Mine')\n",
        ["RuntimeError: it broke", "shop/faulty.py, line 3: raise RuntimeError('it broke')"],
    ),
    "a handler of LOGGING": (
        (*BY_NAME,),
        "",
        "LOGGING = {'version': 1, 'handlers': {'file': {'class': 'shop.nothing.Handler'}}}\n",
        ["No module named 'shop.nothing'", "It uses the setting LOGGING (shop/settings.py, line "],
    ),
    "settings of wrong types": (
        (*MANAGE, "--supervisor"),
        "",
        "MIDDLEWARE = 5\n",
        ["MIDDLEWARE is 5, but must be a list of texts (shop/settings.py, line ", ": MIDDLEWARE = 5)"],
    ),
    "a part of a setting": (
        (*MANAGE, "plan"),
        "",
        "CACHES['other'] = 5\n",
        ["CACHES['other'] is 5, but must be a dictionary of dictionaries (shop/settings.py, line "],
    ),
    "a setting that Django refuses": (
        (*BY_NAME, "check"),
        "",
        "ALLOWED_HOSTS = 'x'\n",
        ["ALLOWED_HOSTS is 'x', but must be a list of texts (shop/settings.py, line "],
    ),
}

LEFT_OUT = {
    "a storage": (
        (*MANAGE, "check"),
        "from django.contrib.staticfiles.storage import StaticFilesStorage\n"
        "class Mine(StaticFilesStorage):\n"
        "    def __init__(self, **options):\n"
        "        raise RuntimeError('the storage broke')\n",
        STORAGE,
        ["RuntimeError: the storage broke", "shop/faulty.py, line 4: "],
    ),
    "a finder": (
        (*BY_NAME, "check"),
        "from django.contrib.staticfiles.finders import BaseFinder\n"
        "class Mine(BaseFinder):\n"
        "    def check(self, **options): return []\n"
        "    def list(self, ignored): raise RuntimeError('the finder broke')\n",
        "STATICFILES_FINDERS = ['shop.faulty.Mine']\n",
        ["RuntimeError: the finder broke", "shop/faulty.py, line 4: "],
    ),
}
"""Faults that Gunicorn would start with: the site serves, and a warning names each."""


def run_faulty(fault: Any, env: Any, tmp_path: Any) -> tuple[Any, list[str]]:
    """Run the command on a site with this fault; return how it ended, and the words that must be told."""
    command, module, settings, words = fault
    site = copy_site(tmp_path)
    (site / "shop" / "faulty.py").write_text(module)
    with (site / "shop" / "settings.py").open("a") as file:
        file.write("CACHES = {'default': {'BACKEND': 'django.core.cache.backends.dummy.DummyCache'}}\n")
        file.write(settings)
    return run(*command, "--bind", "127.0.0.1:0", env=env(), cwd=site), words


@pytest.mark.parametrize("fault", LEFT_OUT)
def test_what_a_site_can_serve_without_is_named_and_left_out(env: Any, tmp_path: Any, fault: str) -> None:
    ended, words = run_faulty(LEFT_OUT[fault], env, tmp_path)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    (line,) = [line for line in ended.stdout.splitlines() if words[0] in line]
    assert line.startswith("warning: ")
    assert words[1] in line


@pytest.mark.parametrize("fault", FAULTS)
def test_the_project_is_named(env: Any, tmp_path: Any, fault: str) -> None:
    ended, words = run_faulty(FAULTS[fault], env, tmp_path)
    assert ended.returncode == 1, ended.stdout
    for word in words:
        assert word in ended.stderr
    assert "Gunicorn cannot" not in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(complaints(ended)) <= 3, ended.stderr


def test_gunicorn_is_named_for_what_it_says(env: Any) -> None:
    handlers = {"version": 1, "handlers": {"file": {"class": "shop.nothing.Handler"}}}
    environ = env(PRODSERVE={"GUNICORN": {"logconfig_dict": handlers}})
    ended = run(*MANAGE, "--bind", "127.0.0.1:0", env=environ)
    assert ended.returncode == 2
    assert "PRODSERVE['GUNICORN']['logconfig_dict'] cannot be used: " in ended.stderr
    assert "Unable to configure handler 'file' (ModuleNotFoundError: No module named 'shop.nothing'" in (
        ended.stderr
    )
