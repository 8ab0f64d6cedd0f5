"""The lean training step on a CPU, in float32 or bfloat16: blocks written out in loops of ours, products by the faster library.

`fits` says whether a run trains so, `choose` which library computes which product here, `install` does it. numba is imported by
the last one only. Everything else (GPUs, float16, processors without instructions for bfloat16, dropout, sharded or compiled
models) trains through torch's operators.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from gpt3.training.lean.products import Products, fastest, has_bf16

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM


def fits(model: GPT3ForCausalLM, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `model` can take lean steps on this device with products in this dtype."""
    config = model.config
    return (
        device.type == "cpu"
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and has_bf16()))
        and not any((config.resid_pdrop, config.embd_pdrop, config.attn_pdrop))
        and config.use_pre_layernorm
        and importlib.util.find_spec("numba") is not None
    )


def choose(model: GPT3ForCausalLM, rows: int, dtype: torch.dtype) -> list[str]:
    """The products in float32 that oneDNN computes faster here, for micro-batches of `rows` tokens (gpt3.training.lean.products).

    In bfloat16 there is nothing to choose: oneDNN computes them all.
    """
    return fastest(model, rows) if dtype == torch.float32 else []


def install(model: GPT3ForCausalLM, onednn: Sequence[str], dtype: torch.dtype) -> None:
    """Let `model` take lean steps with products in `dtype`, in float32 with oneDNN for these."""
    from gpt3.training.lean.block import install as install_blocks
    from gpt3.training.lean.half_products import HalfProducts

    install_blocks(model, Products(onednn) if dtype == torch.float32 else HalfProducts())
