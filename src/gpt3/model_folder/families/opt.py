"""OPT (Zhang et al. 2022), the open replica of GPT-3: dense, ReLU, positions counted from the third row of their table.

Read are all sizes that are pre-LN; Galactica is of the same class (no biases, norms without gains). OPT-350M is not read: its
embedding is narrower than the model, and it is post-LN without a last norm.
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor

from gpt3.errors import InputError
from gpt3.model_folder.families.blueprint import Blueprint, Source
from gpt3.model_folder.families.gpt_neo import stacked

PASSED_OVER = re.compile(r"decoder\.version")
OFFSET = 2
"""Rows of the position table that no token uses."""
LAYER_NORM_EPSILON = 1e-5  # torch's own: their configuration has none


def blueprint(raw: dict[str, Any]) -> Blueprint:
    """The plan for a config.json of `model_type` opt.

    Raises:
        InputError: a projected embedding, post-LN, no last norm (OPT-350M has the first two); all reasons at once.
    """
    from transformers import OPTConfig

    from gpt3.model import GPT3Config

    theirs: Any = OPTConfig.from_dict(raw)
    refuse_others(theirs)
    config = GPT3Config(
        vocab_size=theirs.vocab_size,
        max_position_embeddings=theirs.max_position_embeddings,
        hidden_size=theirs.hidden_size,
        num_hidden_layers=theirs.num_hidden_layers,
        num_attention_heads=theirs.num_attention_heads,
        intermediate_size=theirs.ffn_dim,
        activation_function=theirs.activation_function,
        layer_types=["full_attention"] * theirs.num_hidden_layers,
        layer_norm_epsilon=LAYER_NORM_EPSILON,
        initializer_range=theirs.init_std,
        resid_pdrop=theirs.dropout,
        attn_pdrop=theirs.attention_dropout,
        bos_token_id=theirs.bos_token_id,
        eos_token_id=theirs.eos_token_id,
        pad_token_id=theirs.pad_token_id,
        tie_word_embeddings=theirs.tie_word_embeddings,
    )
    plan = Blueprint(
        family="OPT",
        config=config,
        prefix="model.",
        passed_over=PASSED_OVER,
        embedding="decoder.embed_tokens.weight",
        starts_with_bos=True,
    )
    C, F, P = config.hidden_size, config.intermediate_size, config.max_position_embeddings
    plan.take("wte.weight", plan.embedding, (config.vocab_size, C))
    plan.take("wpe.weight", "decoder.embed_positions.weight", (P + OFFSET, C), _used_positions)
    has_bias, has_gain = theirs.enable_bias, theirs.layer_norm_elementwise_affine

    def linear(ours: str, name: str, inputs: int, outputs: int) -> None:
        plan.linear(ours, name, inputs, outputs)
        if not has_bias:
            plan.constant(f"{ours}.bias", 0.0, outputs)

    def norm(ours: str, name: str) -> None:
        plan.norm(ours, name)
        if not has_gain:
            plan.constant(f"{ours}.weight", 1.0, C)
            plan.constant(f"{ours}.bias", 0.0, C)

    for layer in range(config.num_hidden_layers):
        h, name = f"h.{layer}", f"decoder.layers.{layer}"
        norm(f"{h}.ln_1", f"{name}.self_attn_layer_norm")
        for part, shape in (("weight", (C, C)), ("bias", (C,))):
            parts = {f"{name}.self_attn.{each}_proj.{part}": shape for each in "qkv"}
            plan.sources[f"{h}.attn.c_attn.{part}"] = Source(parts, stacked())
        if not has_bias:
            plan.constant(f"{h}.attn.c_attn.bias", 0.0, 3 * C)
        linear(f"{h}.attn.c_proj", f"{name}.self_attn.out_proj", C, C)
        norm(f"{h}.ln_2", f"{name}.final_layer_norm")
        linear(f"{h}.mlp.c_fc", f"{name}.fc1", C, F)
        linear(f"{h}.mlp.c_proj", f"{name}.fc2", F, C)
    norm("ln_f", "decoder.final_layer_norm")
    plan.notes.append(f"the first {OFFSET} rows of its position table, which no token uses, are left out")
    return plan


def refuse_others(theirs: Any) -> None:
    """The models of OPT's class that ours cannot be."""
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
            f"this OPT model cannot be a gpt3 model: {'; '.join(reasons)}; OPT-350M is so, all other sizes can be read"
        )


def _used_positions(table: Tensor) -> Tensor:
    return table[OFFSET:]
