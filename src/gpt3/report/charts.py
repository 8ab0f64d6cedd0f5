"""Which series go into which chart. Every numeric series finds a place; unknown ones are in the last group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

HELD_OUT = "held-out"
"""How the run's own validation set is called on the page."""
TRAINING = (
    # key, title, unit, format, whether the axis starts at 0, whether skipped steps are marked
    ("lr", "Learning rate", "", "number", True, False),
    ("batch_tokens", "Batch size", "tokens per step", "compact", True, False),
    ("grad_norm", "Gradient norm", "before clipping", "number", False, True),
    ("tokens_per_s", "Throughput", "tokens per second", "compact", True, False),
    ("mfu", "MFU", "share of the measured peak", "percent", True, False),
)
METRICS = {
    "bits_per_byte": ("Bits per byte", "", "number"),
    "perplexity": ("Perplexity", "", "number"),
}
VALIDATION, SHARE = "val/", "share/"


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

    metrics = [metric for _, metric in validations.values() if metric not in ("loss", "tokens")]
    ranked = sorted(dict.fromkeys(metrics), key=lambda m: list(METRICS).index(m) if m in METRICS else len(METRICS))
    validation = [
        _chart(f"Loss: {name}", [(key, name)], unit="nats per token", focus=True)
        for key, name in losses
        if (key, name) not in beside
    ]
    for metric in ranked:
        title, unit, form = METRICS.get(metric, (metric.replace("_", " ").capitalize(), "", "number"))
        found = [(key, name) for key, (name, own) in validations.items() if own == metric]
        validation.append(_chart(title, found, unit=unit, form=form, focus=True))

    training = [
        _chart(title, [(key, title.lower())], unit=unit, form=form, zero=zero, marks=marks)
        for key, title, unit, form, zero, marks in TRAINING
        if key in keys
    ]
    shares = [(key, key.removeprefix(SHARE)) for key in keys if key.startswith(SHARE)]
    known = {"loss", *validations, *(key for key, *_ in TRAINING), *(key for key, _ in shares)}
    other = [_chart(key, [(key, key)]) for key in keys if key not in known]
    groups = [
        ("", [loss]),
        ("Validation", validation),
        ("Training", training),
        ("Mixture", [_chart("Share of tokens drawn", shares, unit="by source", form="percent", zero=True)]),
        ("Evaluations and other numbers", other),
    ]
    drawn = [(title, [chart for chart in charts if chart["series"]]) for title, charts in groups]
    return [{"title": title, "charts": charts} for title, charts in drawn if charts]


def validation_key(key: str) -> tuple[str, str]:
    """The set's name and the metric of ``val/METRIC`` (the run's own set) or ``val/NAME/METRIC``."""
    name, _, metric = key.removeprefix(VALIDATION).rpartition("/")
    return name or HELD_OUT, metric


def _chart(
    title: str,
    series: list[tuple[str, str]],
    unit: str = "",
    form: str = "number",
    zero: bool = False,
    marks: bool = False,
    wide: bool = False,
    focus: bool = False,
) -> dict[str, Any]:
    return {
        "title": title,
        "unit": unit,
        "format": form,
        "zero": zero,
        "marks": marks,
        "wide": wide,
        "focus": focus,
        "series": [{"key": key, "label": label} for key, label in series],
    }
