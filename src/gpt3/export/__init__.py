"""Export: a GPT-3 in the forms other programs run. Names load on first use: importing this package costs nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.export.gguf import write_gguf as write_gguf
    from gpt3.export.gpt2 import to_gpt2 as to_gpt2
    from gpt3.export.gpt_neo import to_gpt_neo as to_gpt_neo

_HOME = {"to_gpt2": "gpt2", "to_gpt_neo": "gpt_neo", "write_gguf": "gguf"}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
