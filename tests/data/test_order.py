"""The order is a bijection, looks random, and is entered anywhere."""

import itertools
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.data.order import Order, mix, sample_seed

PINNED_SMALL = [3, 8, 4, 0, 6, 5, 9, 7, 1, 2]
PINNED_LARGE = [825518657, 734068690, 1515317949]
PINNED_SEED = 9749965452732060556


@settings(max_examples=60, deadline=None)
@given(length=st.integers(0, 5000), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 1000))
def test_every_sample_comes_once(length, seed, epoch):
    assert sorted(Order(length, seed, epoch).indices(0, length)) == list(range(length))


@pytest.mark.parametrize("length", [1, 2, 3, 4, 15, 16, 17, 63, 64, 65, 40000, 65536, 100003])
def test_every_sample_comes_once_at_awkward_lengths(length):
    assert np.array_equal(np.sort(Order(length, 7, 3).indices(0, length)), np.arange(length))


@settings(max_examples=40, deadline=None)
@given(length=st.integers(1, 40000), cut=st.floats(0, 1), width=st.integers(0, 50))
def test_any_piece_equals_the_piece_of_the_whole(length, cut, width):
    order = Order(length, 1, 2)
    start = int(cut * length)
    stop = min(length, start + width)
    assert np.array_equal(order.indices(start, stop), order.indices(0, length)[start:stop])


def test_without_shuffle_it_counts():
    assert Order(10, 3, 4, shuffle=False).indices(2, 6).tolist() == [2, 3, 4, 5]


def test_seeds_and_epochs_give_unrelated_orders():
    orders = [
        Order(2000, seed, epoch).indices(0, 2000)
        for seed, epoch in itertools.product((0, 1, 2**31), (0, 1, 2))
    ]
    for first, second in itertools.combinations(orders, 2):
        assert (first == second).sum() < 12  # 1 is expected
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.12  # five standard deviations
    assert np.array_equal(orders[0], Order(2000, 0, 0).indices(0, 2000))


def test_the_order_of_a_seed_never_changes():
    """Resuming an old run depends on it."""
    assert Order(10, 0, 0).indices(0, 10).tolist() == PINNED_SMALL
    assert Order(10**10, 42, 3).indices(5 * 10**9, 5 * 10**9 + 3).tolist() == PINNED_LARGE
    assert sample_seed(0, 0, 0) == PINNED_SEED


@pytest.mark.parametrize("length", [2, 3, 4, 5])
def test_every_permutation_of_a_few_samples_is_as_likely(length):
    expected, outcomes = 60, math.factorial(length)
    counts = Counter(tuple(Order(length, seed, 0).indices(0, length)) for seed in range(expected * outcomes))
    chi = sum((counts[p] - expected) ** 2 / expected for p in itertools.permutations(range(length)))
    assert chi < outcomes - 1 + 5 * math.sqrt(2 * outcomes)


@pytest.mark.parametrize(("length", "seeds"), [(64, 2000), (1797, 150)])
def test_places_and_neighbours_are_uniform(length, seeds):
    orders = np.array([Order(length, seed, 0).indices(0, length) for seed in range(seeds)])
    cells = 16
    table = np.zeros((cells, cells))
    np.add.at(
        table,
        (np.broadcast_to(np.arange(length) * cells // length, orders.shape), orders * cells // length),
        1,
    )
    sizes = np.bincount(np.arange(length) * cells // length)
    assert _excess(table, np.outer(sizes, sizes) * seeds / length, (cells - 1) ** 2) < 5
    columns = -(-length // (math.isqrt(length - 1) + 1))
    for distance in (1, columns):  # neighbours by position and in the network's own grid
        gaps = np.bincount(
            ((orders[:, distance:] - orders[:, :-distance]) % length).ravel(), minlength=length
        )[1:]
        assert _excess(gaps, gaps.sum() / (length - 1), length - 2) < 5


def _excess(counts, expected, freedom):
    """How many standard deviations chi-square lies above its mean."""
    return (((counts - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_ten_milliard_samples_are_reached_at_once():
    order = Order(10**10, 0, 0)
    began = time.perf_counter()
    pieces = np.concatenate([order.indices(at, at + 100) for at in range(0, 10**10 - 100, 10**8)])
    assert time.perf_counter() - began < 2
    assert len(set(pieces.tolist())) == len(pieces)
    assert pieces.min() >= 0
    assert pieces.max() < 10**10
    assert abs(pieces.mean() / 10**10 - 0.5) < 0.02


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (3, 2), (0, 11)])
def test_positions_outside_are_errors(start, stop):
    with pytest.raises(IndexError, match="of 10"):
        Order(10, 0, 0).indices(start, stop)


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (2**63, 0, 0), (1, -1, 0), (1, 0, -1)])
def test_impossible_orders_are_errors(arguments):
    with pytest.raises(ValueError, match="Order"):
        Order(*arguments)


def test_sample_seeds_differ_in_every_argument():
    seeds = [sample_seed(*key) for key in itertools.product(range(12), repeat=3)]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    bits = np.array([[seed >> bit & 1 for bit in range(64)] for seed in seeds])
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.065
    assert mix(1, 2) != mix(2, 1)
