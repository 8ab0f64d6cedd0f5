"""What fits in the device's memory: the automatic micro-batch, half of it where memory runs out after all, and what would fit.

The batch and all numbers that follow from it stay: a micro-batch only decides in how many parts a step is computed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpt3.errors import RunError
from gpt3.ladder.memory import CHECKPOINTING_KINDS, TrainingMemory, training_memory
from gpt3.ladder.presets import PRESETS, Preset, readable_size
from gpt3.options import flag
from gpt3.progress import say
from gpt3.tables import counted
from gpt3.training.distributed import Compute, World, is_sharded, shards_of
from gpt3.training.noise_scale import check_micro_batch
from gpt3.training.optimizers import OPTIMIZERS
from gpt3.training.options import TrainOptions
from gpt3.training.plan import DEFAULT_MICRO_BATCH_TOKENS, Plan

ROOM = {"cuda": 0.9, "cpu": 0.75, "mps": 0.75}
"""The share of the device's memory that the estimate may fill. A CPU shares its own with everything else on the machine."""
MOST_TOKENS = {"cuda": 4 * DEFAULT_MICRO_BATCH_TOKENS}
"""Tokens of a micro-batch at most, for devices that take more than DEFAULT_MICRO_BATCH_TOKENS."""
LEAST_CONTEXT = 128
"""A shorter context is no advice."""


@dataclass(frozen=True)
class Exchange:
    """When sharded processes exchange weights and gradients; the frugal way by default."""

    regather: bool = True
    """A block's weights are freed after its forward pass, and gathered again for its backward pass."""
    reduce_once: bool = False
    """Gradients accumulate whole on each device, and are exchanged once per step."""


def memory_of(
    options: TrainOptions, shape: Preset, plan: Plan, compute: Compute, world: World, exchange: Exchange | None = None
) -> TrainingMemory:
    """Memory of each device; by default of the most frugal `Exchange` that the options allow."""
    exchange = exchange or Exchange(options.regather is not False, options.reduce_once is True)
    memory = training_memory(
        shape, str(compute.dtype).removeprefix("torch."), plan.micro_batch, checkpointing=options.checkpointing,
        shards=shards_of(options, world), moments=0.0 if options.opt_state_on_cpu else OPTIMIZERS[plan.optimizer].state_bytes,
        regather=exchange.regather, whole_gradients=exchange.reduce_once, tensor=world.tensor,
    )  # fmt: skip
    # the micro-batch's gradients and the sum of those before it
    return dataclasses.replace(memory, gradients=(1 + options.noise_scale) * memory.gradients)


def choose_exchange(plan: Plan, options: TrainOptions, shape: Preset, compute: Compute, world: World) -> Exchange:
    """What the options say, else what saves most communication within the device's memory; a CPU's is never filled with it.

    Of P bytes of 16-bit weights and A micro-batches, to keep weights gathered saves A P of a step's 2 A P, and holds P more; to
    reduce once saves 2 (A - 1) P of 2 A P, and holds 2 P more.

    Args:
        shape: with the data's vocabulary.
    """
    if not is_sharded(options, world):
        return Exchange()
    have = room(compute) if compute.device.type == "cuda" else 0.0
    accumulates = plan.batch_tokens > plan.micro_batch * plan.context * world.data_size
    for regather, once in ((False, True), (True, True), (False, False)):
        exchange = Exchange(
            regather if options.regather is None else options.regather,
            once and accumulates if options.reduce_once is None else options.reduce_once,
        )
        if have is not None and memory_of(options, shape, plan, compute, world, exchange).total <= have:
            return exchange
    return Exchange(options.regather is not False, options.reduce_once is True)


def parallel_text(options: TrainOptions, world: World, exchange: Exchange) -> str:
    """How processes share the work, such as ``fsdp, 8 processes per copy, gradients exchanged once per step``."""
    if world.size == 1:
        return "none"
    shards = shards_of(options, world)
    split = f"matrices split over {world.tensor} processes" if world.tensor > 1 else ""
    per_copy = shards * world.tensor
    copies = f"{per_copy} processes per copy" if is_sharded(options, world) and per_copy < world.size else ""
    once = "gradients exchanged once per step" if exchange.reduce_once else ""
    return ", ".join(filter(None, [options.parallel, split, copies, once]))


def room(compute: Compute) -> float | None:
    """Bytes that a run may take on the device; None where nobody says."""
    have = compute.memory()
    return None if have is None else ROOM[compute.device.type] * have


