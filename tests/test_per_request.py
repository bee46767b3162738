"""Django around each request is the same as ever, for less; each time in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import sys, threading, weakref
import django
from django.conf import LazySettings, settings
from django.core.cache.backends.locmem import LocMemCache

class Cache(LocMemCache):
    def close(self, **kwargs):
        seen.append("cache closed")

def database(age):
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[1], "CONN_MAX_AGE": age}

settings.configure(
    DATABASES={"default": database(0), "kept": database(None), "unused": database(0)},
    CACHES={"default": {"BACKEND": "__main__.Cache"}},
    ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"], MIDDLEWARE=[], SECRET_KEY="tests", DEBUG=True,
)
django.setup()

from django.core.cache import caches, close_caches
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_finished, request_started
from django.db import close_old_connections, connections, reset_queries
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django.urls import path
from django_prodserve import per_request

def view(request):
    seen.append([len(each.queries_log) for each in connections.all(initialized_only=True)])
    for alias in ("default", "kept"):
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT 1")
    caches["default"].set("a", 1)
    return HttpResponse("ok")

urlpatterns = [path("", view), path("none/", lambda request: HttpResponse("ok"))]
handler, seen = WSGIHandler(), []

def state():
    opened = connections.all(initialized_only=True)
    return {each.alias: (each.connection is not None, len(each.queries_log)) for each in opened}

def serve(url="/"):
    response = handler(RequestFactory().get(url).environ, lambda *args: None)
    seen.append(state())
    response.close()
    seen.append((response.status_code, state()))

def scene():
    "What requests see and leave, in a thread that has opened nothing yet."
    def run():
        serve("/none/")
        serve()
        kept = connections["kept"]
        serve()
        assert connections["kept"] is kept and kept.connection is not None
        kept.errors_occurred, kept.is_usable = True, lambda: False  # sqlite's always is
        serve("/none/")
        assert kept.connection is None
        serve()
        kept.close()
    thread = threading.Thread(target=run)
    seen.clear()
    thread.start()
    thread.join()
    return [*seen]

def keys():
    return [[entry[0] for entry in signal.receivers] for signal in (request_started, request_finished)]

usual, quick = scene(), per_request.quicken
"""

Python = Callable[[str], str]


@pytest.fixture
def python(tmp_path: Path) -> Python:
    """Return a function that runs the program and then this, and returns what it prints."""

    def run(code: str) -> str:
        command = [sys.executable, "-c", PROGRAM + code, str(tmp_path / "db.sqlite3")]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run


def test_requests_see_and_leave_what_they_always_did(python: Python) -> None:
    """Connections close or stay, broken ones are dropped, queries are forgotten, caches are closed."""
    out = python("""
assert usual.count([0, 0]) == 2 and usual.count("cache closed") == 4, usual
before = keys()
quick()
now = scene()
assert now == usual, (now, usual)
assert keys() == before
quick()
assert scene() == usual and keys() == before
print("same")
""")
    assert out == "same\n"


def test_a_thread_that_has_opened_nothing_is_asked_for_nothing(python: Python) -> None:
    python("""
quick()
def refuse(*args, **kwargs):
    raise AssertionError("asked for every database or cache")
type(connections).all = type(caches).all = refuse
request_started.send(sender=None)
request_finished.send(sender=None)
""")


def test_a_project_may_disconnect_what_is_djangos(python: Python) -> None:
    """As Django's own test client does around each of its requests."""
    python("""
quick()
assert request_started.disconnect(close_old_connections)
assert request_finished.disconnect(close_old_connections)
assert request_started.disconnect(reset_queries)
assert request_finished.disconnect(close_caches)
seen.clear()
serve()
connections.close_all()
assert (200, {"default": (True, 1), "kept": (True, 1)}) in seen and "cache closed" not in seen, seen
request_finished.connect(close_old_connections)
seen.clear()
serve()
assert (200, {"default": (False, 2), "kept": (True, 2)}) in seen, seen
quick()  # what is not there is not put there
assert len(request_started.receivers) == 0
""")


