"""GPT3-dev, this project's ancestors: version 1 dense, version 2 (with a `window_size` W) alternating. GPT-2's names, weights
(out, in). The MLP is 4 x hidden wide with the exact GELU, whatever `n_inner` and `activation_function` say. On odd layers of
version 2 a query sees W + 1 keys: the W before it, and its own.

Version 1 may have heads of another width, `d_head`, and does not tie the head to the embedding. `use_pre_layernorm` false is
post-LN: each norm after its residual sum, and `ln_f` last all the same.
"""

from __future__ import annotations

from typing import Any

from transformers import GPT2Config

from gpt3.model_folder.families import Conversion, configuration
from gpt3.model_folder.families.gpt2 import from_gpt2


def conversion(raw: dict[str, Any]) -> Conversion:
    """The conversion of a config.json of `model_type` custom_gpt2 or gpt3dev.

    Raises:
        InputError: the model computes something that ours cannot.
    """
    theirs: Any = GPT2Config.from_dict({key: value for key, value in raw.items() if key != "model_type"})
    window = raw.get("window_size") if raw["model_type"] == "gpt3dev" else None
    changes: dict[str, Any] = {"intermediate_size": 4 * theirs.n_embd, "activation_function": "gelu"}
    changes["use_pre_layernorm"] = raw.get("use_pre_layernorm", True)
    if window is not None:
        changes |= {"layer_types": None, "sliding_window": window + 1}  # None: alternating, dense first
    elif raw.get("d_head") is not None:
        changes["head_dim"] = raw["d_head"]
    config = configuration(theirs, {}, **changes)
    version = "version 1, dense" if window is None else "version 2, alternating"
    found = from_gpt2(raw, config, f"GPT3-dev ({version})", transposed=False)
    if window is not None:
        found.notes.append(f"its window_size {window} lets a query see {window + 1} keys, itself included")
    if theirs.n_inner not in (None, config.intermediate_size):
        found.notes.append(
            f"n_inner {theirs.n_inner} is not what it computes: its MLP is {config.intermediate_size} wide"
        )
    return found