def fitted(
    plan: Plan, options: TrainOptions, shape: Preset, compute: Compute, world: World, most: int | None = None
) -> Plan:
    """`plan` with the largest micro-batch that divides the batch and fits, unless ``--micro-batch`` says one; at least 1.

    Args:
        shape: with the data's vocabulary.
        most: sequences that were found to fit; None: the estimate decides.

    Raises:
        InputError: ``--noise-scale`` with a single micro-batch per step.
    """
    share = -(-(plan.batch_tokens // plan.context) // world.data_size)
    if options.noise_scale:
        check_micro_batch(options.micro_batch, share)
        share //= 2
    if options.micro_batch is not None:
        return plan
    usual = MOST_TOKENS.get(compute.device.type, DEFAULT_MICRO_BATCH_TOKENS) // plan.context
    have = room(compute)
    for micro in divisors(plan, min(share, max(1, usual), most or share)):
        smaller = dataclasses.replace(plan, micro_batch=micro)
        if have is None or memory_of(options, shape, smaller, compute, world).total <= have:
            return smaller
    return dataclasses.replace(plan, micro_batch=1)


def shortage(plan: Plan, options: TrainOptions, shape: Preset, compute: Compute, world: World) -> str | None:
    """None: the run fits. Else a line that says what it needs, what there is, and what would fit.

    A micro-batch chosen here must fit by the whole estimate. Where ``--micro-batch`` is given, only weights, gradients and
    optimizer state must: those are never smaller.

    Args:
        plan: a `fitted` one.
        shape: with the data's vocabulary.
    """
    have, usable = compute.memory(), room(compute)
    if have is None or usable is None:
        return None
    memory = memory_of(options, shape, plan, compute, world)
    need, limit, what = memory.total, usable, f"for {plan.micro_batch} × {plan.context:,} tokens"
    if options.micro_batch is not None:
        need, limit, what = (
            memory.weights + memory.gradients + memory.optimizer,
            have,
            "for weights, gradients and optimizer",
        )
    if need < limit:
        return None
    one = dataclasses.replace(plan, micro_batch=1)

    def fits(way: tuple[str, Preset, TrainOptions]) -> bool:
        return memory_of(way[2], way[1], one, compute, world).total < usable

    ways = [found[0] for kind in smaller_runs(options, shape) if (found := next(filter(fits, kind), None))]
    what_fits = f"One sequence fits with {', or '.join(ways)}" if ways else "No smaller preset fits"
    return (
        f"--model {shape.name} needs about {readable_size(need)} {what}; {readable_size(limit)} of this device's "
        f"{readable_size(have)} can be used. {what_fits}; or use more devices with --parallel fsdp (gpt3 ladder --gpus N)"
    )


def smaller_runs(options: TrainOptions, shape: Preset) -> list[list[tuple[str, Preset, TrainOptions]]]:
    """What may be tried where memory is short, kind by kind, the largest first: the option, then shape and options with it."""
    ways: list[dict[str, Any]] = [{"selective_checkpointing": True}, {"gradient_checkpointing": True}]
    neither = dataclasses.replace(options, selective_checkpointing=False)
    checkpointing = [
        (flag(*way), shape, dataclasses.replace(neither, **way))
        for way in ways[CHECKPOINTING_KINDS.index(options.checkpointing) :]
    ]
    contexts = [shape.context >> halvings for halvings in range(1, shape.context.bit_length())]
    shorter = [
        (f"--context {n}", dataclasses.replace(shape, context=n), options) for n in contexts if n >= LEAST_CONTEXT
    ]
    presets = sorted(PRESETS.values(), key=lambda preset: -preset.parameters)
    models = [(f"--model {one.name}", one, options) for one in presets if one.parameters < shape.parameters]
    own_shape = (options.init_from, options.layers, options.width, options.heads) != (None, None, None, None)
    return [checkpointing, shorter, [] if own_shape else models]


def divisors(plan: Plan, most: int) -> Iterator[int]:
    """The micro-batches of at most `most` sequences that divide the plan's batch, largest first."""
    sequences = plan.batch_tokens // plan.context
    return (micro for micro in range(min(most, sequences), 0, -1) if sequences % micro == 0)


def halved(plan: Plan, options: TrainOptions) -> Plan:
    """`plan` with half its micro-batch, or a little less where that does not divide the batch. Says so.

    Raises:
        RunError: one sequence is the least.
    """
    if plan.micro_batch == 1:
        checkpointing = "" if options.gradient_checkpointing else "--gradient-checkpointing, "
        raise RunError(
            f"one sequence of {plan.context:,} tokens does not fit in the device's memory; use {checkpointing}a smaller "
            "--context, a smaller --model, or more devices with --parallel fsdp"
        )
    micro = next(divisors(plan, plan.micro_batch // 2))
    say(
        f"Out of memory with micro-batches of {counted(plan.micro_batch, 'sequence')}: "
        f"continuing with {micro}. The batch stays the same."
    )
    return dataclasses.replace(plan, micro_batch=micro)
