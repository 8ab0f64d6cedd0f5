"""The numbers of one run, settled before its first step: how long, how large a batch, which learning rate when; and in words.

Numbers that are not given follow RULES below and those of the run's recipe (gpt3.training.recipes).
Everything is a function of the step alone, so that a run resumes by its step number.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from gpt3.errors import InputError
from gpt3.ladder.presets import PAPER_TOKENS, PRESETS, Preset
from gpt3.options import flag
from gpt3.training.continuing import size_called
from gpt3.training.layouts import Layout, schedule_tokens
from gpt3.training.optimizers import OPTIMIZERS
from gpt3.training.options import AUTO, DEMO, TrainOptions, count
from gpt3.training.recipes import (
    PAPER_BETA2,
    PAPER_RAMP_START_TOKENS,
    PAPER_WARMUP_TOKENS,
    RECIPES,
    SCHEDULES,
    SMALL_BATCH_BETA2,
    recipe_for,
)

PAPER_RAMP_TOKENS = (4_000_000_000, 12_000_000_000)
"""The batch grows over the first 4 to 12 billion tokens "depending on the model size": here from 125M to 175B."""
LEAST_STEPS = 1000
DEFAULT_EPOCHS = 4
"""Repeating data up to four times is almost as good as new data (Muennighoff et al. 2023, arXiv 2305.16264)."""
DEMO_MINUTES = 3.7
"""What the demo trains for when no length is given."""
DEFAULT_MICRO_BATCH_TOKENS = 8192
EVENTS_A_RUN = 10
WINDOW_PARTS = 4
"""A context beyond the demo's has a window of this part, as the demo has and 17M."""
HEAD = 64
"""Width of a head of ``--model auto``, which has a layer and a head for each (GPT-3 Small, Table 2.1)."""
MOST_RECORDS = 10_000
RULES = {
    "length": "--tokens, --steps or --minutes; else 4 epochs of the data, at most the paper's 300B tokens",
    "batch": "the preset's (Table 2.1), at most a thousandth of the run's tokens; with --steps as without a length",
    "batch ramp": "from 32k tokens, linearly over 4B (125M) to 12B (175B) of 300B tokens, scaled to the run",
    "recipe": "the paper's from its smallest batch up, 32k tokens; below the short one",
}
"""How each number follows when it is not given, besides its recipe's rules; docs/training.md has the reasons."""


class Stage(NamedTuple):
    """Steps of one batch size."""

    first_step: int
    """0-based."""
    first_tokens: int
    """Tokens seen before it."""
    first_sequence: int
    """Sequences drawn before it."""
    sequences: int
    """Sequences of each of its steps."""


