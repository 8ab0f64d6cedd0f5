"""``gpt3 train --plan``: a run's numbers in words, and its learning rate and batch drawn over the tokens."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from gpt3.ladder.presets import PF_DAY, Preset, flops_per_token, readable_size, training_flops
from gpt3.training.options import TrainOptions
from gpt3.training.plan import RULES, Plan

if TYPE_CHECKING:
    from gpt3.ladder.memory import TrainingMemory
    from gpt3.training.device import Compute
    from gpt3.training.distributed import World
    from gpt3.training.run_data import RunData

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII_BLOCKS = " ...::###"
WIDTH, HEIGHT = 64, 6


def summary(options: TrainOptions, plan: Plan, parameters: int, compute: Compute, world: World, data: RunData) -> str:
    """What is about to happen, and by which rules."""
    ranks = "" if world.size == 1 else f", {world.size} ranks ({options.parallel})"
    epochs = plan.total_sequences / data.sampler(plan.context, options.seed).windows_per_epoch
    ramp = f", batch from {plan.stages[0].sequences * plan.context:,}" if plan.ramp_tokens else ""
    return (
        f"model: {parameters:,} parameters on {compute.device.type}{ranks} in {options.dtype}"
        f" (GEMM peak {compute.peak_flops / 1e9:,.0f} GFLOP/s)\n"
        f"plan: {plan.steps:,} steps of {plan.batch_tokens:,} tokens{ramp}, micro-batches of {plan.micro_batch} × {plan.context}"
        f" = {plan.tokens:,} tokens, {epochs:.2f} epochs of {data.tokens:,}; lr {plan.lr:g} after {plan.warmup_tokens:,} tokens,"
        f" cosine to {plan.min_lr:g} at {plan.decay_tokens:,}\n"
        + "".join(f"{name}: {text}\n" for name, text in source_rows(plan, data))
        + "numbers not given follow from the paper's by rule:\n"
        + "\n".join(rules())
    )


def source_rows(plan: Plan, data: RunData) -> list[tuple[str, str]]:
    """What each source gives to the run."""
    return [
        (
            f"source {source['name']}",
            f"{source['tokens']:,} tokens, {source['share']:.1%} of the run, {source['epochs']:.2f} epochs",
        )
        for source in data.sources(plan.total_sequences, plan.context)
    ]


def rules() -> list[str]:
    """How numbers that were not given follow from the paper's."""
    return [f"  {name}: {rule}" for name, rule in RULES.items()]


def plan_report(
    options: TrainOptions,
    shape: Preset,
    plan: Plan,
    memory: TrainingMemory,
    compute: Compute,
    world: World,
    data: RunData,
    token_seconds: float | None,
) -> str:
    """Everything a run would do, as text.

    Args:
        memory: of each device.
        token_seconds: measured seconds a token; None where the model does not fit here.
    """
    shape = dataclasses.replace(shape, vocab_size=data.vocab_size)
    config, parameters = shape.config(), shape.parameters
    flops = flops_per_token(config, plan.context) * plan.tokens
    first, last = plan.stages[0], plan.stages[-1]
    batch = f"{last.sequences * plan.context:,} tokens ({last.sequences} × {plan.context})"
    if plan.ramp_tokens:
        least = first.sequences * plan.context
        batch += f" from step {last.first_step + 1:,} on, {least:,} at first, in {len(plan.stages)} stages"
    rows: list[tuple[str, str]] = [
        ("model", f"{shape.name}: {parameters:,} parameters, {shape.n_layers} layers of {shape.d_model}, {shape.n_heads} heads"),
        ("steps", f"{plan.steps:,}"),
        ("tokens", f"{plan.tokens:,} ({plan.tokens / parameters:,.1f} a parameter)"),
        ("batch", batch),
        ("on each device", f"micro-batches of {plan.micro_batch} × {plan.context}, {world.size} rank(s)"),
        ("learning rate", f"{plan.lr:g} after {plan.warmup_tokens:,} tokens, cosine to {plan.min_lr:g} at {plan.decay_tokens:,}"),
        ("optimizer", f"{options.optimizer}, decay {options.weight_decay:g}, clip {options.clip:g}"),
        ("events", f"validation every {plan.validate_every:,} steps, checkpoint every {plan.checkpoint_every:,}"),
        ("memory", f"about {readable_size(memory.total)} a device: {_parts(memory)}"),
        ("compute", f"{flops:.3g} FLOPs counted product by product; 6ND {training_flops(parameters, plan.tokens):.3g}"
                    f" = {training_flops(parameters, plan.tokens) / PF_DAY:.3g} PF-days"),
    ]  # fmt: skip
    if token_seconds is not None:
        whole, speed = plan.tokens * token_seconds, 1 / token_seconds
        mfu = speed * flops / plan.tokens / (compute.peak_flops * world.size)
        rows.append(
            (
                "time",
                f"about {_duration(whole)}, by a few measured steps of one micro-batch: {speed:,.0f} tokens/s, MFU {mfu:.0%}",
            )
        )
    else:
        rows.append(("time", "not measured: the model does not fit on this device"))
    rows += source_rows(plan, data)
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}" for name, text in rows]
    lines += ["", "rules, where a number was not given:"]
    lines += rules()
    lines += ["", *chart("learning rate", lambda tokens: plan.learning_rate(tokens), plan.tokens)]
    lines += ["", *chart("batch, tokens", lambda tokens: _batch_at(plan, tokens), plan.tokens)]
    return "\n".join(lines)


def chart(title: str, value: Callable[[int], float], tokens: int) -> list[str]:
    """A function of the tokens seen, drawn in WIDTH × HEIGHT characters from 0 to its largest value."""
    blocks = BLOCKS if _can_print(BLOCKS) else ASCII_BLOCKS
    values = [value(max(1, round(tokens * (column + 0.5) / WIDTH))) for column in range(WIDTH)]
    top = max(values) or 1.0
    lines = [f"{title} over tokens"]
    for row in range(HEIGHT - 1, -1, -1):
        label = f"{top:.3g}" if row == HEIGHT - 1 else "0" if row == 0 else ""
        cells = (min(8, max(0, round(8 * (v / top * HEIGHT - row)))) for v in values)
        lines.append(f"{label:>10} |" + "".join(blocks[cell] for cell in cells).rstrip())
    lines.append(" " * 10 + " 0" + f"{tokens:,}".rjust(WIDTH - 1))
    return lines


def _batch_at(plan: Plan, tokens: int) -> float:
    stage = max((stage for stage in plan.stages if stage.first_tokens < tokens), key=lambda stage: stage.first_step)
    return float(stage.sequences * plan.context)


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def _parts(memory: TrainingMemory) -> str:
    names = ("weights", "gradients", "optimizer", "copies", "activations", "loss")
    return ", ".join(f"{name} {readable_size(getattr(memory, name))}" for name in names)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds:.0f} seconds"
