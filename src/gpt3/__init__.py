"""GPT-3 as its paper describes it, runnable: prepare data, pretrain, validate, generate.

Names are loaded when first used, so that ``import gpt3`` costs nothing. Loading any of the model's names registers it with
transformers' Auto classes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpt3.version import __version__ as __version__

if TYPE_CHECKING:
    from gpt3.inference import LanguageModel, generate, load
    from gpt3.model import GPT3Config, GPT3ForCausalLM, GPT3Model
    from gpt3.training import train

_HOMES = {
    "GPT3Config": "gpt3.model",
    "GPT3ForCausalLM": "gpt3.model",
    "GPT3Model": "gpt3.model",
    "LanguageModel": "gpt3.inference",
    "generate": "gpt3.inference",
    "load": "gpt3.inference",
    "train": "gpt3.training",
}

__all__ = ["GPT3Config", "GPT3ForCausalLM", "GPT3Model", "LanguageModel", "__version__", "generate", "load", "train"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gpt3' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
