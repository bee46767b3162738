"""Speedups: Django and asgiref mean the same as ever, for less; each time in a process of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import asgiref
import pytest

from django_prodserve.speedups import asgiref_locals
from django_prodserve.speedups.availability import speedups, why_no_immortals
from django_prodserve.utils.decision import Decision

from . import facts

PROGRAM = """
import sys, threading
import django
from django.conf import LazySettings, settings

settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, USE_I18N=True,
    ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], SECRET_KEY="tests", LANGUAGE_CODE="de",
)
django.setup()

import asgiref.local
from django.core.cache import caches, close_caches
from django.core.handlers.base import BaseHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections, reset_queries
from django_prodserve.logs.environ_keys import ROUTE
from django_prodserve.middleware import route_names
from django_prodserve.speedups import asgiref_locals
from django_prodserve.speedups.availability import speedups

urlpatterns = []

def quick():
    asgiref_locals.install()
    asgiref_locals.install_connections()
    route_names.record_route_names()
"""

Python = Callable[..., str]


@pytest.fixture
def python() -> Python:
    """Return a function that runs the program and then this, and returns what it prints."""

    def run(code: str, *path: Path) -> str:
        insert = f"import sys; sys.path[:0] = {[str(entry) for entry in path]}\n"
        command = [sys.executable, "-c", insert + PROGRAM + code]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


needs_tested_asgiref = pytest.mark.skipif(bool(asgiref_locals.why_not()), reason=asgiref_locals.why_not())


@pytest.mark.skipif(sys.version_info >= (3, 14), reason="its own tests have not run there")
def test_the_newest_asgiref_is_as_tested() -> None:
    """A release with another source costs speed until its tests have passed: python -m tests.owners."""
    newest = max(tuple(map(int, version.split("."))) for version in asgiref_locals.TESTED.values())
    if tuple(map(int, asgiref.__version__.split(".")[:2])) >= newest[:2]:
        assert asgiref_locals.why_not() == ""


def test_nothing_tells_that_it_was_here(python: Python) -> None:
    """Classes, modules, names, bases, what is in them: all that introspection sees is as before."""
    out = python("""
import copy, inspect, pickle
from django.core.files.storage import default_storage
from django.utils import timezone, translation
from django.utils.connection import BaseConnectionHandler
from django.urls import base
from django.utils.translation import trans_real

def seen(thing):
    kind = type(thing)
    special = ("__iter__", "__len__", "__contains__", "__bool__", "__bytes__", "__getitem__", "__call__")
    return (
        kind, thing.__class__, kind.__module__, kind.__qualname__, kind.__mro__, sorted(vars(kind)),
        thing.__module__, [*vars(thing)], dir(thing), repr(thing), str(thing),
        [hasattr(thing, name) for name in special],
    )

def methods(kind):
    return [
        (name, value.__module__, value.__qualname__, value.__doc__, inspect.signature(value))
        for name, value in sorted(vars(kind).items()) if inspect.isfunction(value)
    ]

def signals():
    return [([*each.receivers], each.use_caching) for each in (request_started, request_finished)]

def picture():
    things = [settings, trans_real._active, base._urlconfs, base._prefixes, timezone._active]
    things += [caches._connections, connections._connections, mine, critical]
    kinds = [LazySettings, BaseHandler, BaseConnectionHandler]
    kinds += filter(inspect.isclass, vars(asgiref.local).values())
    return [*map(seen, things)], [*map(methods, kinds)], signals()

mine, critical = asgiref.local.Local(), asgiref.local.Local(thread_critical=True)

before = picture()
quick()
quick()
now = picture()
assert now == before, (now, before)
assert pickle.loads(pickle.dumps(route_names.BaseHandler.resolve_request)) is BaseHandler.resolve_request
assert pickle.loads(pickle.dumps(asgiref.local._CVar.__getattr__)) is asgiref.local._CVar.__getattr__
assert type(copy.copy(settings)) is type(settings._wrapped)
print("the same")
""")
    assert out == "the same\n"


def test_djangos_own_translations_are_found(python: Python) -> None:
    """Django finds their directory by the module of the settings object."""
    out = python("""
quick()
from django.utils.translation import gettext
print(gettext("This field is required."), settings.__module__)
""")
    assert out == "Dieses Feld ist zwingend erforderlich. django.conf\n"


def test_settings_and_signals_are_djangos(python: Python) -> None:
    """They are not touched: as Django's own test client does, a project may mute, mock and override."""
    python("""
from unittest import mock
from django.test import override_settings
quick()
assert request_finished.disconnect(close_old_connections) and request_finished.disconnect(close_caches)
assert request_started.disconnect(reset_queries)
with override_settings(DEBUG=True, MADE_HERE=[1]), mock.patch.object(settings, "LANGUAGES", [("de", "D")]):
    assert settings.DEBUG is True and settings.MADE_HERE == [1] and settings.LANGUAGES == [("de", "D")]
assert settings.DEBUG is False and not hasattr(settings, "MADE_HERE") and len(settings.LANGUAGES) > 50
assert LazySettings.__getattribute__ is LazySettings.__mro__[1].__getattribute__
""")


