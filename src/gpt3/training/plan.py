"""The numbers of one run, settled before its first step: how long, how large a batch, which learning rate when; and in words.

The paper's recipe (Brown et al. 2020, App. B) is written for 300B tokens. A shorter run keeps its shape by RULES below.
Everything is a function of the step alone, so that a run resumes by its step number.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from gpt3.errors import InputError
from gpt3.ladder.memory import TrainingMemory
from gpt3.ladder.presets import PAPER_TOKENS, PF_DAY, PRESETS, Preset, readable_size, training_flops
from gpt3.tables import counted, labelled, wrapped
from gpt3.training import continuing
from gpt3.training.continuing import size_called
from gpt3.training.data import TrainingData
from gpt3.training.distributed import Compute, World
from gpt3.training.layouts import Layout, schedule_tokens
from gpt3.training.optimizers import describe
from gpt3.training.options import TrainOptions, count
from gpt3.training.panel import sparkline
from gpt3.training.replay import NEW

PAPER_WARMUP_TOKENS = 375_000_000
PAPER_DECAY_TOKENS = 260_000_000_000
PAPER_RAMP_START_TOKENS = 32_768
"""Where the batch ramp begins: "32k tokens", 16 sequences of 2,048."""
PAPER_RAMP_TOKENS = (4_000_000_000, 12_000_000_000)
"""The batch grows over the first 4 to 12 billion tokens "depending on the model size": here from 125M to 175B."""
PAPER_BETA2 = 0.95
SMALL_BATCH_BETA2 = 0.99
"""For batches below the paper's smallest, whose squared gradients are noisier (docs/LOG.md: 5% in bits per byte of the demo)."""
MOST_WARMUP = 0.1
LEAST_STEPS = 1000
DEFAULT_EPOCHS = 4
"""Repeating data up to four times is almost as good as new data (Muennighoff et al. 2023, arXiv 2305.16264)."""
DEMO_MINUTES = 3.7
"""What the demo trains for when no length is given."""
DEFAULT_MICRO_BATCH_TOKENS = 8192
EVENTS_A_RUN = 10
MOST_RECORDS = 10_000
CHART_WIDTH, CHART_HEIGHT = 64, 6
RULES = {
    "length": "--tokens, --steps or --minutes; else 4 epochs of the data, at most the paper's 300B tokens",
    "batch": "the preset's (Table 2.1), at most a thousandth of the run's tokens; with --steps as without a length",
    "batch ramp": "from 32k tokens, linearly over 4B (125M) to 12B (175B) of 300B tokens, scaled to the run",
    "learning rate": "the preset's (Table 2.1)",
    "beta2": "the paper's 0.95; 0.99 for batches below 32k tokens",
    "warm-up": "the paper's 375M tokens, at most a tenth of the run",
    "cosine": "to 10% of the peak after 260/300 of the run, its clock from the end of the warm-up; then constant",
}
"""How each number follows from the paper's when it is not given; docs/training.md has the reasons."""


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
    lr: float
    min_lr: float
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
        """The rate of a step that ends at `tokens` tokens: linear warm-up, cosine to the floor, floor.

        The cosine's clock starts after the warm-up (the paper leaves it open).
        """
        if self.layouts:
            tokens = schedule_tokens(self.layouts, tokens, self.tokens_after)
        if tokens < self.warmup_tokens:
            return self.lr * tokens / self.warmup_tokens
        if tokens >= self.decay_tokens:
            return self.min_lr
        progress = (tokens - self.warmup_tokens) / (self.decay_tokens - self.warmup_tokens)
        return self.min_lr + (self.lr - self.min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


def shape_of(options: TrainOptions) -> Preset:
    """The preset, with the options that change its shape put in.

    Raises:
        InputError: an unknown preset, heads that do not divide the width, a context beyond the positions.
    """
    base = size_called(options.model)
    width, heads = options.width or base.d_model, options.heads or base.n_heads
    if width % heads:
        raise InputError(f"--width {width} is not a multiple of --heads {heads}; choose heads that divide it")
    positions = options.positions or base.context
    context = options.context or min(base.context, positions)
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
        window=options.window or base.window,
        context=context,
        positions=options.positions,
        batch_tokens=max(1, base.batch_tokens // context) * context,
    )


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
        InputError: see `shape_of`; sizes that are no multiples of one another.
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
    lr, beta2, ramp = options.lr or shape.learning_rate, options.beta2, options.ramp_tokens
    if beta2 is None:
        beta2 = PAPER_BETA2 if batch_tokens >= PAPER_RAMP_START_TOKENS else SMALL_BATCH_BETA2
    if ramp is None:
        ramps = batch_tokens > PAPER_RAMP_START_TOKENS and not continues
        ramp = ramp_length(shape.parameters, about) if ramps else 0
    plan = Plan(steps or 1, batch_tokens, micro_batch, shape.context, lr, lr * options.min_lr_ratio, beta2, ramp)
    if steps is None:
        plan = dataclasses.replace(plan, steps=plan.steps_for(about))
    warmup, decay = options.warmup_tokens, options.decay_tokens
    if warmup is None:
        warmup = min(PAPER_WARMUP_TOKENS, round(plan.tokens * MOST_WARMUP))
    if decay is None:
        decay = plan.tokens if continues else round(plan.tokens * PAPER_DECAY_TOKENS / PAPER_TOKENS)
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
    return dataclasses.replace(options, tokens=None, minutes=None, stream=stream, **numbers)


def plan_rows(
    plan: Plan, options: TrainOptions, shape: Preset, data: TrainingData, compute: Compute, world: World, parallel: str
) -> list[tuple[str, str]]:
    """What the run will do: names and texts, for the lines at its start and for ``--plan``.

    Args:
        shape: with the data's vocabulary.
        parallel: how processes share the work (gpt3.training.fitting.parallel_text).
    """
    first, last = plan.stages[0], plan.stages[-1]
    batch = f"{plan.batch_tokens:,} tokens, micro-batches of {plan.micro_batch} × {plan.context} on each device"
    if plan.ramp_tokens:
        least = first.sequences * plan.context
        batch += (
            f"; a ramp from {least:,} tokens in {counted(len(plan.stages), 'stage')} until step {last.first_step + 1:,}"
        )
    processes = "" if world.size == 1 else f", {world.size} processes ({parallel})"
    mixture = data.mixture(plan.context, options.seed)
    epochs = f"{plan.total_sequences / mixture.windows_per_epoch:.2f} epochs of {data.tokens:,}"
    if not data.ended:
        epochs = "of data that is prepared while training"
    layers = f"{counted(shape.n_layers, 'layer')} of {shape.d_model}, {counted(shape.n_heads, 'head')}"
    rate = f"{plan.lr:g} after {plan.warmup_tokens:,} tokens, cosine to {plan.min_lr:g} at {plan.decay_tokens:,}"
    return [
        ("model", f"{shape.name}: {shape.parameters:,} parameters, {layers}"),
        ("device", f"{compute.device.type} in {options.dtype}{processes}, GEMM peak {compute.peak_flops / 1e9:,.0f} GFLOP/s"),
        ("steps", f"{plan.steps:,}; validation every {plan.validate_every:,}, checkpoint every {plan.checkpoint_every:,}"),
        ("tokens", f"{plan.tokens:,} ({plan.tokens / shape.parameters:,.1f} per parameter), {epochs}"),
        ("batch", batch),
        ("learning rate", rate),
        ("optimizer", f"{describe(options)}; decay {options.weight_decay:g}, clip {options.clip:g}"),
        *(("source", source_text(row, options)) for row in data.sources(mixture, plan.total_sequences)),
    ]  # fmt: skip


def source_text(row: Mapping[str, Any], options: TrainOptions) -> str:
    """A source's row of data.json for people; its size is not known where it is prepared while training."""
    name = ",".join(options.data) if options.replay and row["name"] == NEW else row["name"]
    share = f"{row['share']:.1%} of the run"
    if row["tokens"] is None:
        return f"{name}: {share}, prepared while training"
    return f"{name}: {row['tokens']:,} tokens, {share}, {row['epochs']:.2f} epochs"


def plan_report(
    plan: Plan,
    rows: list[tuple[str, str]],
    shape: Preset,
    memory: TrainingMemory,
    peak_flops: float,
    token_seconds: float | None,
    continues: bool = False,
) -> str:
    """``gpt3 train --plan``: `plan_rows`, memory, compute and time, the rules, and the schedule drawn over the tokens.

    Args:
        shape: with the data's vocabulary.
        memory: of each device.
        peak_flops: FLOP/s of all devices together.
        token_seconds: measured seconds per token; None where the model does not fit here.
        continues: whether the run starts from other weights (``--init-from``).
    """
    flops = shape.flops_per_token * plan.tokens
    rough = training_flops(shape.parameters, plan.tokens)
    parts = ("weights", "gradients", "optimizer", "copies", "activations", "loss")
    sizes = ", ".join(f"{name} {readable_size(getattr(memory, name))}" for name in parts)
    time = "not measured: the model does not fit on this device"
    if token_seconds is not None:
        mfu = flops / plan.tokens / token_seconds / peak_flops
        time = f"about {_duration(plan.tokens * token_seconds)}, from a few measured steps of one micro-batch: "
        time += f"{1 / token_seconds:,.0f} tokens/s, MFU {mfu:.0%}"
    rows = [
        *rows,
        ("memory", f"about {readable_size(memory.total)} per device: {sizes}"),
        ("compute", f"{flops:.3g} FLOPs counted product by product; 6ND: {rough:.3g} = {rough / PF_DAY:.3g} PF-days"),
        ("time", time),
    ]
    lines = [*labelled(rows), "", "Rules for numbers that are not given:"]
    rules = RULES | (continuing.RULES if continues else {})
    lines += [line for name, rule in rules.items() for line in wrapped(f"  {name}: {rule}", 4)]
    lines += _chart("learning rate", plan, plan.learning_rate)
    if plan.ramp_tokens:
        lines += _chart(
            "batch in tokens", plan, lambda tokens: plan.stage(plan.steps_for(tokens) - 1).sequences * plan.context
        )
    return "\n".join(lines)


def _chart(title: str, plan: Plan, value: Callable[[int], float]) -> list[str]:
    """A function of the tokens seen, drawn over the run."""
    values = [value(max(1, round(plan.tokens * (column + 0.5) / CHART_WIDTH))) for column in range(CHART_WIDTH)]
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    drawn, low, high = sparkline(values, CHART_WIDTH, CHART_HEIGHT, unicode)
    labels = [f"{high:.3g}", *[""] * (CHART_HEIGHT - 2), f"{low:.3g}"]
    rows = [f"{label:>10} |{row}".rstrip() for label, row in zip(labels, drawn, strict=True)]
    return ["", f"{title} over tokens", *rows, " " * 11 + "0" + f"{plan.tokens:,}".rjust(CHART_WIDTH - 1)]


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
