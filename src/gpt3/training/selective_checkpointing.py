"""Selective activation checkpointing: matrix products and attention keep their results, and the rest is computed again.

What is computed again (layer norms, the GELU, sums, casts, copies of keys) is a small part of a step's operations.
Chen et al. 2016; Korthikanti et al. 2022, section 5.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from gpt3.model import GPT3ForCausalLM

PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}


def enable_selective(model: GPT3ForCausalLM) -> None:
    """Let each block keep its products and its attention, and compute the rest again in its backward pass."""
    contexts = functools.partial(create_selective_checkpoint_contexts, _policy)
    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def _policy(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    """Whether an operator's results are kept: products, and torch's fused kinds of attention, whichever the device has."""
    kept = operator in PRODUCTS or "attn" in operator.name() or "attention" in operator.name()
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE
