"""Accuracy of models on tasks: a piece for each task and number of few-shot examples, which a killed work keeps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from gpt3.evaluation import Result, Source, Task
from gpt3.evaluation.results import Figure, figures, mean
from gpt3.paper.experiment import Measured, Work
from gpt3.progress import Progress

if TYPE_CHECKING:
    from gpt3.inference.language_model import LanguageModel

FEW = None
"""Among numbers of few-shot examples: the paper's K of the task, or as many as fit."""


def accuracies(
    work: Work,
    name: str,
    place: Path | str,
    tasks: Sequence[Task],
    shots: Sequence[int | None],
    source: Source | None = None,
) -> list[Measured]:
    """How many of the first `work.limit` questions of each task a model answers, with each of these numbers of examples.

    Args:
        name: of the model and of what it is asked, for file names.
        shots: numbers of few-shot examples, and `FEW`.
        source: of the questions; None: the work's files and seed.

    Returns:
        For each, unless fewer examples fit the model than the number says: ``task``, ``k`` (the number, or ``few``), ``shots``
        (examples there were), ``chance`` and ``acc`` with its standard ``error`` (0 to 1), and in ``right`` a digit for each
        question: 1 or 0. The answers are in ``FOLDER/answers``, by the model's name and weights.
    """
    from gpt3.inference.language_model import load
    from gpt3.paper.asking import label

    model = load(place, threads=work.threads)
    folder = f"answers/{label(name, model)}"
    found = []
    with Progress(f"asking {name}", len(tasks) * len(shots), "sets of questions") as progress:
        for task in tasks:
            read_once = dataclasses.replace(task, split=lru_cache(maxsize=1)(task.split))
            for count in shots:
                k = "few" if count is None else str(count)
                row = work.once(f"{folder}/{task.name}-{k}", partial(_asked, work, model, read_once, count, source))
                found += [_row(task, k, row)] if count is None or row["shots"] == count else []
                progress.advance(1, f"{task.name} K={k}")
    return found


def _asked(work: Work, model: LanguageModel, task: Task, count: int | None, source: Source | None) -> Measured:
    from gpt3.paper.asking import answers

    return answers(model, task, task.shots if count is None else count, work, source)


def _row(task: Task, k: str, answered: Measured) -> Measured:
    results = [Result(**result) for result in answered["results"]]
    acc = figures(task, results)["acc"]
    right = "".join(f"{result.metrics['acc']:.0f}" for result in results)
    about = {"task": task.name, "k": k, "shots": answered["shots"], "chance": task.chance}
    return about | {"acc": acc.value, "error": acc.error, "right": right}


def accuracy(right: str) -> Figure:
    """The share of ones among digits, and its standard error."""
    return mean([float(digit) for digit in right])


def percent(figure: Figure) -> str:
    """For tables: ``42.5 ± 3.5``."""
    return f"{100 * figure.value:.1f} ± {100 * figure.error:.1f}"
