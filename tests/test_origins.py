"""Threads and connections are known by the line that began them, and nobody notices the watching."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from django_prodserve.startup import origins
from django_prodserve.startup.origins import CallSites, record_for

from .test_layers import PACKAGE


@pytest.fixture
def watching() -> Iterator[CallSites]:
    before = vars(threading.Thread)["start"], vars(socket.socket).get("connect")
    made = CallSites()
    made.record()
    yield made
    made.stop()
    assert (vars(threading.Thread)["start"], vars(socket.socket).get("connect")) == before


def here(offset: int) -> str:
    """Return this file and the line ``offset`` lines above the caller's."""
    return f"tests/test_origins.py, line {sys._getframe(1).f_lineno - offset}"


def test_a_thread_is_known_by_the_line_that_started_it(watching: CallSites) -> None:
    thread = threading.Thread(target=print, args=("",), kwargs={"end": ""})
    thread.start()
    assert watching.of_thread(thread) == here(1)
    thread.join()
    assert watching.of_thread(threading.main_thread()) == ""


def test_a_pool_s_thread_is_known_by_who_handed_work_in(watching: CallSites) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: watching.of_thread(threading.current_thread())).result() == here(0)


class Odd(threading.Thread):
    """Neither hashed nor compared as others are."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("compare me not")


def test_what_cannot_be_noted_works_as_ever(watching: CallSites) -> None:
    # Threading itself keeps a set of its threads on some versions: ask what it does without us.
    outcomes = []
    for watched in (True, False):
        if not watched:
            watching.stop()
        try:
            Odd(target=print, args=("",), kwargs={"end": ""}).start()
        except Exception as error:
            outcomes.append(repr(error))
        else:
            outcomes.append("started")
    assert outcomes[0] == outcomes[1]
    started = threading.Thread(target=print, kwargs={"end": ""})
    started.start()
    with pytest.raises(RuntimeError, match="once"):
        started.start()


def test_a_connection_is_known_by_the_line_that_opened_it(watching: CallSites) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname()) as client:
            assert watching.of_socket(client.fileno()) == here(1)
            descriptor = client.fileno()
        with socket.socket() as other:  # the same descriptor, another connection
            assert other.fileno() == descriptor
            assert watching.of_socket(descriptor) == ""
        with socket.socket() as refused, pytest.raises(TypeError):
            refused.connect("no address")  # type: ignore[call-overload, unused-ignore]
    assert watching.of_socket(999) == ""


def test_who_has_wrapped_us_stays_and_nothing_more_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    watching = CallSites()
    watching.record()
    ours = threading.Thread.start
    original = watching._undo[0][2]

    def wrapped(thread: Any) -> None:
        ours(thread)

    try:
        threading.Thread.start = wrapped  # type: ignore[method-assign]
        watching.stop()
        assert vars(threading.Thread)["start"] is wrapped
        thread = threading.Thread(target=print, kwargs={"end": ""})
        thread.start()
        thread.join()
        assert watching.of_thread(thread) == ""
    finally:
        threading.Thread.start = original  # type: ignore[method-assign]


PRODUCT = """
import site, sys
sys.path[:0] = site.getsitepackages()
from django.conf import settings
from django_prodserve.startup.origins import CALL_SITES
settings.configure(INSTALLED_APPS={apps})
CALL_SITES.record()
import product
print(CALL_SITES.of_thread(product.start()))
"""


@pytest.mark.parametrize(
    ("apps", "named"),
    [
        (["django.contrib.auth", "product.apps.Product"], "product/__init__.py, line 3"),
        (["django.contrib.auth"], "exporter.py, line 4"),
    ],
)
def test_where_no_line_is_the_project_s_an_app_s_is_named_or_the_package_s(
    tmp_path: Path, apps: list[str], named: str
) -> None:
    """Run from standard input: all that is left of the project is ``__main__``, as manage.py is."""
    packages = tmp_path / "site-packages"
    (packages / "product").mkdir(parents=True)
    (packages / "product" / "__init__.py").write_text(
        "def start():\n    import exporter\n    return exporter.start()\n"
    )
    (packages / "exporter.py").write_text(
        "import threading\ndef start():\n    t = threading.Timer(0, print)\n    t.start()\n    return t\n"
    )
    code = f"import site\nsite.getsitepackages = lambda: [{str(packages)!r}]\n{PRODUCT.format(apps=apps)}"
    environ = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    ended = subprocess.run(
        [sys.executable, "-"], input=code, capture_output=True, text=True, cwd=tmp_path, env=environ
    )
    assert ended.stdout.strip() == f"site-packages/{named}", ended.stderr


@pytest.mark.parametrize(
    ("arguments", "recorded"),
    [
        (["manage.py", "prodserve"], True),
        (["manage.py", "--settings", "x", "prodserve", "check"], True),
        (["manage.py", "migrate"], False),
        (["prodserve"], False),
        ([], False),
    ],
)
def test_other_commands_are_left_alone(
    arguments: list[str], recorded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = CallSites()
    monkeypatch.setattr(origins, "CALL_SITES", made)
    record_for(arguments)
    assert made.on is recorded
    made.stop()
