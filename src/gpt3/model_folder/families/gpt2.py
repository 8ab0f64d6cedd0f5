"""GPT-2 (Radford et al. 2019), and what is saved as its class: Cerebras-GPT, DistilGPT-2, DialoGPT. All layers are dense.
Conv1D weights are transposed; unscaled scores, or scores divided by the layer's number, are folded into the query's weights.

Not read: cross-attention, maximal-update (muP) scales, positions that are not learned.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config

from gpt3.errors import InputError
from gpt3.model import GPT3Config
from gpt3.model_folder import families
from gpt3.model_folder.families import Conversion

NAMES = {"intermediate_size": "n_inner"}
"""Values of our configuration that GPT2Config has by another name."""
MASKS = r"h\.\d+\.(cross)?attn\.(masked_)?bias"
NEUTRAL = (None, False, 1, 1.0)


def conversion(raw: dict[str, Any]) -> Conversion:
    """The conversion of a config.json of `model_type` gpt2.

    Raises:
        InputError: the model computes something that ours cannot.
    """
    return from_gpt2(raw, families.configuration(GPT2Config.from_dict(raw), NAMES), "GPT-2", transposed=True)


def from_gpt2(raw: dict[str, Any], config: GPT3Config, family: str, *, transposed: bool) -> Conversion:
    """The conversion of a model with GPT-2's names, its linear weights (in, out) if `transposed`."""
    if raw.get("add_cross_attention"):
        raise InputError("it has cross-attention layers (add_cross_attention), which belong to another kind of model")
    if scales := sorted(key for key, value in raw.items() if "mup" in key.lower() and value not in NEUTRAL):
        raise InputError(
            f"it was trained with maximal-update scales ({', '.join(scales)}), which gpt3 models do not have. "
            "Use the checkpoint in standard parametrisation"
        )
    if raw.get("position_embedding_type", "learned") not in ("learned", "absolute"):
        raise InputError(f"its positions are {raw['position_embedding_type']!r}; only learned positions can be read")
    whole = 1.0 if raw.get("scale_attn_weights", True) else config.head_dim**0.5
    by_layer = raw.get("scale_attn_by_inverse_layer_idx", False)
    factors = [whole / (layer + 1) if by_layer else whole for layer in range(config.num_hidden_layers)]
    found = families.conversion(family, config, ignored=MASKS, transposed=transposed, query_factor=factors.__getitem__)
    if set(factors) != {1.0}:
        exact = families.exactness(*factors)
        found.notes.append(f"its attention scores are scaled in another way: folded into the query weights, {exact}")
    return found
