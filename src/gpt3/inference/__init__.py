"""Inference: a trained model continues a text. Names load on first use: importing this package costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.inference.generation import Generation as Generation
    from gpt3.inference.generation import Job as Job
    from gpt3.inference.language_model import LanguageModel as LanguageModel
    from gpt3.inference.language_model import generate as generate
    from gpt3.inference.language_model import load as load
    from gpt3.inference.options import GenerateOptions as GenerateOptions
    from gpt3.inference.options import SamplingOptions as SamplingOptions

_HOME = {
    "GenerateOptions": "options",
    "Generation": "generation",
    "Job": "generation",
    "LanguageModel": "language_model",
    "SamplingOptions": "options",
    "generate": "language_model",
    "load": "language_model",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