CONNECTIONS = """
import asyncio
from django.core.cache import close_caches
from django.db import close_old_connections, connections, reset_queries

def scene():
    "What threads and tasks see of connections, and what the receivers around a request do with them."
    def opened():
        return [[each.alias for each in connections.all(True)], len(caches.all(initialized_only=True))]
    def run():
        seen.append([opened(), len(connections.all()), opened(), len(caches.all())])
        seen.append(opened())
        connections["default"].cursor().execute("SELECT 1")
        seen.append(connections["default"].connection is not None)
        close_old_connections()
        seen.append(connections["default"].connection is None)
        del connections["default"]
        del caches["default"]
        seen.append(opened())
        async def inside():
            before = opened()
            connections["default"], caches["default"]
            seen.append([before, opened()])
            await asyncio.sleep(0)
        asyncio.run(inside())
        seen.append(opened())
        thread = threading.Thread(target=lambda: seen.append(opened()))
        thread.start()
        thread.join()
        request_started.send(sender=None)
        request_finished.send(sender=None)
    seen = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return seen
"""


@needs_tested_asgiref
def test_connections_are_seen_and_closed_as_ever(python: Python) -> None:
    python(f"""{CONNECTIONS}
was = scene()
assert [[], 0] in was and len(was) == 8, was
quick()
now = scene()
assert now == was, (now, was)
original = asgiref_locals.originals[0]
asgiref_locals.originals[:] = [None]  # is not asked where nothing is opened
seen = []
def work():
    close_old_connections(), reset_queries(), close_caches()
    seen.append(1)
thread = threading.Thread(target=work)
thread.start()
thread.join()
assert seen == [1]
""")


def test_another_source_of_django_is_left_alone(python: Python) -> None:
    out = python("""
from django.utils.connection import BaseConnectionHandler
BaseConnectionHandler.close_all = lambda self: None
before = BaseConnectionHandler.all
quick()
print(BaseConnectionHandler.all is before, speedups().why)
""")
    assert out.startswith("True ")
    assert "connections off (" in out


def test_another_librarys_wrapper_of_the_resolver_stays(python: Python) -> None:
    """Also one that was there before ours, and says whom it wraps."""
    python("""
import functools
calls = []
def traced(original, name):
    @functools.wraps(original)
    def resolve_request(self, request):
        calls.append(name)
        return original(self, request)
    return resolve_request
BaseHandler.resolve_request = traced(BaseHandler.resolve_request, "before")
route_names.record_route_names()
BaseHandler.resolve_request = traced(BaseHandler.resolve_request, "after")
route_names.record_route_names()
from django.http import HttpResponse
from django.test import RequestFactory
from django.urls import path
urlpatterns.append(path("a/", lambda request: HttpResponse("ok"), name="there"))
request = RequestFactory().get("/a/")
from django.core.handlers.wsgi import WSGIHandler
WSGIHandler().resolve_request(request)
assert calls == ["after", "before"] and request.META[ROUTE] == "there", (calls, request.META)
""")


LOCALS = """
import asyncio
from asgiref.local import Local
from asgiref.sync import async_to_sync, sync_to_async
mine = Local()

def attempt(do, *args):
    try:
        return do(*args)
    except AttributeError:
        return "AttributeError"

def elsewhere(do, *args):
    found = []
    thread = threading.Thread(target=lambda: found.append(attempt(do, *args)))
    thread.start()
    thread.join()
    return found[0]

def locals_scene():
    "What threads, tasks and calls across them see of a Local."
    def read(name="a"):
        return getattr(mine, name)
    async def change(value):
        before = attempt(read)
        mine.a = value
        await asyncio.sleep(0)
        inside = await sync_to_async(read)()
        await sync_to_async(setattr)(mine, "b", value)
        return before, inside, attempt(read, "b")
    async def two():
        return await asyncio.gather(change("one"), change("two"))
    seen = [attempt(read), attempt(delattr, mine, "a"), getattr(mine, "a", "none")]
    mine.a = None
    seen += [read(), mine.a, hasattr(mine, "b"), elsewhere(read), elsewhere(delattr, mine, "a")]
    seen += [async_to_sync(change)("changed"), read(), read("b"), async_to_sync(two)(), read(), read("b")]
    del mine.a, mine.b
    return [*seen, attempt(read), attempt(read, "b")]
"""


@needs_tested_asgiref
def test_a_local_keeps_apart_and_shares_what_it_always_did(python: Python) -> None:
    python(f"""{LOCALS}
def scenes():
    global mine
    found = []
    for critical in (False, True):
        mine = Local(thread_critical=critical)
        try:
            found.append(locals_scene())
        except BaseException as error:
            found.append(type(error))
        for name in ("_data", "_lock", "_storage", "cvar", "__dict__", "not_there"):
            try:
                found.append(type(getattr(mine, name)))
            except AttributeError as error:
                found.append(str(error).partition(" at ")[0].partition(" object has")[0])
        try:
            mine._data = 1
        except AttributeError as error:
            found.append(str(error))
        else:
            found.append(mine._data)
    return found
was = scenes()
assert was[0][0] == was[0][-1] == "AttributeError" and (None, "changed", "changed") in was[0], was
quick()
now = scenes()
assert now == was, (now, was)
""")


