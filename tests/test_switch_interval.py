"""How long a thread keeps the GIL: one owner, several reasons, and the project's own interval."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from django_prodserve.worker.switch_interval import (
    LOOP,
    OVERLOAD,
    SHORT_SECONDS,
    SWITCH_SECONDS,
    SwitchInterval,
)


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    yield
    sys.setswitchinterval(before)


def is_set(seconds: float) -> bool:
    return sys.getswitchinterval() == pytest.approx(seconds)


def test_it_is_short_until_every_reason_has_gone() -> None:
    interval = SwitchInterval()
    interval.shorten(OVERLOAD)
    interval.shorten(LOOP)
    interval.restore(OVERLOAD)
    assert is_set(SHORT_SECONDS)
    interval.restore(LOOP)
    assert is_set(SWITCH_SECONDS)


def test_a_change_by_another_thread_is_mended_at_the_next_second() -> None:
    interval = SwitchInterval()
    interval.shorten(LOOP)
    sys.setswitchinterval(SWITCH_SECONDS)  # a thread that restored it at the same moment
    interval.restore(OVERLOAD)
    assert is_set(SHORT_SECONDS)


@pytest.mark.parametrize("own", [0.002, SHORT_SECONDS, 0.05])
def test_an_interval_of_the_project_stays(own: float) -> None:
    sys.setswitchinterval(own)
    interval = SwitchInterval()
    interval.shorten(LOOP)
    assert is_set(own)
    interval.restore(LOOP)
    assert is_set(own)


def test_an_interval_that_the_project_sets_later_stays() -> None:
    interval = SwitchInterval()
    interval.shorten(LOOP)
    sys.setswitchinterval(0.002)
    interval.restore(LOOP)
    assert is_set(0.002)
