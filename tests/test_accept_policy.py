"""The accept policy, with numbers alone."""

from __future__ import annotations

import pytest

from django_prodserve.worker.accept_policy import MAX_BATCH, MAX_DEFERRAL_SECONDS, AcceptPolicy, Deferral

THREADS = 4
POLICY = AcceptPolicy(THREADS)
FRESH, SHARING = Deferral(), Deferral(1, MAX_DEFERRAL_SECONDS)


@pytest.mark.parametrize(
    ("mine", "load", "peers", "accepts"),
    [
        (2, 0, [(1, 0)], True),  # one more than the other worker is no reason
        (3, 0, [(1, 0)], False),
        (3, 0, [(1, THREADS)], True),  # the other worker has fewer, but no free thread
        (3, 0, [(1, THREADS), (5, 0)], True),
        (3, 0, [], True),
        (9, THREADS, [(9, THREADS)], True),
        (9, THREADS, [(7, THREADS)], False),
        (0, THREADS, [(9, THREADS - 1)], False),  # the other worker has a free thread
    ],
)
def test_the_best_placed_worker_accepts_one(
    mine: int, load: int, peers: list[tuple[int, int]], accepts: bool
) -> None:
    assert POLICY.batch(mine, lambda: peers, load, FRESH) == accepts


def test_a_worker_with_one_connection_and_a_free_thread_does_not_look_at_its_peers() -> None:
    def unread() -> list[tuple[int, int]]:
        raise AssertionError

    assert POLICY.batch(1, unread, THREADS - 1, FRESH) == 1


def test_what_was_deferred_is_shared_and_then_taken_by_any_worker_ever_more_at_a_time() -> None:
    peers = [(0, 0)]
    assert POLICY.batch(9, lambda: peers, 0, SHARING) == MAX_BATCH
    assert not POLICY.has_fewest(9, lambda: peers)
    batches = [POLICY.batch(9, lambda: peers, 0, Deferral(times)) for times in range(2, 14)]
    assert batches == [1, 1, 2, 2, 4, 4, 8, 8, 16, 16, 16, 16]


def test_a_worker_without_a_free_thread_defers_for_a_limited_time() -> None:
    peers = [(9, THREADS - 1)]
    assert POLICY.batch(0, lambda: peers, THREADS, Deferral(1, MAX_DEFERRAL_SECONDS / 2)) == 0
    assert POLICY.batch(0, lambda: peers, THREADS, SHARING) == MAX_BATCH
    assert POLICY.batch(0, lambda: [(9, THREADS)], THREADS, Deferral(2)) == 1


@pytest.mark.parametrize(
    ("mine", "load", "peers", "moves"),
    [
        (4, 6, [(2, 4)], True),
        (4, 6, [(3, 4)], False),
        (4, 6, [(2, 5)], False),
        (4, 6, [(3, 0), (0, 5)], False),  # no single worker has fewer of both
        (4, 6, [], False),
    ],
)
def test_a_connection_moves_to_a_worker_with_fewer_connections_and_requests(
    mine: int, load: int, peers: list[tuple[int, int]], moves: bool
) -> None:
    assert POLICY.should_rebalance(mine, lambda: peers, load) == moves