@needs_tested_asgiref
def test_nobody_waits_to_read_a_local(python: Python) -> None:
    """Threads that compute would, at every read, once one of them was interrupted in another's."""
    python("""
from django.utils import translation
translation.activate("fr")
from django.utils.translation.trans_real import _active
lock = vars(_active)["_lock"]

def reader():
    thread = threading.Thread(target=translation.get_language, daemon=True)
    thread.start()
    return thread

with lock:
    waits = reader()
    waits.join(0.2)
    assert waits.is_alive()
waits.join()
quick()
with lock:
    reads = reader()
    reads.join(10)
    assert not reads.is_alive()
    translation.activate("fr")
    del _active.value
""")


CHANGES = {
    "a method's body": ("data[key] = value", "data[key] = [value]"),
    "a default": ("thread_critical: bool = False) -> None", "thread_critical: bool = True) -> None"),
    "slots": ('("thread_id", "data")', '("thread_id", "data", "more")'),
    "a base": ("class _CVar:", "class _CVar(threading.Thread().__class__):"),
    "a method more": ("class _CVar:", "class _CVar:\n    def __len__(self): return 1\n"),
    "a class less": ("_ThreadCriticalLocal", "_Critical"),
}
REMARK = ("class _CVar:", "# A remark of theirs.\n\nclass _CVar:")


@pytest.fixture
def another_asgiref(tmp_path: Path) -> Callable[[str, str], Path]:
    """Return a function that copies the library that is here with a change in its source."""

    def copied(old: str, new: str) -> Path:
        package = Path(asgiref.__file__).parent
        shutil.copytree(package, tmp_path / "asgiref", ignore=shutil.ignore_patterns("__pycache__"))
        path = tmp_path / "asgiref/local.py"
        source = path.read_text()
        assert old in source
        path.write_text(source.replace(old, new))
        return tmp_path

    return copied


LOOK = """
methods = lambda: [dict(vars(kind)) for kind in vars(asgiref.local).values() if isinstance(kind, type)]
before = methods()
found = speedups()
quick()
print(methods() == before, speedups().why)
"""


@needs_tested_asgiref
@pytest.mark.parametrize("change", CHANGES)
def test_another_source_is_left_alone(
    change: str, another_asgiref: Callable[[str, str], Path], python: Python
) -> None:
    out = python(LOOK, another_asgiref(*CHANGES[change]))
    assert out.startswith("True Local without a lock off ("), out


@needs_tested_asgiref
def test_a_remark_in_the_source_changes_nothing(
    another_asgiref: Callable[[str, str], Path], python: Python
) -> None:
    assert python(LOOK, another_asgiref(*REMARK)).startswith("False Local without a lock (asgiref ")


@needs_tested_asgiref
@pytest.mark.parametrize(
    "code",
    [
        pytest.param("CVar._storage = functools.wraps(CVar._storage)(lambda self: None)", id="wrapped"),
        pytest.param("CVar._storage = functools.lru_cache(CVar._storage)", id="something callable"),
        pytest.param("import asyncio; asyncio.get_running_loop = lambda: None", id="another event loop"),
        pytest.param("import linecache, os; linecache.getlines = lambda *_: []", id="no source"),
    ],
)
def test_what_another_library_has_replaced_is_left_alone(code: str, python: Python) -> None:
    out = python(f"import functools\nCVar = asgiref.local._CVar\n{code}\n{LOOK}")
    assert out.startswith("True Local without a lock off ("), out


KNOWN = Decision(True, "Local without a lock (asgiref 3.13.0 as tested); immortal code off (no GIL)")


@pytest.mark.parametrize(
    ("found", "stated", "wanted"),
    [
        pytest.param(KNOWN, {}, KNOWN, id="nobody asked"),
        pytest.param(KNOWN, {"speedups": "on"}, replace(KNOWN, source="test"), id="the reason stays"),
        pytest.param(KNOWN, {"speedups": "off"}, Decision(False, "set explicitly", "test"), id="off"),
        pytest.param(
            Decision(False, "all off"),
            {"speedups": "on"},
            Decision(False, "all off", "test"),
            id="a wish changes nothing that is not as tested",
        ),
    ],
)
def test_the_plan_names_them(found: Decision[bool], stated: dict[str, str], wanted: Decision[bool]) -> None:
    assert facts.plan(project_=facts.project(speedups=found), **stated).speedups == wanted


def test_what_is_here_is_said_with_its_version() -> None:
    said = speedups()
    assert said.value is not (bool(asgiref_locals.why_not()) and bool(why_no_immortals()))
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in said.why
    assert (asgiref.__version__ in said.why) == (sys.version_info < (3, 14))  # there Python alone decides
