"""What is made immortal before the fork, in processes of its own: it stays so until their end."""

from __future__ import annotations

import subprocess
import sys

import pytest

from django_prodserve.speedups import immortal
from django_prodserve.speedups.availability import why_no_immortals

PROGRAM = """
import gc, sys, types, weakref
from django.utils.functional import SimpleLazyObject
from django_prodserve.speedups.immortal import make_immortal

def greet(name, greeting="a default of a function"):
    def inner():
        return name
    return inner, ("a constant", (3.25, b"bytes within"))

class Shop:
    title = "an attribute of a class"
    def open(self):
        return self

def refuse():
    raise AssertionError("a lazy object was evaluated")

class Loud:
    def __getattribute__(self, name):
        raise AssertionError(f"{name} was asked for")
    __class__ = property(refuse)

lazy, loud, shop = SimpleLazyObject(refuse), Loud(), Shop()
items, table = [1, 2], {"a key": [3]}
number, plain = 10**9, ("only", "plain", "things", 10**8)
module = types.ModuleType("made_here")
gc.collect()
made = make_immortal()
immortal = sys.getrefcount(None)

def check(*things):
    wrong = [thing for thing in things if sys.getrefcount(thing) != immortal]
    assert not wrong, wrong
"""


def python(code: str) -> str:
    """Run the program and then this; return what it prints."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + code], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert not ended.stderr
    return ended.stdout


def _works() -> bool:
    return not why_no_immortals()


works = pytest.mark.skipif(not _works(), reason="not tested with this Python")


@works
def test_the_program_is_immortal() -> None:
    python("""
assert made > 1000, made
const = greet.__code__.co_consts
check(greet, greet.__code__, const, *const, *greet.__defaults__, Shop, Shop.open, Shop.title, module)
check(number, plain, *plain, Shop.__mro__, str.upper, property, list(table)[0], sys.intern("a key"))
inner = next(found for found in const if type(found) is types.CodeType)
check(inner, *inner.co_consts, *inner.co_names)
""")


@works
def test_its_use_writes_to_none_of_it() -> None:
    """The objects themselves are the same bytes afterwards, but for what the interpreter learns of code."""
    python("""
import ctypes
seen = [greet, greet.__defaults__, Shop.open, Shop.title, plain]
def use():
    return [(greet("a"), Shop().open(), Shop.title, plain[0]) for _ in range(1000)]
for _ in range(5):
    use()  # the interpreter learns
before = [ctypes.string_at(id(thing), sys.getsizeof(thing)) for thing in seen]
kept = use()
assert before == [ctypes.string_at(id(thing), sys.getsizeof(thing)) for thing in seen]
""")


@works
def test_what_may_change_stays_mortal() -> None:
    """An instance that is dropped ends, with what it holds, as somebody may wait for it."""
    python("""
assert max(map(sys.getrefcount, (items, table, shop, lazy, loud, table["a key"]))) < 100
ended = []
ends = weakref.ref(shop, ended.append), weakref.finalize(loud, ended.append, 1)
del shop, loud
assert len(ended) == 2, ended
made_later = Shop()
seen = weakref.ref(made_later)
del made_later
assert seen() is None
""")


@works
def test_it_goes_on_as_usual() -> None:
    """Collections, also of what was frozen, threads, new classes and the end of the process."""
    out = python("""
import threading
gc.freeze(); gc.collect(); gc.unfreeze(); gc.collect()
assert make_immortal() < made / 10
class Later(Shop): pass
threads = [threading.Thread(target=lambda: [greet(str(n))[0]() for n in range(10_000)]) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert Shop.title + "!" == "an attribute of a class!" and plain + (1,) != plain
del Later, greet, Shop, module, plain, number; gc.collect()
print("over")
""")
    assert out == "over\n"


@pytest.mark.skipif(_works(), reason="this Python was tested")
def test_a_python_that_was_not_tested_is_left_alone() -> None:
    """One without immortal objects, and one that came later and may count another way."""
    python("assert made == 0 and sys.getrefcount(greet) < 100")


@works
@pytest.mark.parametrize("version", [(3, 11), (3, 14), (3, 15)])
def test_which_pythons_were_tested_is_a_list(
    version: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    assert immortal.make_immortal() == 0


@works
def test_a_plan_without_speedups_makes_nothing_immortal() -> None:
    python("""
class Later: pass
from django_prodserve.arbiter import hooks
hooks.configure(immortal=False)
hooks.freeze_heap()
assert sys.getrefcount(Later) < 100
class Last: pass
hooks.configure(immortal=True)
hooks.freeze_heap()
check(Last)
""")


def test_a_python_without_ctypes_freezes_all_the_same() -> None:
    python("""
sys.modules["ctypes"] = None
from django_prodserve.arbiter import hooks
before = gc.get_freeze_count()
hooks.freeze_heap()
assert gc.get_freeze_count() > before
""")


def test_no_other_interpreter_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the id of an object is no address."""
    monkeypatch.setattr(sys.implementation, "name", "pypy")
    assert immortal.make_immortal() == 0
