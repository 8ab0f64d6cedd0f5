"""Figures of all answers together, which are no means over the questions: name → (value, standard error), 0 to 1."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gpt3.errors import require
from gpt3.evaluation.items import Whole

if TYPE_CHECKING:
    from gpt3.evaluation.scores import Result

ROUNDS = 1000
"""Samples of the bootstrap (Koehn 2004): as many answers, drawn with replacement; the error is the deviation of their figures."""


def bleu(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """Corpus BLEU as the paper's Table H.1 has it under "sb".

    sacrebleu's case.mixed, numrefs.1, smooth.exp, tok.intl. The paper's other one, "mb", needs Moses' and XLM's scripts.
    """
    sacrebleu = require("sacrebleu.metrics", extra="eval", purpose="BLEU")
    metric = sacrebleu.BLEU(tokenize="intl", smooth_method="exp", effective_order=True)  # for sentences: no warnings
    parts = [metric.sentence_score(result.answer, [result.gold]) for result in results]
    counts = np.array([[*part.counts, *part.totals, part.sys_len, part.ref_len] for part in parts])  # (n, 4 + 4 + 2)

    def corpus(rows: np.ndarray) -> float:
        sums = rows.sum(0).tolist()
        found = sacrebleu.BLEU.compute_bleu(
            correct=sums[:4], total=sums[4:8], sys_len=sums[8], ref_len=sums[9], smooth_method="exp"
        )
        return float(found.score) / 100

    draw = np.random.default_rng(0)
    samples = [corpus(counts[draw.integers(len(counts), size=len(counts))]) for _ in range(ROUNDS)]
    return {"bleu": (corpus(counts), _deviation(samples))}


def macro_f1(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """F1 of each class, and their mean, unweighted (CommitmentBank)."""
    pairs = [(result.detail["chosen"], result.detail["right"]) for result in results]

    def score(some: Sequence[tuple[int, int]]) -> float:
        classes = sorted({place for pair in some for place in pair})
        return math.fsum(_f1(some, place) for place in classes) / len(classes)

    return {"f1": (score(pairs), _bootstrap(pairs, score))}


def multirc(results: Sequence[Result]) -> dict[str, tuple[float, float]]:
    """acc: questions of which every answer is labelled right; f1a: F1 of "true" over all answers (Khashabi et al. 2018).

    An answer's id is its question's, a hyphen and its own number.
    """
    questions: dict[str, list[tuple[int, int]]] = {}
    for result in results:
        questions.setdefault(result.id.rpartition("-")[0], []).append((result.detail["chosen"], result.detail["right"]))
    whole = [float(all(chosen == right for chosen, right in pairs)) for pairs in questions.values()]
    middle = math.fsum(whole) / len(whole)
    error = math.sqrt(middle * (1 - middle) / max(1, len(whole) - 1))

    def score(some: Sequence[list[tuple[int, int]]]) -> float:
        return _f1([pair for pairs in some for pair in pairs], 0)

    grouped = list(questions.values())
    return {"acc": (middle, error), "f1a": (score(grouped), _bootstrap(grouped, score))}


def _f1(pairs: Sequence[tuple[int, int]], place: int) -> float:
    """F1 of finding one class in pairs of (chosen, right); 0 where it is neither."""
    both = sum(chosen == right == place for chosen, right in pairs)
    either = sum(chosen == place for chosen, _ in pairs) + sum(right == place for _, right in pairs)
    return 2 * both / either if either else 0.0


def _bootstrap(units: Sequence, score: Callable[[Sequence], float]) -> float:
    draw = random.Random(0)
    return _deviation([score(draw.choices(units, k=len(units))) for _ in range(ROUNDS)])


def _deviation(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1))


WHOLE: dict[Whole, Callable[[Sequence[Result]], dict[str, tuple[float, float]]]] = {
    "bleu": bleu,
    "macro_f1": macro_f1,
    "multirc": multirc,
}
WHOLE_FIGURES: dict[Whole, tuple[str, ...]] = {"bleu": ("bleu",), "macro_f1": ("f1",), "multirc": ("acc", "f1a")}
"""The names that each gives."""
