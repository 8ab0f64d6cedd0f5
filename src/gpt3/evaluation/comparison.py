"""Two models on the same questions: which differences are real, by paired bootstrap (Koehn 2004).

Each question's difference is drawn again, with replacement, `ROUNDS` times. The interval holds the middle 95% of the means; p is
twice the share of means on the other side of zero. A difference counts as real if p stays below 5% after Holm's correction for
the number of rows, so that of a table of equal models at most one in twenty names any difference.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from gpt3.evaluation import Result, Task
from gpt3.tables import aligned

ROUNDS = 10_000
"""Bootstrap samples."""
LEVEL = 0.05
"""Of the p of all rows together, and of the part outside an interval."""
CELLS = 1 << 22
"""Counts of one draw held in memory."""
Answers = dict[tuple[str, int], list[Result]]
"""The results of each question, by task and number of few-shot examples."""


@dataclass(frozen=True)
class Difference:
    """A figure of the second model minus that of the first, over the questions that both answered."""

    name: str
    """Of the task or group."""
    shots: int
    """Few-shot examples."""
    metric: str
    questions: int
    first: float
    """The first model's mean: 0 to 1, or nats."""
    second: float
    low: float
    """The 95% interval of second - first."""
    high: float
    p: float
    """Two-sided, of this row alone."""
    real: bool
    """Whether p is below 5% after Holm's correction for the rows of the table."""


@dataclass(frozen=True, repr=False)
class Comparison:
    """A model compared with another one. Its repr is the table."""

    first: str
    """The model that the other is compared with."""
    second: str
    differences: list[Difference]

    def __repr__(self) -> str:
        if not self.differences:
            return f"{self.second} compared with {self.first}: no task has the same questions and examples for both."
        cells = [("task", "K", "n", "metric", "first", "second", "difference", "95% interval", "p", "real")]
        for one in self.differences:
            scale, form = (1, ".3f") if one.metric == "nll" else (100, ".2f")
            first, second, low, high = (scale * value for value in (one.first, one.second, one.low, one.high))
            span = f"{low:+{form}} to {high:+{form}}"
            shown = (f"{first:{form}}", f"{second:{form}}", f"{second - first:+{form}}", span, f"{one.p:.4f}")
            cells.append(
                (one.name, str(one.shots), f"{one.questions:,}", one.metric, *shown, "yes" if one.real else "no")
            )
        line = tuple("─" * max(map(len, column)) for column in zip(*cells, strict=True))
        head = f"first: {self.first}\nsecond: {self.second}"
        return "\n".join([head, *aligned([cells[0], line, *cells[1:]], left=(0, 3))])


def compare(
    tasks: Mapping[str, Task],
    groups: Mapping[str, Sequence[str]],
    names: tuple[str, str],
    answers: tuple[Answers, Answers],
) -> Comparison:
    """The differences of two models, in the order of the first one's tasks, then of the groups.

    Left out are tasks with other numbers of few-shot examples for the two, because these do not fit, and those whose figures
    are of all answers together: BLEU and gender.

    Args:
        tasks: by name.
        groups: the tasks of each group to average.
        names: of the models.
        answers: of both, to the same questions.
    """
    rows: list[tuple[str, int, str, list[np.ndarray]]] = []  # of each task (2, questions): first and second
    for task, shots in answers[0]:
        if (task, shots) in answers[1]:
            for metric in metrics_of(tasks[task], answers[0][task, shots][0]):
                both = [[result.metrics[metric] for result in some[task, shots]] for some in answers]
                rows.append((task, shots, metric, [np.array(both)]))
    for group, members in groups.items():
        of_group = [row for row in rows if row[0] in members and row[2] == "acc"]
        count = len({row[0] for row in of_group})
        for shots in sorted({row[1] for row in of_group}):
            some = [row[3][0] for row in of_group if row[1] == shots]
            if len(some) == count > 1:
                rows.append((group, shots, "acc", some))
    found = [_difference(*row) for row in rows]
    real = holm([one.p for one in found])
    return Comparison(*names, [dataclasses.replace(one, real=yes) for one, yes in zip(found, real, strict=True)])


def metrics_of(task: Task, result: Result) -> list[str]:
    """The task's first figure that each question has, and nats where it has a perplexity; none of all answers together (BLEU)."""
    found = [name for name in task.metrics if name in result.metrics][:1]
    return found + ["nll"] * ("ppl" in task.metrics and "nll" in result.metrics)


def _difference(name: str, shots: int, metric: str, parts: Sequence[np.ndarray]) -> Difference:
    """Means over the parts of the means of their questions."""
    first, second = (float(np.mean([part[side].mean() for part in parts])) for side in (0, 1))
    draw = np.random.default_rng(0)
    means = np.mean([resampled(part[1] - part[0], draw) for part in parts], axis=0)
    low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
    count = sum(part.shape[1] for part in parts)
    return Difference(name, shots, metric, count, first, second, float(low), float(high), two_sided(means), False)


def resampled(values: np.ndarray, draw: np.random.Generator, rounds: int = ROUNDS) -> np.ndarray:
    """Means of `rounds` samples with replacement, each of as many values: (rounds,).

    Only how often each distinct value is drawn matters, which is multinomial.
    """
    distinct, counts = np.unique(values, return_counts=True)
    step = max(1, CELLS // len(distinct))
    shares = counts / len(values)
    parts = [
        draw.multinomial(len(values), shares, size=min(step, rounds - begin)) @ distinct
        for begin in range(0, rounds, step)
    ]
    return np.concatenate(parts) / len(values)


def two_sided(means: np.ndarray) -> float:
    """Twice the smaller share of means at or beyond zero, at most 1; never 0, since the samples are finite."""
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(means) + 1)))


def holm(values: Sequence[float], level: float = LEVEL) -> list[bool]:
    """Which p values stay below `level` for all of them together (Holm 1979)."""
    order = sorted(range(len(values)), key=values.__getitem__)
    kept = [False] * len(values)
    for rank, place in enumerate(order):
        if values[place] >= level / (len(values) - rank):
            break
        kept[place] = True
    return kept
