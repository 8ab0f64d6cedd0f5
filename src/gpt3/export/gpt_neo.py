"""Stock GPT-Neo of a GPT-3 with banded layers: transformers' `GPTNeoForCausalLM`, no remote code.

GPT-Neo alternates global and local layers as GPT-3 does, its window counted the same way. Its attention differs in two
things, both of which the weights can make up for:

- Scores are not divided by sqrt(D). So W_q is.
- Queries, keys and values have no biases.
  - b_k adds q.b_k to every score of a query: softmax does not see it. It is dropped.
  - b_v passes through the probabilities, which sum to 1: W_o b_v goes into the output's bias.
  - b_q goes into W_q, by means of ln_1. A layer norm's output x = gain * n + shift, where the entries of n sum to 0,
    lies in a hyperplane: u.x = 1 for u = (1 / gain) / sum(shift / gain). So W_q x + b_q = (W_q + b_q u^T) x. To keep
    that sum away from 0, ln_1's shift is first moved by its gain. What W_q, W_k and W_v make of the move is a constant
    again, and is taken back as a bias is: from q in the same way, from v in the output's bias, from k not at all. No
    matrix is inverted, and a W_q without an inverse does as well.

All of it is exact but for rounding; it is computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from gpt3.export.stock import build, kept_weights, stock_config
from gpt3.model import GPT3ForCausalLM
from gpt3.model_folder.families.gpt_neo import KINDS, NAMES

SMALLEST_GAIN = 1e-9  # as a share of the largest: below it a feature of ln_1 is constant in float32


def to_gpt_neo(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPTNeoForCausalLM:
    """A `GPTNeoForCausalLM` in evaluation mode whose logits are `model`'s up to rounding.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    state = kept_weights(model, context, rows)
    for layer in range(model.config.num_hidden_layers):
        prefix = f"transformer.h.{layer}."
        names = [f"{module}.{kind}" for module in ("ln_1", "attn.c_attn", "attn.c_proj") for kind in ("weight", "bias")]
        block = {name: state.pop(prefix + name) for name in names}
        state |= {prefix + name: value for name, value in fold_attention(block, model.config.head_dim).items()}
    theirs = {ours: kind for kind, ours in KINDS.items()}
    kinds = [theirs[kind] for kind in model.config.layer_types or ()]
    config = stock_config(
        GPTNeoConfig, NAMES, model.config, context, rows, attention_types=[[kinds, 1]],
        window_size=model.config.sliding_window,
    )  # fmt: skip
    return build(GPTNeoForCausalLM, config, state, model)


def fold_attention(block: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """ln_1 and attention of one block, from our names to GPT-Neo's (see above). Shapes: C, (C, C), (3 C, C)."""
    gain, shift = block["ln_1.weight"].double(), block["ln_1.bias"].double()
    w_q, w_k, w_v = block["attn.c_attn.weight"].double().chunk(3)
    b_q, _, b_v = block["attn.c_attn.bias"].double().chunk(3)
    w_o, b_o = block["attn.c_proj.weight"].double(), block["attn.c_proj.bias"].double()

    move, weights = gain, 1 / gain  # so that sum(weights * (x - shift)) = sum(n) = 0
    least = int(gain.abs().argmin())
    if gain[least].abs() <= SMALLEST_GAIN * gain.abs().max():  # a feature that is its shift, always
        move = weights = torch.zeros_like(gain).index_fill(0, torch.tensor([least]), 1.0)
    if (shift * weights).sum() < 0:
        move = -move
    moved = shift + move
    u = weights / (moved * weights).sum()
    b_q = b_q - w_q @ move
    b_v = b_v - w_v @ move

    folded = {
        "ln_1.weight": gain,
        "ln_1.bias": moved,
        "attn.attention.q_proj.weight": (w_q + torch.outer(b_q, u)) * head_dim**-0.5,
        "attn.attention.k_proj.weight": w_k,
        "attn.attention.v_proj.weight": w_v,
        "attn.attention.out_proj.weight": w_o,
        "attn.attention.out_proj.bias": b_o + w_o @ b_v,
    }
    dtype = block["ln_1.bias"].dtype
    return {name: value.to(dtype).contiguous() for name, value in folded.items()}
