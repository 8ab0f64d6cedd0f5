"""Laws of the loss: over parameters and tokens together, and over compute; fitted to runs, with intervals from resampled runs.

    L(N, D) = E + ((A / N^a)^4 + (B / D^b)^4)^(1/4)

has the parts of Hoffmann et al. 2022 (arXiv 2203.15556, eq. 2), and is fitted as there: Huber's loss on the logarithm. They are
joined as in the law of `gpt3 train --model auto` (gpt3.training.law) and in Kaplan et al. 2020, eq. 1.5: where one of the two
limits a run, the other helps little. N is the parameters of the layers. D is the tokens read; those read again count less
(`gpt3.training.law.Amount.worth`). L(C) = c C^-k is the paper's form (Figure 3.1), fitted to the best run of each compute.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpt3.errors import require

JOIN = 4
"""The power with which the two parts are joined; with 1, their sum, short runs of large models come out too well."""
HUBER = 1e-3
"""Residuals of log L above this count linearly."""
DRAWS = 100
"""Resampled fits."""
LOWEST, HIGHEST = np.log([1e-4, 1e-4, 1e-4, 0.01, 0.01]), np.log([1.0, 10.0, 10.0, 2.0, 2.0])
"""Of `nearest`'s numbers."""
STARTS = ((0.5, 0.3), (0.35, 0.4), (0.2, 0.2), (0.6, 0.6))
"""Powers from which fits begin."""
CHEAPER, LEAST_FITTED = 0.6, 6
"""Part of the runs, and how many at least, of the law that `Fit.beyond` tries on the others."""
LEVEL = 0.95
"""Of the intervals."""


@dataclass(frozen=True)
class Point:
    """A run."""

    parameters: float
    """N, of the layers."""
    tokens: float
    """D: those read, with repeats counted less."""
    loss: float
    compute: float = 0.0
    """Floating-point operations: 6 N times all tokens read."""


@dataclass(frozen=True)
class Law:
    """L(N, D) by its letters."""

    floor: float
    """E."""
    model: float
    """A."""
    model_power: float
    """a."""
    data: float
    """B."""
    data_power: float
    """b."""

    def loss(self, parameters: float, tokens: float) -> float:
        """L(N, D); infinite arguments give L(N) and L(D)."""
        model, data = self.model / parameters**self.model_power, self.data / tokens**self.data_power
        return float(self.floor + (model**JOIN + data**JOIN) ** (1 / JOIN))


@dataclass(frozen=True)
class Interval:
    """A value with the interval at `LEVEL`."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fit:
    """A law with what is not known of it."""

    law: Law
    others: Sequence[Law]
    """Fits to the law's losses of the runs with residuals drawn anew: what other runs of the same kind could give."""
    residuals: Sequence[float]
    """log L of the runs minus the law's, enlarged for the numbers that were fitted to them."""
    beyond: float = 0.0
    """How far log L of the dearer runs is from a law of the cheaper ones, root mean square: what the law's form gets wrong."""

    def predict(self, parameters: float, tokens: float, seed: int = 0) -> Interval:
        """The loss of a run beyond the fitted ones, with the interval of the other fits, a run's own residual and `beyond`."""
        rng = np.random.default_rng(seed)
        own = rng.choice(self.residuals, len(self.others)) + self.beyond * rng.standard_normal(len(self.others))
        values = np.array([law.loss(parameters, tokens) for law in self.others]) * np.exp(own)
        low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Interval(self.law.loss(parameters, tokens), float(low), float(high))


def fit(points: Sequence[Point], seed: int = 0) -> Fit:
    """The law nearest to the runs, and those nearest to resampled ones."""
    law = nearest(points, [(0.5, 0.3, 0.3, *powers) for powers in STARTS])
    expected = np.array([law.loss(point.parameters, point.tokens) for point in points])
    left = np.log([point.loss for point in points] / expected) * math.sqrt(len(points) / max(1, len(points) - 5))
    rng, others = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        losses = expected * np.exp(rng.choice(left, len(points)))
        drawn = [replace(point, loss=float(loss)) for point, loss in zip(points, losses, strict=True)]
        others.append(nearest(drawn, [_shares(law, points)]))
    return Fit(law, others, left.tolist(), missed_beyond(points))


