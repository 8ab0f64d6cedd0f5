"""Models of transformers' own classes made from ours, which need no remote code: `GPT2LMHeadModel` here, GPT-Neo in gpt_neo.py.

GPT-2 has our names and arithmetic, but no banded layers; its Conv1D weights are the transposes of `nn.Linear`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.model_folder.families import VALUES, gpt2
from gpt3.model_folder.load import quiet_transformers

CUT = {"transformer.wpe.weight": "context", "transformer.wte.weight": "rows", "lm_head.weight": "rows"}
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def to_gpt2(model: GPT3ForCausalLM, *, context: int, rows: int) -> GPT2LMHeadModel:
    """A `GPT2LMHeadModel` in evaluation mode whose logits are `model`'s, up to rounding, for contexts it sees as dense.

    Args:
        context: positions to keep.
        rows: ids to keep.
    """
    config = stock_config(GPT2Config, gpt2.NAMES, model.config, context, rows)
    return build(GPT2LMHeadModel, config, transposed(kept_weights(model, context, rows)), model)


def transposed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights with those of linear layers from (out, in) to Conv1D's (in, out)."""
    return {name: value.t().contiguous() if name.endswith(TRANSPOSED) else value for name, value in weights.items()}


def kept_weights(model: GPT3ForCausalLM, context: int, rows: int) -> dict[str, Tensor]:
    """The model's parameters by name, positions cut to `context`, ids to `rows`; a tied head is not repeated."""
    stop = {"context": context, "rows": rows}
    return {
        name: value.detach()[: stop[CUT[name]]] if name in CUT else value.detach()
        for name, value in model.named_parameters()  # a tied head is one parameter, under its first name
    }


def stock_config(kind: Any, names: Mapping[str, str], config: GPT3Config, context: int, rows: int, **more: Any) -> Any:
    """The same shape in the words of `kind`, a configuration class of transformers; `names` as in gpt3.model_folder.families."""
    values = {name: getattr(config, name) for name in VALUES}
    values |= {"max_position_embeddings": context, "vocab_size": rows}
    return kind(**{names.get(name, name): value for name, value in values.items()}, **more)


def build(kind: Any, config: Any, state: Mapping[str, Tensor], model: GPT3ForCausalLM | None = None) -> Any:
    """A model of transformers' class `kind` with the weights `state` and `model`'s generation settings, in evaluation mode.

    Raises:
        KeyError: a weight is missing or extra.
    """
    with quiet_transformers():
        stock, report = kind.from_pretrained(None, config=config, state_dict=state, output_loading_info=True)
    if wrong := [*report["missing_keys"], *report["unexpected_keys"]]:
        raise KeyError(f"{kind.__name__}: {', '.join(sorted(wrong))}")
    if model is not None:
        stock.generation_config = model.generation_config
    return stock.eval()


def save(stock: Any, tokenizer: PreTrainedTokenizerFast, folder: Path, dtype: torch.dtype) -> None:
    """Write a folder that `AutoModelForCausalLM` and `AutoTokenizer` load, weights in `dtype`."""
    with quiet_transformers():
        stock.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def reload(kind: Any, folder: Path) -> Any:
    """What is in `folder`, loaded by transformers' class `kind`, in float32."""
    with quiet_transformers():
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
