"""Stock GPT-2 of a GPT-3 without banded layers: transformers' `GPT2LMHeadModel`, no remote code.

The two share names and arithmetic; GPT-2's Conv1D weights are the transposes of `nn.Linear`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpt3.export.stock import build, kept_weights

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from gpt3.model import GPT3Config, GPT3ForCausalLM

TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def to_gpt2(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPT2LMHeadModel:
    """A `GPT2LMHeadModel` in evaluation mode whose logits are `model`'s, up to rounding, for contexts it sees as dense.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    from transformers import GPT2LMHeadModel

    state = {}
    for name, value in kept_weights(model, context, rows).items():
        state[name] = value.t().contiguous() if name.endswith(TRANSPOSED) else value
    return build(GPT2LMHeadModel, gpt2_config(model.config, context, rows), state, model)


def gpt2_config(config: GPT3Config, context: int, rows: int) -> Any:
    """The same shape in GPT-2's words."""
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=rows,
        n_positions=context,
        n_embd=config.hidden_size,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_inner=config.intermediate_size,
        activation_function=config.activation_function,
        layer_norm_epsilon=config.layer_norm_epsilon,
        initializer_range=config.initializer_range,
        resid_pdrop=config.resid_pdrop,
        embd_pdrop=config.embd_pdrop,
        attn_pdrop=config.attn_pdrop,
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=config.pad_token_id,
        tie_word_embeddings=config.tie_word_embeddings,
    )
