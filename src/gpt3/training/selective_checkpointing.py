"""Selective activation checkpointing: matrix products and attention keep their results, and the rest is computed again.

What is computed again (layer norms, the GELU, sums, casts, copies of keys) is a small part of a step's operations. The last
product of a block is not kept where only the next block needs it (not so with post-LN, nor with dropout).
Chen et al. 2016; Korthikanti et al. 2022, section 5.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from gpt3.model import GPT3ForCausalLM

PRODUCTS = {torch.ops.aten.mm.default: 0, torch.ops.aten.addmm.default: 1, torch.ops.aten.bmm.default: 0}
"""Matrix products, and which argument is the left factor."""


def enable_selective(model: GPT3ForCausalLM) -> None:
    """Let each block keep its products and its attention, and compute the rest again in its backward pass."""
    config = model.config
    last = 0 if config.resid_pdrop or not config.use_pre_layernorm else config.intermediate_size
    policy = functools.partial(_policy, last)
    contexts = functools.partial(create_selective_checkpoint_contexts, policy)
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def _policy(inner: int, context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether an operator's results are kept.

    Args:
        inner: numbers that the product sums over that is not kept; 0: all are.
    """
    factor = PRODUCTS.get(operator)
    kept = (
        "attn" in operator.name() or "attention" in operator.name()
        if factor is None
        else args[factor].shape[-1] != inner
    )
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
