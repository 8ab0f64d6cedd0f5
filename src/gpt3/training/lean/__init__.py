"""The lean training step on a CPU in float32: blocks written out in loops of our own, each product by the faster library.

`fits` says whether a run trains so, `choose` which library computes which product here, `install` does it. numba is imported by
the last two only. Everything else (GPUs, 16 bit, dropout, sharded or compiled models) trains through torch's operators.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM


def fits(model: GPT3ForCausalLM, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether `model` can take lean steps on this device with products in this dtype."""
    config = model.config
    return (
        device.type == "cpu"
        and dtype == torch.float32
        and not any((config.resid_pdrop, config.embd_pdrop, config.attn_pdrop))
        and config.use_pre_layernorm
        and importlib.util.find_spec("numba") is not None
    )


def choose(model: GPT3ForCausalLM, rows: int) -> list[str]:
    """The products that oneDNN computes faster here, for micro-batches of `rows` tokens (gpt3.training.lean.products)."""
    from gpt3.training.lean.products import fastest

    return fastest(model, rows)


def install(model: GPT3ForCausalLM, onednn: Sequence[str]) -> None:
    """Let `model` take lean steps, with oneDNN for these products."""
    from gpt3.training.lean.block import install as install_blocks
    from gpt3.training.lean.products import Products

    install_blocks(model, Products(onednn))
