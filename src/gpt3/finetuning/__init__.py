"""Fine-tuning and chat: conversations, the chat template, TRL's trainers, a terminal chat. Names load on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.finetuning.chat import Chat as Chat
    from gpt3.finetuning.options import ChatOptions as ChatOptions
    from gpt3.finetuning.options import FinetuneOptions as FinetuneOptions
    from gpt3.finetuning.template import ChatTemplate as ChatTemplate
    from gpt3.finetuning.tuning import finetune as finetune

_HOME = {
    "Chat": "chat",
    "ChatOptions": "options",
    "ChatTemplate": "template",
    "FinetuneOptions": "options",
    "finetune": "tuning",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
