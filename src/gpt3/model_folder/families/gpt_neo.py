"""GPT-Neo (Black et al. 2021): global and local layers become dense and banded ones with the same window. Its scores are not
divided by sqrt(head_dim), so the query's weights are multiplied by it. Query, key and value have no bias: zeros.

A local layer's mask keeps the keys j of a query i with i - window_size < j <= i: window_size keys, itself included, as ours.
"""

from __future__ import annotations

from typing import Any

from transformers import GPTNeoConfig

from gpt3.model_folder import families
from gpt3.model_folder.families import Conversion

NAMES = {"resid_pdrop": "resid_dropout", "embd_pdrop": "embed_dropout", "attn_pdrop": "attention_dropout"}
"""Values of our configuration that GPTNeoConfig has by another name."""
MODULES: families.Modules = {
    "h.*.attn.c_attn": ("h.*.attn.attention.q_proj", "h.*.attn.attention.k_proj", "h.*.attn.attention.v_proj"),
    "h.*.attn.c_proj": "h.*.attn.attention.out_proj",
}
MASKS = r"h\.\d+\.attn\.attention\.(masked_)?bias"
KINDS = {"global": "full_attention", "local": "sliding_attention"}


def conversion(raw: dict[str, Any]) -> Conversion:
    """The conversion of a config.json of `model_type` gpt_neo."""
    theirs: Any = GPTNeoConfig.from_dict(raw)
    kinds = [KINDS[kind] for kind in theirs.attention_layers]
    config = families.configuration(theirs, NAMES, layer_types=kinds, sliding_window=theirs.window_size)
    factor = config.head_dim**0.5
    found = families.conversion(
        "GPT-Neo",
        config,
        MODULES,
        ignored=MASKS,
        absent=r"h\.\d+\.attn\.c_attn\.bias",
        query_factor=lambda layer: factor,
    )
    exact = families.exactness(factor)
    found.notes.append(f"its attention scores are unscaled: sqrt(head_dim) is folded into the query weights, {exact}")
    return found
