"""Models asked by experiments: tasks scored as `gpt3 eval` scores them, and prompts continued; accuracy over size, drawn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from gpt3.evaluation import Source, Task
from gpt3.evaluation.protocol import Questions, fitting_shots, score, with_room
from gpt3.evaluation.results import mean
from gpt3.evaluation.runner import fingerprint
from gpt3.inference.generation import GenerationRequest
from gpt3.inference.language_model import LanguageModel, load
from gpt3.inference.options import SamplingOptions
from gpt3.paper.experiment import Chart, Model, Work
from gpt3.progress import say
from gpt3.report.page import compact
from gpt3.report.svg import COLORS, Axes, Line

PARALLEL = 32
"""Texts generated at a time."""


def asked(work: Work) -> Iterator[tuple[Model, LanguageModel, str]]:
    """Each model of the work, loaded; and a name for its answers that no other weights have."""
    for model in work.models:
        loaded = load(model.place, threads=work.threads)
        say(f"  {model.name}: {loaded.summary}")
        yield model, loaded, label(model.name, loaded)


def label(name: str, model: LanguageModel) -> str:
    """A name for the model's answers that no other weights have, also if they are trained at the same place later."""
    return f"{name}-{fingerprint(model)[:8]}"


def of_each(work: Work, measure: Callable[[LanguageModel, Work], dict[str, Any]]) -> dict[str, Any]:
    """What `measure` finds of each model, a piece of the work for each, as ``models`` in JSON."""
    return {
        "models": [
            about(model) | work.once(name, partial(measure, loaded, work)) for model, loaded, name in asked(work)
        ]
    }


def about(model: Model) -> dict[str, Any]:
    """A model in JSON."""
    return {"name": model.name, "parameters": model.parameters, "layer_parameters": model.layer_parameters}


def questions(model: LanguageModel, task: Task, shots: int, work: Work, source: Source | None = None) -> Questions:
    """A task's questions with this many examples, at most those that fit the model.

    Args:
        source: of the questions; None: the work's files and seed.
    """
    split = task.split(source or Source(work.data_dir, seed=work.seed))
    found = Questions(with_room(model, task, split), split, shots, work.seed, work.limit, is_k=True)
    return dataclasses.replace(found, shots=min(found.shots, fitting_shots(model, found)))


def answers(model: LanguageModel, task: Task, shots: int, work: Work, source: Source | None = None) -> dict[str, Any]:
    """What the model answers to `questions`, in JSON.

    Returns:
        task, shots (examples there were), and results: of each question its id, metrics, answer, right answer, and for choices
        log-probabilities.
    """
    asked_for = questions(model, task, shots, work, source)
    results = [dataclasses.asdict(result) for result in score(model, asked_for.task, asked_for)]
    return {"task": task.name, "shots": asked_for.shots, "results": results}


def fewer(asked_for: int, shots: int) -> str:
    """What a table adds to a figure if fewer examples fit than were asked for."""
    return f", K={shots}" if shots < asked_for else ""


def continued(model: LanguageModel, prompts: Sequence[str], samples: int = 1, **options: Any) -> list[list[str]]:
    """Samples of each prompt.

    Args:
        options: fields of `SamplingOptions`.
    """
    given = SamplingOptions(num_samples=samples, **options)
    made = [one.text for one in GenerationRequest(model, prompts, given, PARALLEL).complete()]
    return [made[start : start + samples] for start in range(0, len(made), samples)]


def first_line(text: str) -> str:
    """The first line that is not empty."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def accuracy_by_size(caption: str, models: Sequence[Mapping[str, Any]], level: float) -> list[Chart]:
    """Accuracy of a contrast over size, a curve for each number of examples.

    Args:
        models: each with the `contrast` that `answers` gives.
        level: accuracy of guessing, in percent.
    """

    def accuracy(place: int, model: int) -> tuple[float, float]:
        results = models[model]["contrast"][place]["results"]
        found = mean([result["metrics"]["acc"] for result in results])
        return 100 * found.value, 100 * found.error

    examples = [max(one["shots"] for one in row) for row in zip(*(model["contrast"] for model in models), strict=True)]
    lines = {f"K={shots}": partial(accuracy, place) for place, shots in enumerate(examples)}
    return curves(caption, models, lines, top=100, level=level)


def curves(
    caption: str,
    models: Sequence[Mapping[str, Any]],
    lines: Mapping[str, Callable[[int], tuple[float, float]]],
    **axes: float,
) -> list[Chart]:
    """Figures over size, if there are sizes to compare; else nothing.

    Args:
        lines: by label, the figure of a model by its number, and its standard error.
        axes: fields of `Axes`.
    """
    if len({model["layer_parameters"] for model in models}) < 2:
        return []
    drawn = []
    for color, (label, figure) in zip(COLORS, lines.items(), strict=False):
        points = [(float(model["layer_parameters"]), *figure(number)) for number, model in enumerate(models)]
        drawn.append(Line(label, points, color))
    given: dict[str, Any] = {"x_text": compact, "scale": math.log10, **axes}
    return [Chart(caption, Axes(caption, drawn, "parameters without embeddings", **given), drawn)]
