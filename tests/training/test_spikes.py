"""The spike window against numpy's mean and deviation, and what must hold for any losses."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.training.spikes import LEAST_SPREAD, SpikeWindow, mean_and_deviation

numbers = st.floats(0.01, 1e4)
steps = st.lists(st.tuples(numbers, numbers), max_size=60)
anything = st.floats(allow_nan=True, allow_infinity=True)


def filled(seed: int = 0, size: int = 128) -> SpikeWindow:
    """A full window of losses about 3 ± 0.1 and gradient norms about 1 ± 0.2."""
    window, rng = SpikeWindow(size), np.random.default_rng(seed)
    for loss, norm in zip(rng.normal(3, 0.1, size), rng.normal(1, 0.2, size), strict=True):
        assert window.verdict(loss, norm) is None
    return window


@given(st.lists(numbers, min_size=2, max_size=128))
def test_mean_and_deviation_are_numpys(values: list[float]) -> None:
    mean, deviation = mean_and_deviation(values)
    assert mean == pytest.approx(np.mean(values), rel=1e-12)
    assert deviation == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-12 * mean)


def test_small_spread_on_a_large_mean_is_not_cancelled_away() -> None:
    assert mean_and_deviation([1e9, 1e9 + 1])[1] == pytest.approx(math.sqrt(0.5))


@settings(max_examples=50)
@given(steps, st.tuples(numbers, numbers), st.integers(2, 16), st.floats(0.5, 8))
def test_a_step_is_skipped_exactly_when_numpy_says_so(history, new, size: int, sigmas: float) -> None:
    window = SpikeWindow(size, sigmas)
    for loss, norm in history:
        window.verdict(loss, norm)
    kept = np.array([window.losses, window.grad_norms])  # (2, steps)
    expected = False
    if kept.shape[1] >= max(2, size // 2):
        spread = np.maximum(kept.std(axis=1, ddof=1), LEAST_SPREAD * kept.mean(axis=1))
        distance = (np.array(new) - kept.mean(axis=1)) / spread
        if np.any(np.abs(distance - sigmas) < 1e-6):
            return  # rounding decides
        expected = bool(np.any(distance > sigmas))
    assert (window.verdict(*new) is not None) == expected


@given(st.lists(st.tuples(anything, anything), max_size=60), st.integers(2, 16))
def test_whatever_comes_the_window_holds_the_last_finite_steps(history, size: int) -> None:
    window, finite, row = SpikeWindow(size), [], 0
    for loss, norm in history:
        before = window.state()
        reason = window.verdict(loss, norm)
        row = 0 if reason is None else row + 1
        assert "\n" not in (reason or "")
        if abs(loss) < 1e100 and abs(norm) < 1e100:  # larger ones would overflow when squared
            finite.append((loss, norm))
        assert reason is not None or (math.isfinite(loss) and math.isfinite(norm))
        assert (window.in_a_row, window.skipped) == (row, before["skipped"] + (reason is not None))
    assert list(zip(window.losses, window.grad_norms, strict=True)) == finite[-size:]


@given(steps, steps, st.integers(2, 16))
def test_it_goes_on_from_its_json_as_if_never_stopped(first, second, size: int) -> None:
    window, other = SpikeWindow(size, sigmas=2), SpikeWindow(size, sigmas=2)
    for loss, norm in first:
        window.verdict(loss, norm)
    other.load_state(json.loads(json.dumps(window.state())))
    assert other.state() == window.state()
    assert [window.verdict(*step) for step in second] == [other.verdict(*step) for step in second]
    assert other.state() == window.state()


@given(st.lists(numbers, min_size=2, max_size=40), numbers)
def test_a_step_no_higher_than_all_before_is_never_skipped(losses: list[float], norm: float) -> None:
    window = SpikeWindow(16, sigmas=0.5)
    for loss in sorted(losses, reverse=True):
        assert window.verdict(loss, norm) is None


def test_it_says_what_stood_out_and_by_how_much() -> None:
    window = filled()
    mean, deviation = np.mean(window.losses), np.std(window.losses, ddof=1)
    reason = window.verdict(4.5, 1.0)
    assert (
        reason == f"loss 4.5 is {(4.5 - mean) / deviation:.1f} sigmas above the mean {mean:.4g} of the last 128 steps"
    )
    assert window.verdict(3.0, 9.0).startswith("gradient norm 9 is ")
    assert window.verdict(3.0, 1e200).startswith("gradient norm 1e+200 is ")
    assert window.verdict(0.1, 0.01) is None  # far below is welcome


def test_nothing_is_judged_before_the_window_is_half_full() -> None:
    window = SpikeWindow(8)
    for loss in (1.0, 1.1, 1.0, 1.1):
        assert window.verdict(loss, 1.0) is None
    assert window.verdict(500.0, 1.0) is not None
    window = SpikeWindow(8)
    for loss in (1.0, 1.1, 1.0, 500.0):
        assert window.verdict(loss, 1.0) is None


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sigmas", [0.0, 6.0])
def test_what_is_not_finite_is_always_skipped(value: float, sigmas: float) -> None:
    window = SpikeWindow(sigmas=sigmas)
    assert window.verdict(value, 1.0) == f"loss {value} is not finite"
    assert window.verdict(1.0, value) == f"gradient norm {value} is not finite"


def test_zero_sigmas_let_every_finite_step_pass() -> None:
    window = SpikeWindow(4, sigmas=0)
    assert all(window.verdict(loss, 1.0) is None for loss in (1.0, 1.0, 1.0, 1.0, 1e30))


def test_a_flat_curves_last_digit_is_no_spike() -> None:
    window = SpikeWindow(4)
    for _ in range(4):
        window.verdict(2.0, 0.0)
    assert window.verdict(2.000001, 0.0) is None
    assert window.verdict(2.1, 0.0) is not None
    assert window.verdict(2.0, 1e-9) == "gradient norm 1e-09 is above the mean 0 of the last 4 steps"


def test_a_run_whose_level_has_risen_loses_a_few_steps_and_not_itself() -> None:
    """The gradient norm goes from 1 to 12 and stays there: other data, or the end of the warm-up."""
    window, rng = filled(), np.random.default_rng(1)
    skipped = [window.verdict(3.0, norm) is not None for norm in rng.normal(12, 1, 200)]
    assert 1 <= sum(skipped) < 10
    assert not any(skipped[10:])
    assert not window.lost


def test_ten_skips_in_a_row_are_enough_and_a_good_step_ends_the_row() -> None:
    window = filled()
    for _ in range(9):
        window.verdict(math.nan, 1.0)
    assert not window.lost
    window.verdict(3.0, 1.0)
    assert window.in_a_row == 0
    for _ in range(10):
        assert not window.lost
        window.verdict(math.nan, 1.0)
    assert window.lost
    assert window.skipped == 19


def test_normal_noise_is_hardly_ever_a_spike() -> None:
    window, rng = filled(), np.random.default_rng(1)
    for _ in range(5000):
        window.verdict(rng.normal(3, 0.1), rng.normal(1, 0.2))
    assert window.skipped == 0


def test_a_smaller_window_keeps_the_newest_steps() -> None:
    window, smaller = filled(), SpikeWindow(16)
    smaller.load_state(window.state())
    assert list(smaller.losses) == list(window.losses)[-16:]
