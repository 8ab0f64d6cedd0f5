"""Windows: each exactly once an epoch, a pure function of (seed, index); validation: every token predicted once."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt3.corpus.mixture import Permutation, WindowOrder
from gpt3.errors import InputError


class Range:
    """A split whose tokens are their own positions."""

    name = "train"
    end_of_text = -1

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def read(self, start: int, stop: int) -> np.ndarray:
        assert 0 <= start <= stop <= self.size
        return np.arange(start, stop, dtype=np.int64)


sizes_and_contexts = st.integers(1, 40).flatmap(lambda c: st.tuples(st.integers(c + 1, 900), st.just(c)))


@given(sizes_and_contexts, st.integers(0, 2**63), st.integers(0, 5))
def test_every_window_comes_once_an_epoch_and_no_token_twice(size_context, seed, epoch):
    size, context = size_context
    order = WindowOrder(Range(size), context, seed)
    count = order.windows_per_epoch
    windows = order.batch(range(epoch * count, (epoch + 1) * count))
    assert windows.shape == (count, context + 1)
    assert windows.dtype == np.int64
    np.testing.assert_array_equal(windows[:, 1:], (windows[:, :-1] + 1) % size)  # consecutive tokens, on a ring
    inputs, targets = windows[:, :-1].ravel(), windows[:, 1:].ravel()
    assert len(np.unique(inputs)) == len(inputs)
    assert len(np.unique(targets)) == len(targets)
    assert size - len(inputs) < context  # fewer than a window of tokens are left out
    phases = np.unique(windows[:, 0] % size)
    assert phases[0] < context  # cut at a phase below context, every `context` tokens
    assert set(np.diff(phases)) <= {context}


@given(st.integers(1, 3000), st.binary(min_size=64, max_size=64))
def test_a_permutation_is_one_to_one(size, key):
    permutation = Permutation(size, key)
    assert sorted(map(permutation, range(size))) == list(range(size))


def test_a_permutation_of_a_trillion_needs_no_memory():
    permutation = Permutation(10**12, bytes(range(64)))
    values = [permutation(i) for i in range(2000)]
    assert len(set(values)) == 2000
    assert min(values) < 5e9 < 9.95e11 < max(values) < 10**12
    with pytest.raises(IndexError):
        permutation(10**12)


def test_a_window_does_not_depend_on_what_was_read_before():
    forward, backward = (WindowOrder(Range(997), 10, 7) for _ in range(2))
    total = 3 * forward.windows_per_epoch
    ahead = [forward.window(i).tolist() for i in range(total)]
    behind = [backward.window(i).tolist() for i in reversed(range(total))]
    assert ahead == behind[::-1]
    assert pickle.loads(pickle.dumps(forward)).window(5).tolist() == ahead[5]


def test_epochs_and_seeds_differ():
    def order(seed, epoch):
        order = WindowOrder(Range(2000), 10, seed)
        return tuple(order.start(epoch * order.windows_per_epoch + i) for i in range(order.windows_per_epoch))

    assert len({order(seed, epoch) for seed in range(10) for epoch in range(10)}) == 100


def test_the_phase_takes_every_value():
    order = WindowOrder(Range(1000), 8, 0)
    phases = [order.epoch(epoch)[0] for epoch in range(400)]
    counts = np.bincount(phases, minlength=8)
    assert len(counts) == 8
    assert counts.min() > 25  # 50 expected; 25 is 3.8 standard deviations away


@pytest.mark.parametrize("windows", [2, 3, 5, 12, 100])
def test_orders_are_evenly_mixed(windows):
    """Any window is as likely at any place: chi-square of (place, window) over 2,000 epochs, far below a 1e-6 tail."""
    counts = np.zeros((windows, windows))
    order = WindowOrder(Range(windows * 4), 4, 1)
    epochs = 2000
    for epoch in range(epochs):
        _, permutation = order.epoch(epoch)
        for place in range(windows):
            counts[place, permutation(place)] += 1
    expected = epochs / windows
    freedom = (windows - 1) ** 2
    chi_square = ((counts - expected) ** 2 / expected).sum()
    assert chi_square < freedom + 6 * (2 * freedom) ** 0.5 + 12


def test_neighbours_do_not_stay_neighbours():
    permutation = WindowOrder(Range(40_000), 4, 3).epoch(0)[1]
    values = np.array([permutation(i) for i in range(10_000)])
    assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.05
    assert (np.diff(values) == 1).sum() < 10  # 1 expected


def test_small_permutations_are_all_reached():
    orders = {tuple(map(WindowOrder(Range(4 * 2), 2, seed).epoch(0)[1], range(4))) for seed in range(2000)}
    assert len(orders) == 24


def test_a_split_shorter_than_a_window_is_refused_with_a_context_that_fits():
    with pytest.raises(InputError, match=r"'train' has 10 tokens.*context 10 .*at most 9"):
        WindowOrder(Range(10), 10, 0)
    assert WindowOrder(Range(10), 9, 0).windows_per_epoch == 1
    with pytest.raises(InputError, match="0 tokens"):
        WindowOrder(Range(0), 10, 0)
    with pytest.raises(InputError, match="at least 1"):
        WindowOrder(Range(10), 0, 0)
