"""GPT-2's tokenizer from the package's data is GPT-2's tokenizer."""

from __future__ import annotations

import hashlib
import time
from importlib.resources import files

import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from tricky_texts import ARTICLES, MANUAL, NASTY, TEXTS, every_character

from gpt3.inference.streaming import TokenBytes
from gpt3.tokenizer.gpt2 import END_OF_TEXT, gpt2_tokenizer


def ids_of(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


def test_merges_are_the_published_file() -> None:
    data = (files("gpt3.tokenizer") / "data" / "vocab.bpe").read_bytes()
    assert hashlib.sha256(data).hexdigest() == "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"


def test_known_ids(gpt2: PreTrainedTokenizerFast) -> None:
    """Ids anyone can look up: OpenAI's and Hugging Face's own examples."""
    assert ids_of(gpt2, "Hello world") == [15496, 995]
    assert ids_of(gpt2, " Hello world") == [18435, 995]
    assert ids_of(gpt2, "hello world") == [31373, 995]
    assert gpt2.convert_ids_to_tokens([0, 220, 50255, 50256]) == ["!", "Ġ", "Ġgazed", END_OF_TEXT]
    assert (len(gpt2), gpt2.vocab_size) == (50257, 50257)
    assert gpt2.eos_token_id == gpt2.bos_token_id == 50256


@pytest.mark.parametrize(
    "texts", [NASTY, MANUAL, ARTICLES, every_character()], ids=["nasty", "manual", "wiki", "unicode"]
)
def test_ids_equal_tiktoken(gpt2: PreTrainedTokenizerFast, tiktoken_gpt2: tiktoken.Encoding, texts: list[str]) -> None:
    ours = gpt2(texts)["input_ids"]
    theirs = tiktoken_gpt2.encode_ordinary_batch(texts)
    assert [text for text, a, b in zip(texts, ours, theirs, strict=True) if a != b] == []


@given(text=TEXTS)
@settings(max_examples=400, deadline=None)
def test_any_text_equals_tiktoken_and_round_trips(
    gpt2: PreTrainedTokenizerFast, tiktoken_gpt2: tiktoken.Encoding, text: str
) -> None:
    ids = ids_of(gpt2, text)
    assert ids == tiktoken_gpt2.encode_ordinary(text)
    assert gpt2.decode(ids) == text
    assert 50256 not in ids


@given(data=st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_equal_tiktoken(
    gpt2: PreTrainedTokenizerFast, tiktoken_gpt2: tiktoken.Encoding, data: bytes
) -> None:
    for text in (data.decode("latin-1"), data.decode("utf-8", "replace")):
        ids = ids_of(gpt2, text)
        assert ids == tiktoken_gpt2.encode_ordinary(text)
        assert gpt2.decode(ids) == text


def test_token_bytes_are_tiktokens(gpt2: PreTrainedTokenizerFast, tiktoken_gpt2: tiktoken.Encoding) -> None:
    table = TokenBytes(gpt2)
    assert [table[i] for i in range(50256)] == [tiktoken_gpt2.decode_single_token_bytes(i) for i in range(50256)]
    chat = gpt2_tokenizer()
    chat.add_tokens(["<the user says>", "→"])
    added = TokenBytes(chat)
    assert [added[i] for i in range(50256, added.size)] == [b"", b"<the user says>", "→".encode()]


def test_end_of_text_only_when_asked(gpt2: PreTrainedTokenizerFast) -> None:
    text = f"one{END_OF_TEXT}two"
    assert 50256 not in ids_of(gpt2, text)
    assert gpt2.encode(text) == ids_of(gpt2, text)
    assert gpt2(text, split_special_tokens=False)["input_ids"] == [505, 50256, 11545]
    assert 50256 not in ids_of(gpt2, text)  # asking once does not stick
    assert gpt2.decode([505, 50256, 11545]) == text
    assert gpt2.decode([505, 50256, 11545], skip_special_tokens=True) == "onetwo"


def test_copies_are_independent_and_quick() -> None:
    first = gpt2_tokenizer()
    first.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    first.pad_token = END_OF_TEXT
    start = time.process_time()
    second = gpt2_tokenizer()
    assert time.process_time() - start < 1
    assert (len(first), len(second), second.pad_token) == (50258, 50257, None)
