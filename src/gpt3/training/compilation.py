"""torch.compile for training: whether it works on this machine, and the few batch sizes that a compiled model meets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from gpt3.device import compile_failure
from gpt3.errors import InputError
from gpt3.progress import say
from gpt3.training.distributed import World
from gpt3.training.options import TrainOptions

SIZES = 4
"""Sizes of a compiled micro-batch at most: whole, half, a quarter, an eighth. torch gives up on a function that it has compiled
for 8 sizes; each takes about a minute on a GPU."""


def chooses_compile(options: TrainOptions, device: torch.device, world: World) -> bool:
    """Whether the model is compiled: where ``--compile`` says so, and by default on CUDA if torch.compile works there, and no
    matrices are split (``--tensor-parallel``).

    Raises:
        InputError: ``--compile`` was given, and does not work here.
    """
    if not (device.type == "cuda" and not options.tensor_parallel if options.compile is None else options.compile):
        return False
    reason = compile_failure(device)
    failures = int(world.all_reduce(torch.tensor(0 if reason is None else 1)))  # ranks that differ would not meet
    if not failures:
        return True
    reason = reason or "another process cannot"
    if options.compile:
        raise InputError(
            f"--compile: torch.compile does not work here ({reason}); install what is missing, or leave it out"
        )
    if world.first:
        say(
            f"torch.compile does not work here ({reason}): training without it, which is slower. Triton and a C compiler help."
        )
    return False


def compile_block(block: torch.nn.Module) -> None:
    """Compile one block's computation in place; what FSDP2 hooks on it runs outside of the compiled part, without a graph break.

    All blocks share what is compiled: one graph for dense and one for banded layers, for each size of micro-batch.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 8 * SIZES)
    block.forward = torch.compile(block.forward, dynamic=False)


def is_compiled(forward: Any) -> bool:
    """Whether what forward passes go through is compiled, whole or block by block."""
    blocks = getattr(getattr(forward, "transformer", None), "h", ())
    return hasattr(forward, "_orig_mod") or any(
        hasattr(block.forward, "_torchdynamo_orig_callable") for block in blocks
    )


def sizes(share: int, micro_batch: int, compiled: bool) -> Iterator[int]:
    """Rows of each micro-batch that takes `share` sequences, some of the last one's perhaps empty where the model is compiled.

    During a batch ramp the share grows step by step. A compiled model is compiled for each size that it meets, so it meets
    `SIZES` of them at most.
    """
    for first in range(0, share, micro_batch):
        left = min(micro_batch, share - first)
        halves = [-(-micro_batch >> n) for n in range(SIZES)]
        yield min(size for size in halves if size >= left) if compiled else left
