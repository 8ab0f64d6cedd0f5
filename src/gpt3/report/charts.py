"""From records to charts: curves with a moving average, an honest thinning of long ones, and the place of each on the page."""

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
"""Near the start the time constant is this share of the tokens so far."""
SMOOTHED = frozenset({"loss", "grad_norm"})
"""The series drawn with a moving average: those of single batches."""
NOT_PLOTTED = frozenset({"step", "tokens", "seconds", "kwh", "noise_square", "noise_trace"})
Curve = Sequence[np.ndarray]
"""Steps, tokens, values, and the low and high ends of their intervals: float64 of one length, NaN for nothing."""
HELD_OUT = "held-out"
"""How the run's own validation set is called on the page."""
TRAINING: dict[str, tuple[str, dict[str, Any]]] = {
    "lr": ("Learning rate", {"zero": True}),
    "batch_tokens": ("Batch size", {"unit": "tokens per step", "format": "compact", "zero": True}),
    "grad_norm": ("Gradient norm", {"unit": "before clipping", "marks": True}),
    "noise_scale": ("Gradient noise scale", {"unit": "tokens", "format": "compact", "zero": True}),
    "tokens_per_s": ("Throughput", {"unit": "tokens per second", "format": "compact", "zero": True}),
    "mfu": ("MFU", {"unit": "share of the measured peak", "format": "percent", "zero": True}),
}
METRICS = {"bits_per_byte": "Bits per byte", "perplexity": "Perplexity"}
VALIDATION, SHARE = "val/", "share/"
AMOUNTS = ("tokens", "documents")
"""Of a validation: how much text its figures are of. They say nothing about the run and have no chart."""
LOOK = {"unit": "", "format": "number"} | dict.fromkeys(("zero", "marks", "wide", "focus"), False)
"""A chart's unless it says otherwise; see `chart_groups`."""


# ---- curves


def series_of(records: Sequence[dict[str, Any]], most: int = MOST_POINTS) -> dict[str, dict[str, Any]]:
    """Every numeric series of a run, ready for the page.

    Args:
        records: metrics records in the order of steps.
        most: points a series may have; a longer one is cut into this many runs of neighboring records.

    Returns:
        For each key the lists ``step``, ``tokens``, ``y``, and where there are any ``low``/``high`` and ``smooth``, all of one
        length, None for a value that is not finite; ``count``, the records it was made of; ``thinned``, whether ``y`` is a
        bucket's mean and ``low``/``high`` its extremes. Otherwise ``low``/``high`` are the record's ``KEY_low``/``KEY_high``.
    """
    every = set().union(*records)
    bounds = {key.removesuffix("_low") for key in every if key.endswith("_low")}  # keys that come with an interval
    passed = NOT_PLOTTED | {f"{key}{end}" for key in bounds for end in ("_low", "_high")}
    columns: dict[str, list[tuple[int, Any, Any, Any, Any]]] = {}
    for record in records:
        for key, value in record.items():
            if key not in passed and (value is None or type(value) in (int, float)):
                low, high = (record.get(f"{key}_low"), record.get(f"{key}_high")) if key in bounds else (None, None)
                columns.setdefault(key, []).append((record["step"], record.get("tokens"), value, low, high))
    result = {}
    for key, rows in columns.items():
        curve = [_array(column) for column in zip(*rows, strict=True)]
        step, tokens, y, *_ = curve
        if np.isfinite(y).any():
            result[key] = thin(curve, _smooth(step, tokens, y) if key in SMOOTHED else None, most)
    return result


def thin(curve: Curve, smooth: np.ndarray | None, most: int) -> dict[str, Any]:
    """Cut into at most `most` buckets of neighbors: the mean, with the least and the greatest as ``low`` and ``high``.

    So no spike and no dip disappears, however long the run.
    """
    step, tokens, y, low, high = curve
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
    tokens so far; so the curve follows the fall and is not pulled towards a start value.

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


# ---- charts


def chart_groups(keys: Sequence[str], many: bool = False) -> list[dict[str, Any]]:
    """The page's charts in groups, for the series called `keys`; charts without a series are left out.

    Args:
        many: several runs share the charts; then each further validation set's loss has a chart of its own.

    Returns:
        Groups of ``title`` and ``charts``. A chart has ``title``, ``unit``, ``format`` (number, compact, percent) and ``series``
        (a list of ``key`` and ``label``). Its axis starts at 0 with ``zero``; skipped steps are marked with ``marks``; ``wide``
        makes it as wide as the page; ``focus`` cuts off the fall at the very start until it is asked for.
    """
    validations = {key: validation_key(key) for key in keys if key.startswith(VALIDATION)}
    losses = [(key, name) for key, (name, metric) in validations.items() if metric == "loss"]
    train = [("loss", "train")] if "loss" in keys else []
    beside = [(key, name) for key, name in losses if name == HELD_OUT] if many else losses
    loss = _chart("Loss", train + beside, unit="nats per token", marks=True, wide=True, focus=True)

    metrics = dict.fromkeys(metric for _, metric in validations.values() if metric not in ("loss", *AMOUNTS))
    ranked = [metric for metric in METRICS if metric in metrics] + [
        metric for metric in metrics if metric not in METRICS
    ]
    validation = [
        _chart(f"Loss: {name}", [(key, name)], unit="nats per token", focus=True)
        for key, name in losses
        if (key, name) not in beside
    ]
    for metric in ranked:
        title = METRICS.get(metric, metric.replace("_", " ").capitalize())
        found = [(key, name) for key, (name, own) in validations.items() if own == metric]
        validation.append(_chart(title, found, focus=True))

    training = [_chart(title, [(key, title.lower())], **look) for key, (title, look) in TRAINING.items() if key in keys]
    shares = [(key, key.removeprefix(SHARE)) for key in keys if key.startswith(SHARE)]
    known = {"loss", *validations, *TRAINING, *dict(shares)}
    other = [_chart(key, [(key, key)]) for key in keys if key not in known]
    groups = [
        ("", [loss]),
        ("Validation", validation),
        ("Training", training),
        ("Mixture", [_chart("Share of tokens drawn", shares, unit="by source", format="percent", zero=True)]),
        ("Evaluations and other numbers", other),
    ]
    drawn = [(title, [chart for chart in charts if chart["series"]]) for title, charts in groups]
    return [{"title": title, "charts": charts} for title, charts in drawn if charts]


def validation_key(key: str) -> tuple[str, str]:
    """The set's name and the metric of ``val/METRIC`` (the run's own set) or ``val/NAME/METRIC``."""
    name, _, metric = key.removeprefix(VALIDATION).rpartition("/")
    return name or HELD_OUT, metric


def _chart(title: str, series: list[tuple[str, str]], **look: Any) -> dict[str, Any]:
    return {"title": title} | LOOK | look | {"series": [{"key": key, "label": label} for key, label in series]}
