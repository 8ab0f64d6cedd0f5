"""How long a step of any shape takes here: two shapes are measured for a few seconds, and the rest follows from their arithmetic.

A token's forward and backward pass takes a time for its matrix products (`Preset.flops_per_token`) and one for the loops over
activations (layers times width, and the vocabulary). The optimizer's step takes one for its products (Muon's: layers times
width³) and one for its parameters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpt3.ladder.presets import Preset
from gpt3.training.distributed import Compute, World
from gpt3.training.model_building import build_model, choose_step
from gpt3.training.options import TrainOptions
from gpt3.training.plan import DEFAULT_MICRO_BATCH_TOKENS, make_plan
from gpt3.training.trainer import Trainer

LOOPS = 16
"""Numbers of a token that the loops of a layer pass over, as a multiple of its width; the vocabulary's logits count once."""
MEASURED_BATCH = 2048
"""Tokens of a measured step."""


def work_of_token(shape: Preset) -> tuple[float, float]:
    """Operations of the products, and numbers that the loops pass over."""
    return shape.flops_per_token, float(LOOPS * shape.n_layers * shape.d_model + shape.vocab_size)


def work_of_update(shape: Preset) -> tuple[float, float]:
    """The same for the optimizer's step."""
    return float(shape.n_layers * shape.d_model**3), float(shape.parameters)


@dataclass(frozen=True)
class StepSpeed:
    """Seconds per unit of the work of a token, and of the optimizer's step."""

    token: tuple[float, float]
    update: tuple[float, float]

    def step_seconds(self, shape: Preset, batch_tokens: int) -> float:
        """Seconds of a step of this many tokens."""
        token = np.dot(self.token, work_of_token(shape))
        return float(batch_tokens * token + np.dot(self.update, work_of_update(shape)))


def solved(work: Sequence[tuple[float, float]], seconds: Sequence[float]) -> tuple[float, float]:
    """The two prices per unit of work that explain two measured times, neither below 0."""
    with np.errstate(all="ignore"):
        first, second = np.linalg.lstsq(np.asarray(work), np.asarray(seconds), rcond=None)[0].tolist()
    if first < 0 or second < 0:  # noise: one of the two explains both
        kept = 1 if first < 0 else 0
        price = sum(time / each[kept] for each, time in zip(work, seconds, strict=True)) / len(work)
        first, second = (0.0, price) if kept else (price, 0.0)
    return first, second


def measure_speed(options: TrainOptions, shapes: Sequence[Preset], compute: Compute, world: World) -> StepSpeed:
    """Measure steps of two shapes on random text."""
    measured = [measure_shape(options, shape, compute, world) for shape in shapes]
    token = solved([work_of_token(shape) for shape in shapes], [seconds for seconds, _ in measured])
    update = solved([work_of_update(shape) for shape in shapes], [seconds for _, seconds in measured])
    return StepSpeed(token, update)


def measure_shape(options: TrainOptions, shape: Preset, compute: Compute, world: World) -> tuple[float, float]:
    """Seconds per token and of an optimizer step, with fresh weights; see `Trainer.measure_step`."""
    rows = max(1, min(MEASURED_BATCH, DEFAULT_MICRO_BATCH_TOKENS) // shape.context)
    batch = rows * world.data_size * shape.context
    fixed = dataclasses.replace(
        options, steps=1, tokens=None, minutes=None, batch_tokens=batch, micro_batch=rows,
        layers=shape.n_layers, width=shape.d_model, heads=shape.n_heads,
    )  # fmt: skip
    plan = make_plan(fixed, None, shape=shape)
    model, forward = build_model(fixed, shape, shape.vocab_size - 1, compute, world)
    compute = choose_step(model, forward, fixed, rows * shape.context, compute, world, None)
    text: Any = RandomText(shape.vocab_size, shape.context)
    return Trainer(fixed, plan, model, forward, text, shape.vocab_size - 1, compute, world).measure_step()


class RandomText:
    """Sequences of random tokens, in place of a `Mixture`."""

    def __init__(self, vocabulary: int, context: int) -> None:
        self.vocabulary, self.context = vocabulary, context

    def batch(self, indices: Sequence[int]) -> np.ndarray:
        """(len(indices), context + 1) int64."""
        return np.random.default_rng(0).integers(0, self.vocabulary, (len(indices), self.context + 1))
