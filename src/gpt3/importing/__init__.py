"""Checkpoints of other GPT-3-like families become ours: GPT3-dev, GPT-2 (and Cerebras-GPT), GPT-Neo, OPT.

    folder or hub id ─ families ─▶ Blueprint (what is expected) ─ weights ─▶ checked, tensor by tensor ─▶ GPT3Config, tensors

Names load on first use: importing this package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.importing.checkpoint import Checkpoint as Checkpoint
    from gpt3.importing.checkpoint import Converted as Converted
    from gpt3.importing.checkpoint import convert as convert
    from gpt3.importing.checkpoint import load_converted as load_converted
    from gpt3.importing.checkpoint import open_checkpoint as open_checkpoint
    from gpt3.importing.families import FAMILIES as FAMILIES

_HOME = {
    "FAMILIES": "families",
    "Checkpoint": "checkpoint",
    "Converted": "checkpoint",
    "convert": "checkpoint",
    "load_converted": "checkpoint",
    "open_checkpoint": "checkpoint",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
