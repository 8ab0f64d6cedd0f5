"""From records to curves: columns of numbers, their moving average, and an honest thinning of long ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpt3.report.run_folder import number

MOST_POINTS = 800
"""Points a curve may have on the page: about one for each of a chart's pixels."""
SMOOTHING = 0.02
"""The moving average's time constant, as a share of the run."""
START = 0.1
"""Near the start the time constant is this share of the way come so far."""
SMOOTHED = frozenset({"loss", "grad_norm"})
"""The series drawn with a moving average: those of single batches."""
NOT_PLOTTED = frozenset({"step", "tokens", "seconds"})


def series_of(records: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> dict[str, dict[str, Any]]:
    """Every numeric series of a run, ready for the page.

    Args:
        records: metrics records in the order of steps.
        most: points a series may have; a longer one is cut into this many runs of neighbouring records.

    Returns:
        For each key the lists ``step``, ``tokens``, ``y``, and where there are any ``low``/``high`` and ``smooth``, all of one
        length, None for a value that is not finite; ``count``, the records it was made of; ``thinned``, whether ``y`` is a
        bucket's mean and ``low``/``high`` its extremes. Otherwise ``low``/``high`` are the record's ``KEY_low``/``KEY_high``.
    """
    every = set().union(*records) if records else set()
    bounds = {key.removesuffix("_low") for key in every if key.endswith("_low")}  # keys that come with an interval
    intervals = {f"{key}{end}" for key in bounds for end in ("_low", "_high")}
    columns: dict[str, list[tuple[int, Any, Any, Any, Any]]] = {}
    passed = NOT_PLOTTED | intervals
    for record in records:
        for key, value in record.items():
            if key in passed or not (value is None or type(value) in (int, float)):
                continue
            low, high = (record.get(f"{key}_low"), record.get(f"{key}_high")) if key in bounds else (None, None)
            columns.setdefault(key, []).append((record["step"], record.get("tokens"), value, low, high))
    result = {}
    for key, rows in columns.items():
        step, tokens, y, low, high = (_array(column) for column in zip(*rows, strict=True))
        if np.isfinite(y).any():
            smooth = _smooth(step, tokens, y) if key in SMOOTHED else None
            result[key] = thin(step, tokens, y, low, high, smooth, most)
    return result


def thin(
    step: np.ndarray,
    tokens: np.ndarray,
    y: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    smooth: np.ndarray | None,
    most: int,
) -> dict[str, Any]:
    """Cut into at most `most` buckets of neighbours: the mean, with the least and the greatest as ``low`` and ``high``.

    So no spike and no dip disappears, however long the run. All arrays are float64 of one length, NaN for nothing.
    """
    count, thinned = len(y), len(y) > most
    if thinned:
        starts = np.linspace(0, count, most, endpoint=False).astype(int)
        finite = np.isfinite(y)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.add.reduceat(np.where(finite, y, 0.0), starts) / np.add.reduceat(finite.astype(float), starts)
        least = np.fmin.reduceat(np.fmin(y, low), starts)  # fmin ignores NaN
        greatest = np.fmax.reduceat(np.fmax(y, high), starts)
        middle = (starts + np.append(starts[1:], count) - 1) // 2
        step, tokens, y, low, high = step[middle], tokens[middle], mean, least, greatest
        smooth = smooth[middle] if smooth is not None else None
    result: dict[str, Any] = {"step": _list(step, 15), "tokens": _list(tokens, 15), "y": _list(y)}
    if np.isfinite(low).any() and np.isfinite(high).any():
        result |= {"low": _list(low), "high": _list(high)}
    if smooth is not None:
        result["smooth"] = _list(smooth)
    return result | {"count": count, "thinned": thinned}


def moving_average(x: Sequence[float], y: Sequence[float], scale: float) -> list[float]:
    """The mean of all values up to each point, with weights that fall off exponentially with distance.

    The distance over which a weight falls to 1/e is `scale`, and near the start, where a loss falls fastest, a tenth of the
    way come so far; so the curve follows the fall and is not pulled towards a start value.

    Args:
        x: positions, ascending, of any spacing.
        y: values; one that is not finite counts nothing.
        scale: above 0, in units of `x`.
    """
    result = []
    mean, weight = math.nan, 0.0
    first = last = x[0] if len(x) else 0.0
    for position, value in zip(x, y, strict=True):
        reach = min(scale, START * (position - first))
        decay = math.exp((last - position) / reach) if reach > 0.0 else 1.0
        weight, last = weight * decay, position
        if math.isfinite(value):
            weight += 1.0
            mean = value if math.isnan(mean) else mean + (value - mean) / weight
        result.append(mean)
    return result


def _smooth(step: np.ndarray, tokens: np.ndarray, y: np.ndarray) -> np.ndarray:
    x = tokens if np.isfinite(tokens).all() and (np.diff(tokens) >= 0).all() else step
    scale = SMOOTHING * float(x[-1] - x[0])
    if scale <= 0.0:
        return y
    smooth = np.array(moving_average(x.tolist(), y.tolist(), scale))
    return np.where(np.isfinite(y), smooth, np.nan)  # a gap in the curve stays one


def _array(values: Sequence[Any]) -> np.ndarray:
    try:
        array = np.array(values, dtype=np.float64)  # None becomes NaN
    except (TypeError, ValueError, OverflowError):
        array = np.array([math.nan if (n := number(value)) is None else n for value in values], dtype=np.float64)
    return np.where(np.isfinite(array), array, np.nan)


def _list(values: np.ndarray, digits: int = 6) -> list[float | None]:
    """Numbers as JSON has them, to `digits` significant digits: whole ones without a fraction, NaN as None."""
    result: list[float | None] = []
    for value in values.tolist():
        rounded = float(f"{value:.{digits}g}") if math.isfinite(value) else None
        result.append(int(rounded) if rounded is not None and rounded.is_integer() else rounded)
    return result
