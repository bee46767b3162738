"""How much of a worker's time handshakes get. Pure."""

from __future__ import annotations

import pytest

from django_prodserve.worker.handshakes import SHARE, SLICE_SECONDS, TimeShare


def spent(handshake: float, between: float, *, limited: bool, seconds: float = 10.0) -> float:
    """Return the share of the time that a flood of handshakes gets, each of them this long."""
    share, now, used = TimeShare(), 100.0, 0.0
    while now < 100.0 + seconds:
        started, allowed = now, share.slice(now, limited=limited)
        while now - started < allowed:
            now += handshake
        if limited:
            share.spend(now - started)
        used += now - started
        now += max(between, share.wait(limited=limited))
    return used / (now - 100.0)


@pytest.mark.parametrize("handshake", [0.0003, 0.0006, 0.005])
@pytest.mark.parametrize("between", [0.00005, 0.001, 0.02])
def test_a_flood_gets_its_share_and_no_more_while_requests_wait(handshake: float, between: float) -> None:
    # One that takes longer than a slice runs whole: then it is followed by as long a pause as is remembered.
    most = max(SHARE, handshake / (handshake + SLICE_SECONDS / SHARE))
    assert spent(handshake, between, limited=True) <= most * 1.05 + 0.01
    assert spent(handshake, between, limited=True) > 0.01  # it never stops


def test_without_waiting_requests_only_the_slice_counts() -> None:
    assert spent(0.0005, 0.0, limited=False) == 1.0
    share = TimeShare()
    assert share.slice(5.0, limited=False) == SLICE_SECONDS
    assert share.wait(limited=False) == 0.0


def test_a_long_silence_saves_no_more_than_a_slice() -> None:
    share = TimeShare()
    share.slice(0.0, limited=True)
    assert share.slice(1000.0, limited=True) == SLICE_SECONDS
