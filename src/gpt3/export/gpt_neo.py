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

from typing import TYPE_CHECKING, Any

from gpt3.export.stock import build, kept_weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import GPTNeoForCausalLM

    from gpt3.model import GPT3Config, GPT3ForCausalLM

KINDS = {"full_attention": "global", "sliding_attention": "local"}
SMALLEST_GAIN = 1e-9  # beside the largest: below it a feature of ln_1 is constant, to float32


def to_gpt_neo(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPTNeoForCausalLM:
    """A `GPTNeoForCausalLM` in evaluation mode whose logits are `model`'s up to rounding.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    from transformers import GPTNeoForCausalLM

    state = kept_weights(model, context, rows)
    for layer in range(model.config.num_hidden_layers):
        prefix = f"transformer.h.{layer}."
        names = ("ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight")
        block = {name: state[prefix + name] for name in (*names, "attn.c_proj.bias")}
        for name in ("attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias"):
            del state[prefix + name]
        state |= {prefix + name: value for name, value in fold_attention(block, model.config.head_dim).items()}
    return build(GPTNeoForCausalLM, gpt_neo_config(model.config, context, rows), state, model)


def fold_attention(block: dict[str, Tensor], head_dim: int) -> dict[str, Tensor]:
    """ln_1 and attention of one block, from our names to GPT-Neo's (see above). Shapes: C, (C, C), (3 C, C)."""
    import torch

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
        "ln_1.bias": moved,
        "attn.attention.q_proj.weight": (w_q + torch.outer(b_q, u)) * head_dim**-0.5,
        "attn.attention.k_proj.weight": w_k,
        "attn.attention.v_proj.weight": w_v,
        "attn.attention.out_proj.weight": w_o,
        "attn.attention.out_proj.bias": b_o + w_o @ b_v,
    }
    dtype = block["ln_1.bias"].dtype
    return {name: value.to(dtype).contiguous() for name, value in folded.items()}


def gpt_neo_config(config: GPT3Config, context: int, rows: int) -> Any:
    """The same shape in GPT-Neo's words."""
    from transformers import GPTNeoConfig

    return GPTNeoConfig(
        vocab_size=rows,
        max_position_embeddings=context,
        hidden_size=config.hidden_size,
        num_layers=config.num_hidden_layers,
        attention_types=[[[KINDS[kind] for kind in config.layer_types], 1]],
        num_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        window_size=config.sliding_window,
        activation_function=config.activation_function,
        layer_norm_epsilon=config.layer_norm_epsilon,
        initializer_range=config.initializer_range,
        resid_dropout=config.resid_pdrop,
        embed_dropout=config.embd_pdrop,
        attention_dropout=config.attn_pdrop,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        tie_word_embeddings=config.tie_word_embeddings,
    )
