"""GPT-3 as its paper describes it, runnable: prepare data, pretrain, validate, generate.

Names are loaded when first used, so that ``import gpt3`` costs nothing. Loading any of the model's names registers it with
transformers' Auto classes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt3.api import evaluate, finetune, serve, train
    from gpt3.inference.language_model import LanguageModel, generate, load
    from gpt3.model import GPT3Config, GPT3ForCausalLM, GPT3Model

__version__ = "0.1.0"
__all__ = ["GPT3Config", "GPT3ForCausalLM", "GPT3Model", "LanguageModel", "__version__"]
__all__ += ["evaluate", "finetune", "generate", "load", "serve", "train"]
_HOMES = {
    **dict.fromkeys(("evaluate", "finetune", "serve", "train"), "gpt3.api"),
    **dict.fromkeys(("LanguageModel", "generate", "load"), "gpt3.inference.language_model"),
    **dict.fromkeys(("GPT3Config", "GPT3ForCausalLM", "GPT3Model"), "gpt3.model"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gpt3' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
