"""Mixtures: shares exact at any length, nothing repeated within a source's epoch, no window that depends on another."""

import itertools
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.corpus.mixture import Mixture, WindowOrder, read_mixture
from gpt3.errors import InputError

EXAMPLES = Path(__file__).parents[2] / "examples"


class Source:
    """A split whose tokens are their own positions, beyond an offset that tells the source."""

    name = "train"

    def __init__(self, size, offset):
        self.size, self.offset = size, offset

    def __len__(self):
        return self.size

    def read(self, start, stop):
        assert 0 <= start <= stop <= self.size
        return np.arange(start, stop, dtype=np.int64) + self.offset


OFFSET = 10**6


def mixture(weights, sizes, context=4, seed=0):
    orders = [WindowOrder(Source(size, OFFSET * s), context, seed) for s, size in enumerate(sizes)]
    return Mixture(orders, weights, seed)


weights_and_sizes = st.lists(
    st.tuples(st.one_of(st.floats(0.01, 100), st.integers(1, 100)), st.integers(5, 3000)), min_size=1, max_size=6
)


@settings(deadline=None, max_examples=50)
@given(weights_and_sizes, st.integers(0, 2**40), st.integers(0, 10**7))
def test_shares_are_exact_at_every_prefix_up_to_a_block(pairs, seed, windows):
    weights, sizes = zip(*pairs, strict=True)
    mixed = mixture(weights, sizes, seed=seed)
    total = sum(Fraction(str(weight)) for weight in weights)
    exact = [Fraction(str(weight)) / total for weight in weights]
    whole = windows // mixed.block * mixed.block
    for count, share in zip(mixed.counts(whole), exact, strict=True):
        assert abs(count - share * whole) < 1  # where blocks meet: not a window off, however far
    counts = mixed.counts(windows)
    assert sum(counts) == windows
    after = mixed.counts(whole + mixed.block)
    assert all(a <= b <= c for a, b, c in zip(mixed.counts(whole), counts, after, strict=True))
    for share, count, size in zip(mixed.shares(windows), counts, sizes, strict=True):
        assert (share.windows, share.tokens) == (count, 4 * count)
        assert share.share == pytest.approx(count / max(1, windows))
        assert share.epochs == pytest.approx(count / (size // 4))


@settings(deadline=None, max_examples=30)
@given(weights_and_sizes, st.integers(0, 2**40))
def test_nothing_repeats_within_a_sources_epoch_and_counts_are_what_is_drawn(pairs, seed):
    weights, sizes = zip(*pairs, strict=True)
    mixed = mixture(weights, sizes, seed=seed)
    length = 2 * mixed.block + 77 if mixed.block < 1000 else 300
    drawn = mixed.batch(range(length))
    assert drawn.shape == (length, 5)
    assert drawn.dtype == np.int64
    owners = drawn[:, 0] // OFFSET
    assert [(owners == s).sum() for s in range(len(sizes))] == mixed.counts(length)
    for s, size in enumerate(sizes):
        own = drawn[owners == s]
        alone = WindowOrder(Source(size, OFFSET * s), 4, seed)
        np.testing.assert_array_equal(own, [alone.window(j) for j in range(len(own))] or np.zeros((0, 5)))
        for epoch in range(0, len(own), size // 4):
            inputs = own[epoch : epoch + size // 4, :-1].ravel()
            assert len(np.unique(inputs)) == len(inputs)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.lists(st.integers(1, 60), min_size=1, max_size=6), st.randoms())
def test_batches_may_be_cut_and_asked_for_in_any_way(first, cuts, random):
    weights, sizes = [60, 22, 8, 8, 3], [4000, 190, 120, 550, 30]
    indices = range(first, first + sum(cuts))
    whole = mixture(weights, sizes).batch(indices)
    bounds = list(itertools.accumulate([0, *cuts]))
    parts = [indices[a:b] for a, b in itertools.pairwise(bounds)]
    order = list(range(len(parts)))
    random.shuffle(order)
    worker = pickle.loads(pickle.dumps(mixture(weights, sizes)))
    found = {i: worker.batch(parts[i]) for i in order}
    np.testing.assert_array_equal(np.concatenate([found[i] for i in range(len(parts))]), whole)


def test_sources_are_mixed_within_a_block_and_seeds_differ():
    mixed = mixture([1, 1], [10**5, 10**5])
    owners = np.array([mixed.place(i)[0] for i in range(20_000)])
    runs = 1 + (np.diff(owners) != 0).sum()
    assert abs(runs - 10_000) < 6 * 71  # of a fair coin's; 71 is one standard deviation
    other = np.array([mixture([1, 1], [10**5, 10**5], seed=1).place(i)[0] for i in range(1000)])
    assert 400 < (owners[:1000] == other).sum() < 600


def test_the_papers_table_2_2():
    """Its weights over its sizes give its epochs, as far as its rounded weights (101% in all) allow."""
    specs = read_mixture(EXAMPLES / "table_2_2.yaml")
    billions = {"common-crawl": 410, "webtext2": 19, "books1": 12, "books2": 55, "wikipedia": 3}
    assert [spec.name for spec in specs] == list(billions)
    assert [spec.weight for spec in specs] == [60, 22, 8, 8, 3]
    thousandth = 10**6  # sizes and run in thousandths: a token stands for a thousand
    orders = [WindowOrder(Source(size * thousandth, 0), 2048, 0) for size in billions.values()]
    mixed = Mixture(orders, [spec.weight for spec in specs], 0)
    epochs = {name: s.epochs for name, s in zip(billions, mixed.shares(300 * thousandth // 2048), strict=True)}
    assert epochs == pytest.approx(
        {"common-crawl": 0.44, "webtext2": 3.44, "books1": 1.98, "books2": 0.43, "wikipedia": 2.97}, rel=0.02
    )
    paper = {"common-crawl": 0.44, "webtext2": 2.9, "books1": 1.9, "books2": 0.43, "wikipedia": 3.4}
    assert epochs == pytest.approx(paper, rel=0.2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wiki", "must be a list of entries"),
        ("- a\n[", r"m.yaml, line \d is not YAML: (?!.*unicode string).*docs/mixtures.md shows the form"),
        ("\0", "m.yaml is not YAML: special characters are not allowed"),
        ("[]", "must be a list of entries"),
        ("- {name: a, data: wiki}", "entry 1: must have name, data, weight and nothing else, not name, data"),
        ("- {name: A b, data: wiki, weight: 1}", "entry 1: name 'A b' may hold"),
        ("- {name: a, data: [], weight: 1}", r"entry 1: data \[\] must name a source"),
        ("- {name: a, data: wiki, weight: 0}", "entry 1: weight 0 must be a number above 0"),
        ("- {name: a, data: wiki, weight: .nan}", "weight nan must be"),
        ("- {name: a, data: wiki, weight: true}", "weight True must be"),
        (
            "- {name: a, data: x, weight: 1}\n- {name: a, data: y, weight: 1}\n- 7",
            "entry 2: name 'a' is taken already; names must differ; entry 3: must have .* not 7",
        ),
    ],
)
def test_a_wrong_file_is_told_in_one_line(tmp_path, text, message):
    (tmp_path / "m.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as error:
        read_mixture(tmp_path / "m.yaml")
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_and_weights_that_do_not_do(tmp_path):
    with pytest.raises(InputError, match=r"--mixture .*none.yaml: cannot be read \(No such file"):
        read_mixture(tmp_path / "none.yaml")
    for weight in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match="must be a number above 0"):
            mixture([1, weight], [100, 100])
    with pytest.raises(InputError, match="give the source more or leave it out"):
        mixture([1e6, 1], [100, 100])
