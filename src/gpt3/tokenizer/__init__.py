"""Text to ids and back: GPT-2's byte-level BPE offline, and byte-level BPEs of one's own.

Everything here is a Hugging Face `PreTrainedTokenizerFast` (transformers 5 prints its class as `TokenizersBackend`), so
a saved folder loads with `AutoTokenizer` and nothing of ours. Names load on first use: importing this package is cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpt3.tokenizer.bytelevel import END_OF_TEXT as END_OF_TEXT
    from gpt3.tokenizer.bytelevel import token_bytes as token_bytes
    from gpt3.tokenizer.encoder import Encoder as Encoder
    from gpt3.tokenizer.gpt2 import gpt2_tokenizer as gpt2_tokenizer
    from gpt3.tokenizer.loading import load_tokenizer as load_tokenizer
    from gpt3.tokenizer.loading import prompt_start as prompt_start
    from gpt3.tokenizer.loading import tokenizer_hash as tokenizer_hash
    from gpt3.tokenizer.train import train_tokenizer as train_tokenizer

_HOME = {
    "END_OF_TEXT": "bytelevel",
    "Encoder": "encoder",
    "gpt2_tokenizer": "gpt2",
    "load_tokenizer": "loading",
    "prompt_start": "loading",
    "token_bytes": "bytelevel",
    "tokenizer_hash": "loading",
    "train_tokenizer": "train",
}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
