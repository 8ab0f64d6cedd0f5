"""GPT-Neo (Black et al. 2021): global and local layers alternating, as ours.

Its scores are not divided by sqrt(head_dim): the query's weights are multiplied by it. Query, key and value have no bias: zeros.
A local layer's mask keeps the keys j of a query i with i - window_size < j <= i: window_size keys, itself included, as ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpt3.model_folder.families.blueprint import Blueprint, Source, is_power_of_two, rescaled

MASKS = re.compile(r"h\.\d+\.attn\.attention\.(masked_)?bias")
KINDS = {"global": "full_attention", "local": "sliding_attention"}


def blueprint(raw: dict[str, Any]) -> Blueprint:
    """The plan for a config.json of `model_type` gpt_neo."""
    from transformers import GPTNeoConfig

    from gpt3.model import GPT3Config

    theirs: Any = GPTNeoConfig.from_dict(raw)
    config = GPT3Config(
        vocab_size=theirs.vocab_size,
        max_position_embeddings=theirs.max_position_embeddings,
        hidden_size=theirs.hidden_size,
        num_hidden_layers=theirs.num_layers,
        num_attention_heads=theirs.num_heads,
        intermediate_size=theirs.intermediate_size,
        activation_function=theirs.activation_function,
        layer_types=[KINDS[kind] for kind in theirs.attention_layers],
        sliding_window=theirs.window_size,
        layer_norm_epsilon=theirs.layer_norm_epsilon,
        initializer_range=theirs.initializer_range,
        resid_pdrop=theirs.resid_dropout,
        embd_pdrop=theirs.embed_dropout,
        attn_pdrop=theirs.attention_dropout,
        bos_token_id=theirs.bos_token_id,
        eos_token_id=theirs.eos_token_id,
        pad_token_id=theirs.pad_token_id,
        tie_word_embeddings=theirs.tie_word_embeddings,
    )
    C, F = config.hidden_size, config.intermediate_size
    factor = config.head_dim**0.5
    plan = Blueprint(family="GPT-Neo", config=config, prefix="transformer.", passed_over=MASKS)
    plan.take("wte.weight", "wte.weight", (config.vocab_size, C))
    plan.take("wpe.weight", "wpe.weight", (config.max_position_embeddings, C))
    for layer in range(config.num_hidden_layers):
        h = f"h.{layer}"
        theirs_attn = f"{h}.attn.attention"
        plan.norm(f"{h}.ln_1", f"{h}.ln_1")
        parts = {f"{theirs_attn}.{name}_proj.weight": (C, C) for name in "qkv"}
        plan.sources[f"{h}.attn.c_attn.weight"] = Source(parts, stacked(factor))
        plan.constant(f"{h}.attn.c_attn.bias", 0.0, 3 * C)
        plan.linear(f"{h}.attn.c_proj", f"{theirs_attn}.out_proj", C, C)
        plan.norm(f"{h}.ln_2", f"{h}.ln_2")
        plan.linear(f"{h}.mlp.c_fc", f"{h}.mlp.c_fc", C, F)
        plan.linear(f"{h}.mlp.c_proj", f"{h}.mlp.c_proj", F, C)
    plan.norm("ln_f", "ln_f")
    exact = "exactly" if is_power_of_two(factor) else "rounded once"
    plan.notes.append(f"its attention scores are unscaled: sqrt(head_dim) is folded into the query weights, {exact}")
    return plan


def stacked(query_factor: float = 1.0) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Query, key and value, each (C, …), become the rows of c_attn, (3C, …); the query's are multiplied."""
    return partial(_stack, query_factor=query_factor)


def _stack(query: Tensor, key: Tensor, value: Tensor, *, query_factor: float) -> Tensor:
    return torch.cat([rescaled(query, query_factor), key, value])
