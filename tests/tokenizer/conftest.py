"""The tokenizers under test, and tiktoken as the reference."""

from __future__ import annotations

import pytest
import tiktoken
from transformers import PreTrainedTokenizerFast
from tricky_texts import ARTICLES, MANUAL, every_character

from gpt3.tokenizer.gpt2 import END_OF_TEXT, SPLIT_PATTERN, alphabet, gpt2_merges, gpt2_tokenizer
from gpt3.tokenizer.train import train_tokenizer


@pytest.fixture(scope="session")
def gpt2() -> PreTrainedTokenizerFast:
    return gpt2_tokenizer()


@pytest.fixture(scope="session")
def own() -> PreTrainedTokenizerFast:
    """A small BPE that has seen some of every script."""
    return train_tokenizer([*MANUAL[:20], *ARTICLES[:100], *every_character()[:300:10]], 2000)


@pytest.fixture(params=["gpt2", "own"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def tiktoken_gpt2() -> tiktoken.Encoding:
    """tiktoken's `gpt2`, made from the merges, as it makes its own from the published file."""
    byte_of = {character: byte for byte, character in alphabet()}
    tokens = [character for _, character in alphabet()] + [left + right for left, right in gpt2_merges()]
    ranks = {bytes(byte_of[character] for character in token): rank for rank, token in enumerate(tokens)}
    return tiktoken.Encoding(
        "gpt2", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: len(ranks)}
    )
