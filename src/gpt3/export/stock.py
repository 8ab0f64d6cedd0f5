"""Models of transformers' own classes made from ours: weights cut to what is kept, built without chance, saved as a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpt3.model_folder.load import quiet_transformers

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from gpt3.model import GPT3ForCausalLM

CUT = {"transformer.wpe.weight": "context", "transformer.wte.weight": "rows", "lm_head.weight": "rows"}


def kept_weights(model: GPT3ForCausalLM, context: int, rows: int) -> dict[str, Tensor]:
    """The model's parameters by name, positions cut to `context`, ids to `rows`; a tied head is not repeated."""
    stop = {"context": context, "rows": rows}
    return {
        name: value.detach()[: stop[CUT[name]]] if name in CUT else value.detach()
        for name, value in model.named_parameters()
    }


def build(kind: Any, config: Any, state: dict[str, Tensor], model: GPT3ForCausalLM | None = None) -> Any:
    """A model of transformers' class `kind` with the weights `state` and `model`'s habits of generation, in evaluation mode.

    Raises:
        KeyError: a weight is missing or left over.
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
    import torch

    with quiet_transformers():
        return kind.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
