"""The numbers of one run, settled before its first step: how long, how large a batch, which learning rate when.

The paper's recipe (Brown et al. 2020, App. B) is written for 300B tokens. A shorter run keeps its shape, by these rules:

- cosine: ends after 260/300 of the tokens, then the rate stays at its floor, as in the paper;
- warm-up: the paper's 375M tokens, but at most a tenth of the run (docs/LOG.md has what a shorter one costs);
- batch: the preset's, but at most a thousandth of the tokens, so that a short run still takes 1,000 steps;
- learning rate: the preset's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from gpt3.errors import InputError
from gpt3.ladder import PAPER_TOKENS, Preset
from gpt3.training.options import TrainOptions, count

PAPER_WARMUP_TOKENS = 375_000_000
PAPER_DECAY_TOKENS = 260_000_000_000
MOST_WARMUP = 0.1
LEAST_STEPS = 1000
DEFAULT_EPOCHS = 4
"""Repeating data up to four times is almost as good as new data (Muennighoff et al. 2023, arXiv 2305.16264)."""
DEMO_MINUTES = 4.0
"""What the demo trains for when nothing is said."""
DEFAULT_MICRO_BATCH_TOKENS = 8192
EVENTS_A_RUN = 10


@dataclass(frozen=True)
class Plan:
    """A run's settled numbers. Tokens are target tokens; a step is one optimizer step."""

    steps: int
    batch_tokens: int
    micro_batch: int
    accumulation: int
    context: int
    lr: float
    min_lr: float
    warmup_tokens: int
    decay_tokens: int
    validate_every: int
    sample_every: int
    checkpoint_every: int

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.steps * self.batch_tokens

    @property
    def sequences(self) -> int:
        """Sequences an optimizer step sees."""
        return self.batch_tokens // self.context

    def learning_rate(self, tokens: int) -> float:
        """The rate of a step that ends at `tokens` tokens: linear warm-up, cosine to the floor, floor.

        The cosine's clock starts after the warm-up (the paper leaves it open).
        """
        if tokens < self.warmup_tokens:
            return self.lr * tokens / self.warmup_tokens
        if tokens >= self.decay_tokens:
            return self.min_lr
        progress = (tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def batch_shape(options: TrainOptions, preset: Preset, context: int, tokens: int) -> tuple[int, int]:
    """Tokens an optimizer step and sequences a forward pass see, for a run of about `tokens`.

    Raises:
        InputError: sizes that are no multiples of one another.
    """
    batch_tokens = options.batch_tokens
    if batch_tokens is None:
        wanted = min(preset.batch_tokens, max(context, tokens // LEAST_STEPS))
        sequences = max(1, wanted // context)
        micro = options.micro_batch or max(1, min(sequences, DEFAULT_MICRO_BATCH_TOKENS // context))
        sequences = max(1, sequences // micro) * micro
        return sequences * context, micro
    if batch_tokens % context:
        low = max(context, batch_tokens // context * context)
        raise InputError(f"--batch-tokens {batch_tokens} is not a multiple of the context of {context}; try {low}")
    sequences = batch_tokens // context
    if options.micro_batch is None:
        most = max(1, min(sequences, DEFAULT_MICRO_BATCH_TOKENS // context))
        return batch_tokens, next(n for n in range(most, 0, -1) if sequences % n == 0)
    if sequences % options.micro_batch:
        raise InputError(
            f"--micro-batch {options.micro_batch} does not divide the {sequences} sequences of --batch-tokens {batch_tokens}"
            f" at context {context}; choose a divisor"
        )
    return batch_tokens, options.micro_batch


def wanted_tokens(options: TrainOptions, preset: Preset, train_tokens: int) -> int:
    """About how many tokens the run will see, before its length is rounded to steps.

    Args:
        train_tokens: tokens of the training split.
    """
    if options.tokens is not None:
        return count(options.tokens)
    if options.steps is not None:
        return options.steps * (options.batch_tokens or preset.batch_tokens)
    return min(PAPER_TOKENS, DEFAULT_EPOCHS * train_tokens)


def make_plan(options: TrainOptions, preset: Preset, train_tokens: int, steps: int | None = None) -> Plan:
    """Settle every number of a run.

    Args:
        train_tokens: tokens of the training split.
        steps: the run's length where it was measured (``--minutes``).
    """
    context = options.context or preset.context
    if context > preset.context:
        raise InputError(
            f"--context {context} is beyond the {preset.context} positions of {preset.name}; choose at most that"
        )
    about = wanted_tokens(options, preset, train_tokens)
    batch_tokens, micro_batch = batch_shape(options, preset, context, about)
    steps = steps or options.steps or max(1, math.ceil(about / batch_tokens))
    tokens = steps * batch_tokens
    warmup = options.warmup_tokens
    if warmup is None:
        warmup = min(PAPER_WARMUP_TOKENS, round(tokens * MOST_WARMUP))
    decay = options.decay_tokens
    if decay is None:
        decay = round(tokens * PAPER_DECAY_TOKENS / PAPER_TOKENS)
    lr = options.lr or preset.learning_rate
    every = max(1, steps // EVENTS_A_RUN)
    validate_every = options.validate_every or every
    return Plan(
        steps=steps,
        batch_tokens=batch_tokens,
        micro_batch=micro_batch,
        accumulation=batch_tokens // context // micro_batch,
        context=context,
        lr=lr,
        min_lr=lr * options.min_lr_ratio,
        warmup_tokens=warmup,
        decay_tokens=max(decay, warmup),
        validate_every=validate_every,
        sample_every=options.sample_every or validate_every,
        checkpoint_every=options.checkpoint_every or every,
    )


def settled(options: TrainOptions, plan: Plan) -> TrainOptions:
    """`options` with every number of `plan` filled in: what config.yaml holds, enough to repeat the run."""
    names = {field.name for field in dataclasses.fields(options)} - {"tokens"}
    numbers = {name: value for name, value in dataclasses.asdict(plan).items() if name in names}
    return dataclasses.replace(options, tokens=None, minutes=None, **numbers)
