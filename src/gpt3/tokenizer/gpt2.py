"""GPT-2's (and GPT-3's) tokenizer from the package's own data: no network, no hub.

`data/vocab.bpe` is OpenAI's published merge list (MIT), byte for byte. The vocabulary is rebuilt from it: 256 bytes,
50,000 merges, end-of-text = 50256.
"""

from __future__ import annotations

from copy import deepcopy
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from gpt3.tokenizer.bytelevel import build, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

GPT2_VOCAB_SIZE = 50_257
GPT2_END_OF_TEXT_ID = 50_256


def gpt2_merges() -> list[tuple[str, str]]:
    """The 50,000 merges in order of rank, in vocabulary-file characters."""
    text = (files("gpt3.tokenizer") / "data" / "vocab.bpe").read_text(encoding="utf-8")
    merges = []
    for line in text.splitlines()[1:]:  # the first line says "#version: 0.2"
        left, right = line.split(" ")
        merges.append((left, right))
    return merges


@cache
def _original() -> PreTrainedTokenizerFast:
    return wrap(build(gpt2_merges()))


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """GPT-2's tokenizer, offline: 50,257 ids, ``<|endoftext|>`` (50256) as beginning and end.

    Built once (about 0.2 s); each call gives a copy of its own (0.1 s), so that adding tokens or a chat template to one
    changes no other.
    """
    return deepcopy(_original())
