"""OPT (Zhang et al. 2022), the open replica of GPT-3, and Galactica: dense, ReLU or GELU. The first two rows of its position
table, which no token uses, are left out; missing biases are zeros, missing gains are ones.

All sizes that are pre-LN can be read. OPT-350M cannot: its embedding is narrower than the model, and it is post-LN without a
last norm.
"""

from __future__ import annotations

from typing import Any

from transformers import OPTConfig

from gpt3.errors import InputError
from gpt3.model_folder import families
from gpt3.model_folder.families import Conversion

NAMES = {
    "intermediate_size": "ffn_dim", "initializer_range": "init_std", "resid_pdrop": "dropout", "attn_pdrop": "attention_dropout",
}  # fmt: skip
"""Values of our configuration that OPTConfig has by another name."""
MODULES: families.Modules = {
    "wte": "decoder.embed_tokens",
    "wpe": "decoder.embed_positions",
    "h.*.ln_1": "decoder.layers.*.self_attn_layer_norm",
    "h.*.attn.c_attn": (
        "decoder.layers.*.self_attn.q_proj", "decoder.layers.*.self_attn.k_proj", "decoder.layers.*.self_attn.v_proj",
    ),
    "h.*.attn.c_proj": "decoder.layers.*.self_attn.out_proj",
    "h.*.ln_2": "decoder.layers.*.final_layer_norm",
    "h.*.mlp.c_fc": "decoder.layers.*.fc1",
    "h.*.mlp.c_proj": "decoder.layers.*.fc2",
    "ln_f": "decoder.final_layer_norm",
}  # fmt: skip
OFFSET = 2
"""Rows of the position table that no token uses."""
LAYER_NORM_EPSILON = 1e-5  # torch's own: their configuration has none


def conversion(raw: dict[str, Any]) -> Conversion:
    """The conversion of a config.json of `model_type` opt.

    Raises:
        InputError: a projected embedding, post-LN, no last norm; all reasons at once.
    """
    theirs: Any = OPTConfig.from_dict(raw)
    reasons = []
    if theirs.word_embed_proj_dim != theirs.hidden_size:
        reasons.append(
            f"its embedding is {theirs.word_embed_proj_dim} wide and projected to {theirs.hidden_size} (word_embed_proj_dim)"
        )
    if not theirs.do_layer_norm_before:
        reasons.append("it is post-LN without a last layer norm (do_layer_norm_before false)")
    elif theirs._remove_final_layer_norm:
        reasons.append("it has no last layer norm (_remove_final_layer_norm)")
    if reasons:
        raise InputError(
            f"this OPT model cannot be a gpt3 model: {'; '.join(reasons)}. OPT-350M is of this kind; use another size"
        )
    config = families.configuration(theirs, NAMES, layer_norm_epsilon=LAYER_NORM_EPSILON)
    absent = [] if theirs.enable_bias else [r"h\.\d+\.(attn|mlp)\.\w+\.bias"]
    absent += [] if theirs.layer_norm_elementwise_affine else [r"(h\.\d+\.)?ln_\w+\.\w+"]
    found = families.conversion(
        "OPT", config, MODULES, prefix="model.", ignored=r"decoder\.version", absent="|".join(absent),
        position_offset=OFFSET, starts_with_bos=True,
    )  # fmt: skip
    found.notes.append(f"the first {OFFSET} rows of its position table, which no token uses, are left out")
    return found
