"""An error of the project's points at its line; where no line is the project's, at a setting."""

from __future__ import annotations

import os
import sys
import types
from pathlib import Path

import pytest
from django.test import override_settings

from django_prodserve.errors import ProdserveError
from django_prodserve.utils.setting_faults import blamed
from django_prodserve.utils.tracebacks import cannot_start, during, fix_of, reason_of


def raised(code: str, filename: str) -> Exception:
    with pytest.raises(Exception) as caught:  # noqa: PT011, any error will do
        exec(compile(code, filename, "exec"), {})
    error = caught.value
    assert error.__traceback__ is not None
    return error.with_traceback(error.__traceback__.tb_next)  # without this file's own frame


def test_gunicorn_is_blamed_for_its_own_frames_only() -> None:
    import gunicorn

    theirs = os.path.join(os.path.dirname(gunicorn.__file__), "arbiter.py")
    assert (
        cannot_start(raised("raise RuntimeError('Error: no')", theirs)).message == "Gunicorn cannot start: no"
    )
    ours = cannot_start(raised("import os; os.stat('/nowhere')", "/srv/shop/hooks.py"))
    assert ours.message.startswith("The server cannot start: FileNotFoundError: ")
    assert ours.where.startswith("/srv/shop/hooks.py, line 1")


def test_what_is_told_already_is_not_told_again() -> None:
    with pytest.raises(ProdserveError, match=r"^inner: ValueError: x"), during("outer"), during("inner"):
        raise ValueError("x")


def test_the_error_at_the_bottom_is_told_too() -> None:
    code = "try:\n    1 / 0\nexcept Exception as error:\n    raise ValueError('handler') from error"
    assert reason_of(raised(code, "x.py")) == "handler (ZeroDivisionError: division by zero)"


def test_a_syntax_error_is_told_once() -> None:
    error = raised("compile('x = (', 'settings.py', 'exec')", "x.py")
    assert reason_of(error) == "'(' was never closed"


def test_the_fix_names_the_package_that_is_missing_and_its_python() -> None:
    code = "try:\n    import no_such\nexcept ImportError as error:\n    raise ValueError('odd') from error"
    assert fix_of(raised(code, "/srv/shop/a.py")) == (
        f"Install no_such for {sys.executable}, or correct the name."
    )
    missing = fix_of(raised("import os; os.environ['NO_SUCH_KEY']", "/srv/shop/a.py"))
    assert missing.startswith("Set the environment variable NO_SUCH_KEY, ")
    assert fix_of(raised("import os.nowhere", "/srv/shop/a.py")) == (
        "Correct the name: os has no module os.nowhere."
    )
    assert "Free space" in fix_of(raised("import os; os.write(os.open('/dev/full', 1), b'x')", "x.py"))
    assert "Correct that line" in fix_of(raised("1 / 0", "/srv/shop/a.py"))
    assert fix_of(raised("1 / 0", os.path.join(os.path.dirname(os.__file__), "abc.py"))) == ""


def test_the_setting_behind_a_failed_import_of_a_cause_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("conf")
    module.__file__ = str(tmp_path / "conf.py")
    (tmp_path / "conf.py").write_text("CSRF_FAILURE_VIEW = 'no_such.View'\n")
    monkeypatch.setitem(sys.modules, "conf", module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "conf")
    code = "try:\n    import no_such\nexcept ImportError as error:\n    raise ValueError('odd') from error"
    with override_settings(CSRF_FAILURE_VIEW="no_such.View"):
        told = blamed(raised(code, "x.py"), os.path.basename)
    assert told.startswith("It uses the setting CSRF_FAILURE_VIEW (conf.py, line 1: ")


def test_a_setting_is_found_behind_a_star_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base.py").write_text("X = 1\nif X:\n    MIDDLEWARE: list[str] = None\n")
    (tmp_path / "live.py").write_text("from .base import *\n")
    for name in ("base", "live"):
        module = types.ModuleType(f"conf.{name}")
        module.__file__, module.__package__ = str(tmp_path / f"{name}.py"), "conf"
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "conf.live")
    with override_settings(MIDDLEWARE=None):
        told = blamed(ValueError(), os.path.basename)
    assert (
        told
        == "MIDDLEWARE is None, but must be a list of texts (base.py, line 3: MIDDLEWARE: list[str] = None)"
    )


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("SECRET_KEY", "SECRET_KEY = 's3cr3t'", "SECRET_KEY (conf.py, line 1)"),
        (
            "EMAIL_HOST",
            "EMAIL_HOST = 'smtp://me:s3cr3t@x'",
            "EMAIL_HOST (conf.py, line 1)",
        ),
        (
            "EMAIL_PORT",
            "EMAIL_PORT = 25",
            "EMAIL_PORT (conf.py, line 1: EMAIL_PORT = 25)",
        ),
    ],
)
def test_no_secret_of_the_settings_is_shown(
    name: str, line: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("conf")
    module.__file__ = str(tmp_path / "conf.py")
    (tmp_path / "conf.py").write_text(f"{line}\n")
    monkeypatch.setitem(sys.modules, "conf", module)
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "conf")
    (tmp_path / "code.py").write_text(f"from django.conf import settings\n1 / 0, settings.{name}\n")
    error = raised((tmp_path / "code.py").read_text(), str(tmp_path / "code.py"))
    assert blamed(error, os.path.basename) == f"It uses the setting {told}"


def test_no_secret_of_a_wrong_value_is_shown() -> None:
    with override_settings(STORAGES={"default": ("s3", {"PASSWORD": "s3cr3t"})}):
        assert "s3cr3t" not in blamed(ValueError(), str)


@pytest.mark.parametrize(
    ("name", "value"),
    [("STATIC_ROOT", Path("x")), ("MIDDLEWARE", ("a",)), ("SECURE_PROXY_SSL_HEADER", ("a", "b"))],
)
def test_what_django_takes_is_no_fault(name: str, value: object) -> None:
    with override_settings(**{name: value}):
        assert blamed(ValueError(), str) == ""