def missed_beyond(points: Sequence[Point]) -> float:
    """`Fit.beyond`; 0 where the cheaper runs are too few for a fit."""
    ordered = sorted(points, key=lambda point: point.compute)
    known = ordered[: round(CHEAPER * len(ordered))]
    if len(known) < LEAST_FITTED:
        return 0.0
    law = nearest(known, [(0.5, 0.3, 0.3, *powers) for powers in STARTS])
    missed = [math.log(point.loss / law.loss(point.parameters, point.tokens)) for point in ordered[len(known) :]]
    return math.sqrt(sum(value**2 for value in missed) / len(missed))


def nearest(points: Sequence[Point], starts: Sequence[Sequence[float]]) -> Law:
    """The law nearest to the runs.

    Args:
        starts: E and the two terms as parts of the lowest loss at the geometric middle of the runs, and the powers.
    """
    at_size, at_tokens = middle(points)
    size = np.log([point.parameters / at_size for point in points])
    tokens = np.log([point.tokens / at_tokens for point in points])
    targets = np.log([point.loss for point in points])
    lowest = float(targets.min())

    def parts(logs: np.ndarray) -> tuple[Any, Any, Any, Any]:
        floor, model, data, a, b = np.exp(logs)
        by_size, by_tokens = (model * np.exp(-a * size)) ** JOIN, (data * np.exp(-b * tokens)) ** JOIN
        return floor, by_size, by_tokens, (by_size + by_tokens) ** (1 / JOIN)

    def residuals(logs: np.ndarray) -> np.ndarray:
        floor, _, _, joined = parts(logs)
        return np.asarray(targets - lowest - np.log(floor + joined))

    def slopes(logs: np.ndarray) -> np.ndarray:
        (floor, by_size, by_tokens, joined), (a, b) = parts(logs), np.exp(logs[3:])
        rate = joined ** (1 - JOIN)
        model, data = rate * by_size, rate * by_tokens
        columns = np.stack([np.full_like(size, floor), model, data, -a * size * model, -b * tokens * data], 1)
        return np.asarray(-columns / (floor + joined)[:, None])

    least_squares = optimizer().least_squares

    def at(start: Sequence[float]) -> Any:
        begin = np.clip(np.log(start), LOWEST + 1e-6, HIGHEST - 1e-6)
        return least_squares(residuals, begin, jac=slopes, bounds=(LOWEST, HIGHEST), loss="huber", f_scale=HUBER)

    best = min((at(start) for start in starts), key=lambda found: float(found.cost))
    floor, model, data, a, b = (float(value) for value in np.exp(best.x))
    scale = math.exp(lowest)
    return Law(scale * floor, scale * model * at_size**a, a, scale * data * at_tokens**b, b)


def optimizer() -> Any:
    """SciPy's.

    Raises:
        InputError: it is not installed.
    """
    return require("scipy.optimize", extra="paper", purpose="fitting laws")


def middle(points: Sequence[Point]) -> tuple[float, float]:
    """The geometric means of the runs' parameters and tokens."""
    logs = np.log([(point.parameters, point.tokens) for point in points]).mean(0)
    return math.exp(logs[0]), math.exp(logs[1])


def _shares(law: Law, points: Sequence[Point]) -> tuple[float, ...]:
    """A law as `nearest` starts from it."""
    size, tokens = middle(points)
    lowest = min(point.loss for point in points)
    parts = law.floor, law.model / size**law.model_power, law.data / tokens**law.data_power
    return (*(max(part / lowest, 1e-9) for part in parts), law.model_power, law.data_power)


def frontier(points: Sequence[Point]) -> list[Point]:
    """The runs that no run of less or the same compute beats, least compute first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.compute, point.loss)):
        if not best or point.loss < best[-1].loss:
            best.append(point)
    return best


def power_law(xs: Sequence[float], losses: Sequence[float], seed: int = 0) -> tuple[Interval, Interval]:
    """c and k of L = c x^-k by least squares on logarithms, with the intervals of resampled points."""
    logs = np.log([xs, losses])

    def line(chosen: np.ndarray) -> tuple[float, float]:
        slope, level = np.polyfit(chosen[0], chosen[1], 1)
        return math.exp(level), -float(slope)

    rng = np.random.default_rng(seed)
    draws: list[tuple[float, float]] = []
    while len(draws) < DRAWS and len(xs) > 2:
        chosen = logs[:, rng.integers(0, len(xs), len(xs))]
        if np.ptp(chosen[0]) > 0:
            draws.append(line(chosen))
    intervals = []
    for value, drawn in zip(line(logs), zip(*(draws or [line(logs)]), strict=True), strict=True):
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        intervals.append(Interval(value, float(low), float(high)))
    return intervals[0], intervals[1]
