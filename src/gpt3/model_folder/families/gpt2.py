"""GPT-2 (Radford et al. 2019) and what is saved as its class: Cerebras-GPT, DistilGPT-2, DialoGPT, …

All layers are dense. Linear weights are Conv1D's, (in, out). The mask buffers `attn.bias` and `attn.masked_bias` of old
files are passed over.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpt3.errors import InputError
from gpt3.model_folder.families.blueprint import Blueprint, is_power_of_two, with_scaled_query

MASKS = re.compile(r"h\.\d+\.(cross)?attn\.(masked_)?bias")
NEUTRAL = (None, False, 1, 1.0)


def blueprint(raw: dict[str, Any]) -> Blueprint:
    """The plan for a config.json of `model_type` gpt2.

    Raises:
        InputError: cross-attention, maximal-update (muP) scales, positions that are not learned.
    """
    from transformers import GPT2Config

    from gpt3.model import GPT3Config

    theirs: Any = GPT2Config.from_dict(raw)
    refuse_strangers(raw)
    config = GPT3Config(
        **common_values(theirs),
        intermediate_size=theirs.n_inner,
        activation_function=theirs.activation_function,
        layer_types=["full_attention"] * theirs.n_layer,
    )
    plan = Blueprint(family="GPT-2", config=config, prefix="transformer.", passed_over=MASKS)
    add_tensors(plan, raw, transposed=True)
    return plan


def refuse_strangers(raw: dict[str, Any]) -> None:
    """Models saved under this class that compute something else, which transformers' class does not do either."""
    if raw.get("add_cross_attention"):
        raise InputError("it has cross-attention layers (add_cross_attention), a decoder of another model; not read")
    if scales := sorted(key for key, value in raw.items() if "mup" in key.lower() and value not in NEUTRAL):
        raise InputError(
            f"it was trained with maximal-update scales ({', '.join(scales)}), which this model has not; "
            "take the checkpoint in standard parametrisation"
        )
    if raw.get("position_embedding_type", "learned") not in ("learned", "absolute"):
        raise InputError(f"its positions are {raw['position_embedding_type']!r}, not learned; not read")


def common_values(theirs: Any) -> dict[str, Any]:
    """Our configuration's values that GPT-2's has by other names."""
    return {
        "vocab_size": theirs.vocab_size,
        "max_position_embeddings": theirs.n_positions,
        "hidden_size": theirs.n_embd,
        "num_hidden_layers": theirs.n_layer,
        "num_attention_heads": theirs.n_head,
        "layer_norm_epsilon": theirs.layer_norm_epsilon,
        "initializer_range": theirs.initializer_range,
        "resid_pdrop": theirs.resid_pdrop,
        "embd_pdrop": theirs.embd_pdrop,
        "attn_pdrop": theirs.attn_pdrop,
        "bos_token_id": theirs.bos_token_id,
        "eos_token_id": theirs.eos_token_id,
        "pad_token_id": theirs.pad_token_id,
        "tie_word_embeddings": theirs.tie_word_embeddings,
    }


def add_tensors(plan: Blueprint, raw: dict[str, Any], *, transposed: bool) -> None:
    """GPT-2's tensors, with weights (in, out) if `transposed`, else (out, in)."""
    config = plan.config
    C, F = config.hidden_size, config.intermediate_size
    width = config.num_attention_heads * config.head_dim
    plan.take("wte.weight", "wte.weight", (config.vocab_size, C))
    plan.take("wpe.weight", "wpe.weight", (config.max_position_embeddings, C))
    factors = [score_factor(raw, config.head_dim, layer) for layer in range(config.num_hidden_layers)]
    for layer, factor in enumerate(factors):
        h = f"h.{layer}"
        plan.norm(f"{h}.ln_1", f"{h}.ln_1")
        weight, bias = f"{h}.attn.c_attn.weight", f"{h}.attn.c_attn.bias"
        make = partial(_query_scaled, factor=factor, transposed=transposed)
        plan.take(weight, weight, (C, 3 * width) if transposed else (3 * width, C), make)
        plan.take(bias, bias, (3 * width,), partial(with_scaled_query, factor=factor))
        plan.linear(f"{h}.attn.c_proj", f"{h}.attn.c_proj", width, C, transposed=transposed)
        plan.norm(f"{h}.ln_2", f"{h}.ln_2")
        plan.linear(f"{h}.mlp.c_fc", f"{h}.mlp.c_fc", C, F, transposed=transposed)
        plan.linear(f"{h}.mlp.c_proj", f"{h}.mlp.c_proj", F, C, transposed=transposed)
    plan.norm("ln_f", "ln_f")
    if set(factors) != {1.0}:
        exact = "exactly" if all(map(is_power_of_two, factors)) else "rounded once"
        plan.notes.append(f"its attention scores are scaled in another way: folded into the query weights, {exact}")


def score_factor(raw: dict[str, Any], head_dim: int, layer: int) -> float:
    """Their scale of attention scores over ours, 1 / sqrt(head_dim)."""
    factor = 1.0 if raw.get("scale_attn_weights", True) else head_dim**0.5
    return factor / (layer + 1) if raw.get("scale_attn_by_inverse_layer_idx", False) else factor


def _query_scaled(weight: Tensor, *, factor: float, transposed: bool) -> Tensor:
    return with_scaled_query(torch.t(weight) if transposed else weight, factor)
