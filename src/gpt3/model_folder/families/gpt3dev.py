"""GPT3-dev, this project's ancestors: `custom_gpt2` and `gpt3dev`, version 1 (dense) and version 2 (alternating).

GPT-2's names with weights as (out, in). What their config.json says is not all true of what they compute:

- the MLP is 4 x hidden wide, whatever `n_inner` says, and its GELU is the exact one, whatever `activation_function` says;
- version 2 has a `window_size` W: on every odd layer a query sees the W tokens before it and itself, W + 1 keys;
- version 1 may have heads of another width, `d_head`, and does not tie the head to the embedding;
- `use_pre_layernorm` false is post-LN: each norm after its residual sum, and `ln_f` in the end all the same.
"""

from __future__ import annotations

from typing import Any

from gpt3.model_folder.families.blueprint import Blueprint
from gpt3.model_folder.families.gpt2 import MASKS, add_tensors, common_values, refuse_strangers


def blueprint(raw: dict[str, Any]) -> Blueprint:
    """The plan for a config.json of `model_type` custom_gpt2 or gpt3dev.

    Raises:
        InputError: cross-attention, as in GPT-2.
    """
    from transformers import GPT2Config

    from gpt3.model import GPT3Config

    theirs: Any = GPT2Config.from_dict({key: value for key, value in raw.items() if key != "model_type"})
    refuse_strangers(raw)
    window = raw.get("window_size") if raw["model_type"] == "gpt3dev" else None
    values: dict[str, Any] = {"layer_types": ["full_attention"] * theirs.n_layer}
    if window is not None:
        values = {"layer_types": None, "sliding_window": window + 1}  # None: alternating, dense first
    elif raw.get("d_head") is not None:
        values["head_dim"] = raw["d_head"]
    config = GPT3Config(
        **common_values(theirs),
        **values,
        intermediate_size=4 * theirs.n_embd,
        activation_function="gelu",
        use_pre_layernorm=raw.get("use_pre_layernorm", True),
    )
    version = "version 1, dense" if window is None else "version 2, alternating"
    plan = Blueprint(family=f"GPT3-dev ({version})", config=config, prefix="transformer.", passed_over=MASKS)
    add_tensors(plan, raw, transposed=False)
    if window is not None:
        plan.notes.append(f"its window_size {window} lets a query see {window + 1} keys, itself included")
    if theirs.n_inner not in (None, config.intermediate_size):
        plan.notes.append(
            f"n_inner {theirs.n_inner} is not what it computes: its MLP is {config.intermediate_size} wide"
        )
    return plan