def test_a_projects_receivers_keep_their_turn(python: Python) -> None:
    """Also those that come later, and of one sender alone."""
    python("""
order = []
def first(**kwargs): order.append("first")
def last(**kwargs): order.append("last")
def other(**kwargs): order.append("other")
request_finished.connect(first)
request_finished.receivers.insert(0, request_finished.receivers.pop())
original = Cache.close
Cache.close = lambda self, **kwargs: order.append("cache")
request_finished.connect(last)
quick()
serve()
assert order == ["first", "cache", "last"], order
request_finished.connect(other, sender=Cache)
request_finished.send(sender=Cache)
request_finished.send(sender=WSGIHandler)
request_finished.send(sender=None)
assert order.count("other") == 1 and order.count("last") == 4, order
request_finished.disconnect(last)
serve()
assert order.count("last") == 4
""")


def test_settings_are_djangos_but_for_how_they_are_read(python: Python) -> None:
    python("""
names = [name for name in dir(settings) if name.isupper()]
values = {name: getattr(settings, name) for name in names if "EMAIL" not in name}
def describe():
    return repr(settings), str(settings), settings.__class__, dir(settings)
described = describe()
quick()
assert type(settings) is per_request.QuickSettings and described == describe()
assert values == {name: getattr(settings, name) for name in values}
assert settings.configured and settings.is_overridden("DEBUG")
try:
    settings.NOT_THERE
except AttributeError as error:
    assert "NOT_THERE" in str(error)
else:
    raise AssertionError
with override_settings(DEBUG=False, MADE_HERE=[1]):
    assert settings.DEBUG is False and settings.MADE_HERE == [1]
assert settings.DEBUG is True and not hasattr(settings, "MADE_HERE")
settings.LATER = 1
assert settings.LATER == 1
del settings.LATER
assert not hasattr(settings, "LATER")
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


def test_a_local_keeps_apart_and_shares_what_it_always_did(python: Python) -> None:
    python(f"""{LOCALS}
was = locals_scene()
assert was[0] == was[-1] == "AttributeError" and (None, "changed", "changed") in was, was
quick()
assert type(mine) is per_request.QuickLocal and isinstance(mine, Local) and type(Local()) is not type(mine)
now = locals_scene()
assert now == was, (now, was)
quick()
assert locals_scene() == was
""")


def test_nobody_waits_to_read_a_local(python: Python) -> None:
    """Threads that compute would, at every read, once one of them was interrupted in another's."""
    python("""
from django.utils import translation
from django.utils.translation.trans_real import _active
lock = next(vars(_active)[name] for name in ("_lock", "_thread_lock") if name in vars(_active))

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
""")


def test_what_is_not_as_known_is_left_alone(python: Python) -> None:
    """Another asgiref, another Django, or settings of somebody's own."""
    python("""
import asgiref.local
asgiref.local._Storage = dict
local = asgiref.local.Local()
kind = type(local)
class Other(LazySettings):
    def __getattribute__(self, name):
        return super().__getattribute__(name)
vars(object)["__class__"].__set__(settings, Other)
connections._connections, caches._connections = object(), type("Local", (), {})()
before = [*request_started.receivers], [*request_finished.receivers]
quick()
assert type(settings) is Other and type(local) is kind
assert before == (request_started.receivers, request_finished.receivers)
""")


def test_what_it_knows_of_django_and_asgiref_is_so(python: Python) -> None:
    """A release that moves it fails here, and costs nothing but speed."""
    python("""
import contextvars
from django.utils.functional import LazyObject
assert isinstance(connections._connections._storage, threading.local)
assert isinstance(caches._connections._storage._data, contextvars.ContextVar)
assert LazySettings.__getattribute__ is LazyObject.__getattribute__
quick()
djangos = {reset_queries, close_old_connections, close_caches}
for signal in (request_started, request_finished):
    receivers = [entry[1] for entry in signal.receivers]
    assert not djangos & {each() if type(each) is weakref.ref else each for each in receivers}
    assert signal.use_caching
assert type(settings) is per_request.QuickSettings
from django.urls.base import _prefixes, _urlconfs
from django.utils.timezone import _active as zone
from django.utils.translation.trans_real import _active as language
for local in (_prefixes, _urlconfs, zone, language, caches._connections):
    assert type(local) is per_request.QuickLocal
assert type(connections._connections) is not per_request.QuickLocal
""")
