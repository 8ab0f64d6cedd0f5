"""How long a step of any shape takes here: two shapes are measured for a few seconds, and the rest follows from their arithmetic.

The time per token of the forward and backward pass has a part for matrix products (`Preset.flops_per_token`) and a part for
elementwise operations (layers times width, and the vocabulary). So has the optimizer's step: Muon's products (layers times
width³) and the parameters.
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

ELEMENTWISE = 16
"""Elementwise operations of a layer per token, as a multiple of its width; the vocabulary's logits count once."""
MEASURED_BATCH = 2048
"""Tokens of a measured step."""


def token_work(shape: Preset) -> tuple[float, float]:
    """Per token: floating-point operations of the matrix products, and elementwise operations."""
    return shape.flops_per_token, float(ELEMENTWISE * shape.n_layers * shape.d_model + shape.vocab_size)


def update_work(shape: Preset) -> tuple[float, float]:
    """The same of an optimizer step."""
    return float(shape.n_layers * shape.d_model**3), float(shape.parameters)


@dataclass(frozen=True)
class StepSpeed:
    """What was measured, in seconds per operation."""

    token: tuple[float, float]
    """For the two parts of `token_work`."""
    update: tuple[float, float]
    """For the two parts of `update_work`."""

    def step_seconds(self, shape: Preset, batch_tokens: int) -> float:
        """Seconds of a step of this many tokens."""
        token = np.dot(self.token, token_work(shape))
        return float(batch_tokens * token + np.dot(self.update, update_work(shape)))


def solved(work: Sequence[tuple[float, float]], seconds: Sequence[float]) -> tuple[float, float]:
    """The seconds per operation of both parts that explain two measured times, neither below 0."""
    with np.errstate(all="ignore"):
        first, second = np.linalg.lstsq(np.asarray(work), np.asarray(seconds), rcond=None)[0].tolist()
    if first < 0 or second < 0:  # noise: one of the two explains both
        kept = 1 if first < 0 else 0
        mean = sum(time / each[kept] for each, time in zip(work, seconds, strict=True)) / len(work)
        first, second = (0.0, mean) if kept else (mean, 0.0)
    return first, second


def measure_speed(options: TrainOptions, shapes: Sequence[Preset], compute: Compute, world: World) -> StepSpeed:
    """Measure steps of two shapes on random text."""
    measured = [measure_shape(options, shape, compute, world) for shape in shapes]
    token = solved([token_work(shape) for shape in shapes], [seconds for seconds, _ in measured])
    update = solved([update_work(shape) for shape in shapes], [seconds for _, seconds in measured])
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