@dataclass(frozen=True)
class Plan:
    """A run's settled numbers. Tokens are target tokens; a step is one optimizer step."""

    steps: int
    batch_tokens: int
    """Tokens of a step after the ramp."""
    micro_batch: int
    """Sequences of one forward pass on one device."""
    context: int
    recipe: str
    """Of `RECIPES`: where the numbers that were not given are from."""
    optimizer: str
    lr: float
    muon_lr: float | None
    """The peak rate of Muon's matrices; None with another optimizer."""
    min_lr_ratio: float
    schedule: str
    """How the rate falls: one of `SCHEDULES`."""
    beta2: float
    """Adam's second-moment decay."""
    ramp_tokens: int
    """Tokens over which the batch grows to `batch_tokens`; 0: it is whole from the start."""
    warmup_tokens: int = 0
    decay_tokens: int = 0
    validate_every: int = 1
    sample_every: int = 1
    checkpoint_every: int = 1
    log_every: int = 1
    layouts: tuple[Layout, ...] = ()
    """The first one and those after it; empty while the first one holds."""

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The batch ramp as stages of constant batch, each a multiple of the first one, and the full batch last."""
        full = self.batch_tokens // self.context
        start = min(full, max(1, PAPER_RAMP_START_TOKENS // self.context))
        sizes = [*range(start, full, start), full] if self.ramp_tokens else [full]
        stages, step, sequences = [], 0, 0
        for i, size in enumerate(sizes):
            stages.append(Stage(step, sequences * self.context, sequences, size))
            if i + 1 < len(sizes):  # the next size is reached where the straight line from start to full reaches it
                begins = self.ramp_tokens * (sizes[i + 1] - start) / (full - start)
                count = max(0, math.ceil((begins - sequences * self.context) / (size * self.context)))
                step, sequences = step + count, sequences + count * size
        return tuple(stages)

    def stage(self, step: int) -> Stage:
        """The stage that step `step` (0-based) is in."""
        return self.stages[bisect.bisect_right(self.stages, step, key=lambda stage: stage.first_step) - 1]

    def sequences(self, step: int) -> range:
        """Numbers of the training sequences that step `step` (0-based) sees, counted through the whole run."""
        stage = self.stage(step)
        first = stage.first_sequence + (step - stage.first_step) * stage.sequences
        return range(first, first + stage.sequences)

    def tokens_after(self, steps: int) -> int:
        """Tokens seen by the first `steps` steps."""
        return self.sequences(steps - 1).stop * self.context if steps else 0

    def steps_for(self, tokens: int) -> int:
        """The fewest steps, at least 1, that see `tokens` tokens."""
        stage = self.stages[bisect.bisect_left(self.stages, tokens, key=lambda stage: stage.first_tokens) - 1]
        rest = max(0, tokens - stage.first_tokens)
        return max(1, stage.first_step + math.ceil(rest / (stage.sequences * self.context)))

    @property
    def min_lr(self) -> float:
        """The rate at the end."""
        return self.lr * self.min_lr_ratio

    @property
    def tokens(self) -> int:
        """Tokens of the whole run."""
        return self.tokens_after(self.steps)

    @property
    def total_sequences(self) -> int:
        """Sequences of the whole run."""
        return self.sequences(self.steps - 1).stop

    def laid_out(self, step: int, steps: int) -> Plan:
        """The plan whose schedule after `step` steps is stretched or shortened so that the run has `steps`, more than `step`."""
        layouts = self.layouts or (Layout(0, self.steps),)
        return dataclasses.replace(self, steps=steps, layouts=(*layouts, Layout(step, steps)))

    def learning_rate(self, tokens: float) -> float:
        """The rate of a step that ends at `tokens` tokens: linear warm-up, the schedule to the floor, floor.

        The cosine's clock starts after the warm-up (the paper leaves it open).
        """
        if self.layouts:
            tokens = schedule_tokens(self.layouts, tokens, self.tokens_after)
        if tokens < self.warmup_tokens:
            return self.lr * tokens / self.warmup_tokens
        if tokens >= self.decay_tokens:
            return self.min_lr
        progress = (tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self.min_lr + (self.lr - self.min_lr) * SCHEDULES[self.schedule](progress)


def shape_of(options: TrainOptions) -> Preset:
    """The preset, with the options that change its shape put in.

    Raises:
        InputError: an unknown preset, heads that do not divide the width, a context beyond the positions.
    """
    base = size_called(DEMO if options.size == AUTO else options.size)
    if options.size == AUTO:  # until a size is chosen, the demo's shape
        layers, width = options.layers or base.n_layers, options.width or base.d_model
        base = dataclasses.replace(base, name=AUTO, learning_rate=small_rate(layers, width))
    width = options.width or base.d_model
    heads = options.heads or (base.n_heads if width % base.n_heads == 0 else max(1, width // base.d_head))
    if width % heads:
        raise InputError(f"--width {width} is not a multiple of --heads {heads}; choose heads that divide it")
    longest = base.context if options.model is not None else max(base.context, options.context or 0)
    positions = options.positions or longest
    context = options.context or min(base.context, positions)
    window = base.window if context <= base.context or options.positions else context // WINDOW_PARTS
    if context > positions:
        more = f", or --positions {context}" if options.positions is None else ""
        raise InputError(
            f"--context {context} exceeds the {positions} positions of {base.name}. Use --context {positions} or less{more}."
        )
    resized = options.width is not None or options.heads is not None
    return dataclasses.replace(
        base,
        n_layers=options.layers or base.n_layers,
        d_model=width,
        n_heads=heads,
        d_head=width // heads if resized else base.d_head,
        window=options.window or window,
        context=context,
        positions=options.positions,
        batch_tokens=max(1, base.batch_tokens // context) * context,
    )


def small_rate(layers: int, width: int) -> float:
    """The peak rate of Table 2.1 continued to small models (Kaplan et al. 2020, eq. D.1); at least the table's least."""
    return max(0.003239 - 0.0001395 * math.log(12 * layers * width**2), PRESETS["175B"].learning_rate)


