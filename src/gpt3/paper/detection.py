"""How well readers tell generated articles from human ones (section 3.9.4): accuracy, t-test against the control, power law.

A session is one reader's answers about one model. An answer is 0 to 4, from "very likely written by a human" to "very likely
written by a machine"; 2 is "I don't know" and counts neither as right nor as wrong. The quiz's page computes the same, in
assets/quiz.js.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from gpt3.errors import require

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


def t_test(some: Sequence[float], others: Sequence[float]) -> TTest | None:
    """Whether two means differ; None: too few values, or all are equal.

    Raises:
        InputError: SciPy is not installed.
    """
    if min(len(some), len(others)) < 2 or np.var(some) + np.var(others) == 0:
        return None
    found = statistics().ttest_ind(some, others)
    return TTest(float(found.statistic), float(found.pvalue))


def margin(values: Sequence[float]) -> float | None:
    """Half of the 95% interval of a mean; None: fewer than two values."""
    if len(values) < 2:
        return None
    stats = statistics()
    return float(stats.t.ppf(0.975, len(values) - 1) * stats.sem(values))


def statistics() -> Any:
    """SciPy's."""
    return require("scipy.stats", extra="paper", purpose="statistics of readers' answers")


def power_law(points: Sequence[tuple[float, float]]) -> PowerLaw | None:
    """The law through (parameters, mean accuracy); None: fewer than two sizes, or an accuracy of 0."""
    if len({size for size, _ in points}) < 2 or min(value for _, value in points) <= 0:
        return None
    sizes, values = np.log(np.array(points)).T
    exponent, intercept = np.polyfit(sizes, values, 1)
    return PowerLaw(float(np.exp(intercept)), float(exponent))
