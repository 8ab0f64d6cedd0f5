"""How well readers tell generated articles from human ones (section 3.9.4): accuracy, t-test against the control, power law.

A session is one reader's answers about one model. An answer is 0 to 4, from "very likely written by a human" to "very likely
written by a machine"; 2 is "I don't know" and counts neither as right nor as wrong. The quiz's page computes the same, in
assets/quiz.js.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

UNSURE = 2
"""The answer "I don't know"."""
Session = Mapping[str, Any]
"""``model``, and ``answers``: of each article ``machine``, whether a model wrote it, and ``answer``."""


class TTest(NamedTuple):
    """Student's two-sample t-test with equal variances, two-sided."""

    t: float
    p: float


class PowerLaw(NamedTuple):
    """accuracy = factor x parameters^exponent, least squares on logarithms."""

    factor: float
    exponent: float


def accuracy(session: Session) -> float | None:
    """Right answers over those that are not "I don't know"; None: there are none."""
    decided = [one for one in session["answers"] if one["answer"] != UNSURE]
    right = sum((one["answer"] > UNSURE) == one["machine"] for one in decided)
    return right / len(decided) if decided else None


def accuracies(sessions: Sequence[Session], model: str) -> list[float]:
    """Of each session about a model."""
    found = [accuracy(session) for session in sessions if session["model"] == model]
    return [value for value in found if value is not None]


def unsure(sessions: Sequence[Session], model: str) -> float:
    """The share of "I don't know" among all answers about a model."""
    answers = [one["answer"] for session in sessions if session["model"] == model for one in session["answers"]]
    return answers.count(UNSURE) / len(answers) if answers else 0.0


def tail(t: float, freedom: int) -> float:
    """P(|T| > t) of Student's distribution: ∫ cos(x)^(freedom - 1) from atan(t / √freedom) to π/2, over that from 0."""
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def integral(low: float) -> float:
        half = (math.pi / 2 - low) / 2
        return float(half * np.sum(weights * np.cos(low + half * (nodes + 1)) ** (freedom - 1)))

    return integral(math.atan(abs(t) / math.sqrt(freedom))) / integral(0.0)


def t_test(some: Sequence[float], others: Sequence[float]) -> TTest | None:
    """Whether two means differ; None: too few values, or all are equal."""
    freedom = len(some) + len(others) - 2
    if min(len(some), len(others)) < 2:
        return None
    pooled = (np.var(some, ddof=1) * (len(some) - 1) + np.var(others, ddof=1) * (len(others) - 1)) / freedom
    if pooled == 0:
        return None
    t = float((np.mean(some) - np.mean(others)) / math.sqrt(pooled * (1 / len(some) + 1 / len(others))))
    return TTest(t, tail(t, freedom))


def margin(values: Sequence[float]) -> float | None:
    """Half of the 95% interval of a mean; None: fewer than two values."""
    if len(values) < 2:
        return None
    low, high = 0.0, 1e3
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if tail(middle, len(values) - 1) > 0.05 else (low, middle)
    return float(high * np.std(values, ddof=1) / math.sqrt(len(values)))


def power_law(points: Sequence[tuple[float, float]]) -> PowerLaw | None:
    """The law through (parameters, mean accuracy); None: fewer than two sizes, or an accuracy of 0."""
    if len({size for size, _ in points}) < 2 or min(value for _, value in points) <= 0:
        return None
    sizes, values = np.log(np.array(points)).T
    exponent, intercept = np.polyfit(sizes, values, 1)
    return PowerLaw(float(np.exp(intercept)), float(exponent))
