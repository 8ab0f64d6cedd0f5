"""GPT-3 as its paper describes it, runnable: prepare data, pretrain, validate, generate.

Names are loaded when first used, so that ``import gpt3`` costs nothing. Loading any of the model's names registers it with
transformers' Auto classes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gpt3.version import __version__ as __version__

if TYPE_CHECKING:
    from gpt3.api import evaluate as evaluate
    from gpt3.api import finetune as finetune
    from gpt3.api import serve as serve
    from gpt3.api import train as train
    from gpt3.inference.language_model import LanguageModel as LanguageModel
    from gpt3.inference.language_model import generate as generate
    from gpt3.inference.language_model import load as load
    from gpt3.model import GPT3Config as GPT3Config
    from gpt3.model import GPT3ForCausalLM as GPT3ForCausalLM
    from gpt3.model import GPT3Model as GPT3Model

_HOMES = {
    "GPT3Config": "gpt3.model",
    "GPT3ForCausalLM": "gpt3.model",
    "GPT3Model": "gpt3.model",
    "evaluate": "gpt3.api",
    "finetune": "gpt3.api",
    "LanguageModel": "gpt3.inference.language_model",
    "generate": "gpt3.inference.language_model",
    "load": "gpt3.inference.language_model",
    "serve": "gpt3.api",
    "train": "gpt3.api",
}

__all__ = [*sorted(_HOMES), "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'gpt3' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
