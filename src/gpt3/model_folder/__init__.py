"""Checkpoints of other GPT-3-like families become ours: GPT3-dev, GPT-2 (and Cerebras-GPT), GPT-Neo, OPT.

    folder or hub id ─ families ─▶ Blueprint (what is expected) ─ weights ─▶ checked, tensor by tensor ─▶ GPT3Config, tensors

Names load on first use: importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.model_folder.convert import Checkpoint as Checkpoint
    from gpt3.model_folder.convert import Converted as Converted
    from gpt3.model_folder.convert import convert as convert
    from gpt3.model_folder.convert import load_converted as load_converted
    from gpt3.model_folder.convert import open_checkpoint as open_checkpoint
    from gpt3.model_folder.families.registry import FAMILIES as FAMILIES

_HOME = {
    "FAMILIES": "families.registry",
    "Checkpoint": "convert",
    "Converted": "convert",
    "convert": "convert",
    "load_converted": "convert",
    "open_checkpoint": "convert",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