def auto_preset(width: int, vocabulary: int, context: int) -> Preset:
    """A shape of ``--model auto``, `width` a multiple of `HEAD`; at least two layers, since every second one has a window."""
    heads = width // HEAD
    layers, rate = max(2, heads), small_rate(max(2, heads), width)
    return dataclasses.replace(
        PRESETS["demo"], name=AUTO, n_layers=layers, d_model=width, n_heads=heads, d_head=HEAD, learning_rate=rate,
        vocab_size=vocabulary, context=context, window=max(PRESETS["demo"].window, context // WINDOW_PARTS),
    )  # fmt: skip


def batch_shape(options: TrainOptions, shape: Preset, tokens: int) -> tuple[int, int]:
    """Tokens of an optimizer step and sequences of a forward pass, for a run of about `tokens`, whatever its device.

    Raises:
        InputError: sizes that are no multiples of one another.
    """
    micro, context = options.micro_batch, shape.context
    batch_tokens = options.batch_tokens
    if isinstance(batch_tokens, str):  # 0.5M: about this many
        batch_tokens = max(1, round(count(batch_tokens) / context)) * context
    fitting = max(1, DEFAULT_MICRO_BATCH_TOKENS // context)
    if batch_tokens is None:
        sequences = max(1, min(shape.batch_tokens, tokens // LEAST_STEPS) // context)
        micro = micro or min(sequences, fitting)
        return max(1, sequences // micro) * micro * context, micro
    if batch_tokens % context:
        low = max(context, batch_tokens // context * context)
        raise InputError(f"--batch-tokens {batch_tokens} is not a multiple of the context of {context}; try {low}")
    sequences = batch_tokens // context
    if micro is None:
        micro = next(n for n in range(min(sequences, fitting), 0, -1) if sequences % n == 0)
    if sequences % micro:
        raise InputError(
            f"--micro-batch {micro} does not divide the {sequences} sequences of --batch-tokens {batch_tokens}"
            f" at context {context}; choose a divisor"
        )
    return batch_tokens, micro


def ramp_length(parameters: int, tokens: int) -> int:
    """Tokens of the batch ramp of a run: the paper's 4B to 12B of 300B, geometrically between 125M and 175B parameters.

    The paper gives no table (App. B: "depending on the model size").
    """
    least, most = PAPER_RAMP_TOKENS
    small, large = PRESETS["125M"].parameters, PRESETS["175B"].parameters
    share = min(1.0, max(0.0, math.log(parameters / small) / math.log(large / small)))
    return round(least * (most / least) ** share * min(1.0, tokens / PAPER_TOKENS))


def make_plan(
    options: TrainOptions, train_tokens: int | None, tokens: int | None = None, shape: Preset | None = None
) -> Plan:
    """Settle every number of a run.

    Args:
        train_tokens: tokens of the training data; None: not known, and many.
        tokens: the run's length where it was measured (``--minutes``).
        shape: the model's. Default: `shape_of` the options.

    Raises:
        InputError: see `shape_of`; sizes that are no multiples of one another; a rate of another optimizer than the recipe's.
    """
    shape, continues = shape or shape_of(options), options.init_from is not None
    about, steps = tokens or min(PAPER_TOKENS, DEFAULT_EPOCHS * (train_tokens or PAPER_TOKENS)), options.steps
    if options.tokens is not None:
        about = count(options.tokens)
    # without steps: DEMO_MINUTES, whole batch
    elif steps is not None and dataclasses.replace(options, steps=None).is_demo:
        about = LEAST_STEPS * shape.batch_tokens
    batch_tokens, micro_batch = batch_shape(options, shape, about)
    if steps is not None:
        about = steps * batch_tokens
    name = recipe_for(options, batch_tokens)
    recipe, beta2, ramp = RECIPES[name], options.beta2, options.ramp_tokens
    optimizer = options.optimizer or recipe.optimizer
    for other in OPTIMIZERS:
        if other != optimizer and getattr(options, f"{other}_lr", None) is not None:
            raise InputError(f"{flag(f'{other}_lr')} needs --optimizer {other}: the {name} recipe takes {optimizer}")
    lr = options.lr or shape.learning_rate * (recipe.rate if optimizer == recipe.optimizer else 1)
    muon_lr = (options.muon_lr or lr * recipe.muon_rate) if optimizer == "muon" else None
    min_lr_ratio = recipe.min_lr_ratio if options.min_lr_ratio is None else options.min_lr_ratio
    if beta2 is None:
        beta2 = PAPER_BETA2 if batch_tokens >= PAPER_RAMP_START_TOKENS else SMALL_BATCH_BETA2
    if ramp is None:
        ramps = batch_tokens > PAPER_RAMP_START_TOKENS and not continues
        ramp = ramp_length(shape.parameters, about) if ramps else 0
    plan = Plan(
        steps or 1, batch_tokens, micro_batch, shape.context, name, optimizer, lr, muon_lr, min_lr_ratio,
        options.schedule or recipe.schedule, beta2, ramp,
    )  # fmt: skip
    if steps is None:
        plan = dataclasses.replace(plan, steps=plan.steps_for(about))
    warmup, decay = options.warmup_tokens, options.decay_tokens
    if warmup is None:
        warmup = min(PAPER_WARMUP_TOKENS, round(plan.tokens * recipe.warmup_share))
    if decay is None:
        decay = plan.tokens if continues else round(plan.tokens * recipe.decay_share)
    every = max(1, plan.steps // EVENTS_A_RUN)
    validate_every = options.validate_every or every
    return dataclasses.replace(
        plan,
        warmup_tokens=warmup,
        decay_tokens=max(decay, warmup),
        validate_every=validate_every,
        sample_every=options.sample_every or validate_every,
        checkpoint_every=options.checkpoint_every or every,
        log_every=options.log_every or math.ceil(plan.steps / MOST_RECORDS),
    )


def settled(options: TrainOptions, plan: Plan) -> TrainOptions:
    """`options` with every number of `plan` filled in: what config.yaml holds, enough to repeat the run.

    A length that was given decides whether data is prepared while training. So without one that is turned off: now there is one.
    """
    stream = options.stream if options.tokens or options.steps or options.minutes else "off"
    names = {field.name for field in dataclasses.fields(options)} - {"tokens"}
    numbers = {name: value for name, value in dataclasses.asdict(plan).items() if name in names}
    return dataclasses.replace(options, model=options.size, tokens=None, minutes=None, stream=stream, **numbers)
