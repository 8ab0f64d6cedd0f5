"""How many steps of several small models fit into an experiment's minutes, at the speed of this machine now."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from gpt3.paper.experiment import Work

REST = 1.15
"""Time of a training relative to that of its steps: validation, checkpoints, the beginning and the end."""


def affordable_steps(work: Work, trainings: Sequence[dict[str, Any]], vocabulary: int, most: int) -> int:
    """The same number of steps for each training, so that all of them take the work's minutes; measured once.

    Args:
        trainings: options of each, with ``batch_tokens``.
        vocabulary: entries of their tokenizer.
        most: steps, however many minutes there are.
    """

    def measure() -> dict[str, Any]:
        seconds = [step_seconds(work, options, vocabulary) for options in trainings]
        return {"seconds_per_step": seconds, "steps": int(60 * work.minutes / (REST * sum(seconds)))}

    return max(1, min(most, int(work.once("speed", measure)["steps"])))


def step_seconds(work: Work, options: dict[str, Any], vocabulary: int) -> float:
    """Seconds of a training step, measured on random text."""
    from gpt3.training.distributed import agree_on_compute, full_machine, open_world
    from gpt3.training.options import TrainOptions
    from gpt3.training.plan import shape_of
    from gpt3.training.step_speed import measure_shape

    chosen = TrainOptions(**{"threads": work.threads, **options})
    shape = dataclasses.replace(shape_of(chosen), vocab_size=vocabulary)
    with full_machine(), open_world(chosen.device) as world:
        token, update = measure_shape(chosen, shape, agree_on_compute(chosen, world), world)
    return token * int(options["batch_tokens"]) + update
