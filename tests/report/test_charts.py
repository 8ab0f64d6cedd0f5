"""Curves: the moving average against pandas, thinning that hides nothing, and a place for every number."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpt3.report.charts import chart_groups, moving_average, series_of, thin

FINITE = st.floats(-1e6, 1e6)
GAPPY = st.one_of(FINITE, st.just(math.nan))


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 1000), GAPPY), min_size=1, max_size=60), st.floats(1, 500), st.integers(0, 10**6)
)
def test_far_from_the_start_it_is_the_exponentially_weighted_mean_of_pandas(rows, scale: float, start: int) -> None:
    pandas = pytest.importorskip("pandas")
    x = np.cumsum([step for step, _ in rows]) + start
    y = [value for _, value in rows]
    # a first point with no value, far back: from there on the time constant is `scale` itself
    ours = moving_average([-1e9, *x.tolist()], [math.nan, *y], scale)[1:]
    times = pandas.to_datetime(x, unit="s")
    halflife = pandas.Timedelta(seconds=scale * math.log(2))
    theirs = pandas.Series(y).ewm(halflife=halflife, times=times).mean()
    size = max([abs(v) for v in y if math.isfinite(v)], default=0.0)
    assert ours == pytest.approx(theirs.tolist(), rel=1e-6, abs=1e-6 * (1 + size), nan_ok=True)


@settings(deadline=None)
@given(st.lists(GAPPY, min_size=1, max_size=80), st.floats(0.1, 100))
def test_a_moving_average_stays_within_what_came_so_far(y: list[float], scale: float) -> None:
    smooth = moving_average(list(range(len(y))), y, scale)
    for i, value in enumerate(smooth):
        past = [v for v in y[: i + 1] if math.isfinite(v)]
        assert math.isnan(value) if not past else min(past) - 1e-6 <= value <= max(past) + 1e-6


def test_a_steep_start_is_followed() -> None:
    """A loss that falls tenfold over the first percent is not dragged behind for several percents."""
    x = np.arange(10_000.0)
    y = 1 + 9 * np.exp(-x / 100)
    smooth = np.array(moving_average(x.tolist(), y.tolist(), 200.0))
    assert np.abs(smooth - y).max() < 0.5


@settings(deadline=None)
@given(st.lists(GAPPY, min_size=1, max_size=300), st.integers(1, 40))
def test_thinning_hides_no_value(y: list[float], most: int) -> None:
    values, nothing = np.array(y), np.full(len(y), np.nan)
    step = np.arange(len(y), dtype=float)
    thinned = thin([step, step * 10, values, nothing, nothing], None, most)
    assert thinned["count"] == len(y)
    assert len(thinned["y"]) == min(len(y), most) == len(thinned["step"]) == len(thinned["tokens"])
    finite = values[np.isfinite(values)]
    if thinned["thinned"] and len(finite):
        lows, highs = ([v for v in thinned[key] if v is not None] for key in ("low", "high"))
        assert min(lows) == pytest.approx(finite.min(), rel=1e-5)
        assert max(highs) == pytest.approx(finite.max(), rel=1e-5)
        for low, mean, high in zip(thinned["low"], thinned["y"], thinned["high"], strict=True):
            assert (low is None) == (mean is None) == (high is None)
            if mean is not None:
                slack = 1e-5 * max(abs(low), abs(high)) + 1e-9
                assert low - slack <= mean <= high + slack
    if not thinned["thinned"]:
        assert thinned["y"] == [pytest.approx(v, rel=1e-5) if math.isfinite(v) else None for v in y]


def test_series_take_numbers_and_their_intervals() -> None:
    records = [
        {"step": 1, "tokens": 10, "loss": 9.0, "lr": None, "note": "text", "fine": True},
        {"step": 2, "tokens": 20, "val/loss": 8.0, "val/loss_low": 7.5, "val/loss_high": 8.5},
        {"step": 3, "loss": math.nan, "tokens": "?", "skipped": "loss"},
        {"step": 4, "tokens": 40, "loss": 7},
    ]
    series = series_of(records)
    assert set(series) == {"loss", "val/loss"}  # lr has no finite value
    assert series["loss"]["step"] == [1, 3, 4]
    assert series["loss"]["tokens"] == [10, None, 40]
    assert series["loss"]["y"] == [9, None, 7]
    assert (series["val/loss"]["low"], series["val/loss"]["high"]) == ([7.5], [8.5])
    assert series_of([]) == {}


NAMES = st.sampled_from(
    [
        "loss",
        "lr",
        "batch_tokens",
        "grad_norm",
        "tokens_per_s",
        "mfu",
        "val/loss",
        "val/perplexity",
        "val/tokens",
        "val/documents",
        "val/a/documents",
        "val/a/loss",
        "val/a/b/loss",
        "val/a/x",
        "share/wiki",
        "eval/arithmetic/accuracy",
        "ema_decay",
    ]
)


@settings(deadline=None)
@given(st.lists(NAMES, unique=True), st.booleans())
def test_every_series_is_in_exactly_one_chart(keys: list[str], many: bool) -> None:
    groups = chart_groups(keys, many)
    drawn = [series["key"] for group in groups for chart in group["charts"] for series in chart["series"]]
    assert sorted(drawn) == sorted(key for key in keys if not key.endswith(("/tokens", "/documents")))
    assert all(chart["series"] for group in groups for chart in group["charts"])


def test_validation_sets_share_the_chart_of_the_train_loss() -> None:
    (loss, *_) = chart_groups(["loss", "val/loss", "val/books/loss", "eval/x"])[0]["charts"]
    assert [(s["key"], s["label"]) for s in loss["series"]] == [
        ("loss", "train"), ("val/loss", "held-out"), ("val/books/loss", "books")
    ]  # fmt: skip
    assert chart_groups(["loss", "eval/x"])[-1]["title"].startswith("Evaluations")
