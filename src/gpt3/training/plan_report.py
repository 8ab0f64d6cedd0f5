"""A run's plan in words: the lines at its start, and ``gpt3 train --plan``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from gpt3.ladder.memory import TrainingMemory
from gpt3.ladder.presets import PF_DAY, Preset, readable_size, training_flops
from gpt3.tables import counted, labelled, wrapped
from gpt3.training import continuing
from gpt3.training.data import TrainingData
from gpt3.training.distributed import Compute, World
from gpt3.training.optimizers import describe
from gpt3.training.options import TrainOptions
from gpt3.training.panel import sparkline
from gpt3.training.plan import RULES, Plan
from gpt3.training.recipes import RECIPES
from gpt3.training.replay import NEW

CHART_WIDTH, CHART_HEIGHT = 64, 6


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
    rate = (
        f"{plan.lr:g} after {plan.warmup_tokens:,} tokens, {plan.schedule} to {plan.min_lr:g} at {plan.decay_tokens:,}"
    )
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
    rules = {**RULES, **RECIPES[plan.recipe].rules, **(continuing.RULES if continues else {})}
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
