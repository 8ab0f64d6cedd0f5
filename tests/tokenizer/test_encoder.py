"""The Encoder's ids are the tokenizer's, by whichever library, on anything."""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast
from tricky_texts import ARTICLES, MANUAL, NASTY, TEXTS, every_character, random_strings

from gpt3.tokenizer import encoder as encoder_module
from gpt3.tokenizer.encoder import Encoder
from gpt3.tokenizer.gpt2 import END_OF_TEXT, gpt2_tokenizer
from gpt3.tokenizer.loading import load_tokenizer


def without_fastokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastokens", None)  # importing it fails


@pytest.fixture(scope="module")
def encoders() -> dict[tuple[int, str], Encoder]:
    return {}


@pytest.fixture(params=["fastokens", "tokenizers"])
def tokenizer_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The library that an Encoder made during the test will use."""
    if request.param == "fastokens":
        pytest.importorskip("fastokens")
    else:
        without_fastokens(monkeypatch)
    return str(request.param)


@pytest.fixture
def encoder(
    tokenizer_library: str, tokenizer: PreTrainedTokenizerFast, encoders: dict[tuple[int, str], Encoder]
) -> Encoder:
    key = (len(tokenizer), tokenizer_library)
    if key not in encoders:
        encoders[key] = Encoder(tokenizer)
    assert encoders[key].library == tokenizer_library
    return encoders[key]


def check(encoder: Encoder, texts: list[str], expected: list[list[int]] | None = None) -> None:
    """Ids, lengths and their types against the Hugging Face tokenizer."""
    if expected is None:
        expected = encoder.tokenizer(texts)["input_ids"] if texts else []
    ids, lengths = encoder.encode_batch(texts)
    assert (ids.dtype, ids.ndim) == (np.uint32, 1)
    assert (lengths.dtype, lengths.shape) == (np.int64, (len(texts),))
    assert lengths.tolist() == [len(each) for each in expected]
    assert ids.tolist() == list(chain.from_iterable(expected))
    assert encoder.tokenizer.eos_token_id not in ids


TEXT_SETS = {
    "nasty": NASTY,
    "manual": MANUAL,
    "wiki": ARTICLES,
    "unicode": every_character(),
    "random": random_strings(),
}


@pytest.fixture(scope="module")
def expected_ids() -> dict[tuple[int, str], list[list[int]]]:
    """What the slow reference gives, once per tokenizer and set of texts."""
    return {}


@pytest.mark.parametrize("name", TEXT_SETS)
def test_ids_are_the_tokenizers(
    encoder: Encoder, name: str, expected_ids: dict[tuple[int, str], list[list[int]]]
) -> None:
    key = (len(encoder.tokenizer), name)
    if key not in expected_ids:
        expected_ids[key] = encoder.tokenizer(TEXT_SETS[name])["input_ids"]
    check(encoder, TEXT_SETS[name], expected_ids[key])


def test_no_texts(encoder: Encoder) -> None:
    check(encoder, [])


def test_one_long_document(encoder: Encoder) -> None:
    """Libraries cut long texts to share them among threads; the cuts must not show."""
    check(encoder, ["".join(MANUAL) + "".join(NASTY) + "".join(every_character()[::40])])


@given(texts=st.lists(TEXTS, max_size=5))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_texts(encoder: Encoder, texts: list[str]) -> None:
    check(encoder, texts)


def test_special_tokens_of_a_chat_model_stay_text(own: PreTrainedTokenizerFast, tmp_path: object) -> None:
    own.save_pretrained(str(tmp_path))
    chat = load_tokenizer(str(tmp_path))
    chat.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    encoder = Encoder(chat)
    check(encoder, NASTY)
    assert encoder.encode_batch(["<|im_start|>"])[0].max() < chat.eos_token_id


def test_settings_of_calls_do_not_reach_the_encoder(tokenizer_library: str) -> None:
    """A call that truncates, pads or asks for special tokens leaves that in the tokenizer; documents stay whole."""
    gpt2 = gpt2_tokenizer()
    text = "a long text, cut short"
    gpt2.pad_token = END_OF_TEXT
    gpt2(text, truncation=True, max_length=2)
    gpt2(text, padding="max_length", max_length=40, split_special_tokens=False)
    gpt2.backend_tokenizer.enable_truncation(800)  # longer than any probe
    encoder = Encoder(gpt2)
    assert encoder.library == tokenizer_library
    assert encoder.encode_batch([text, END_OF_TEXT, "word " * 2000])[1].tolist() == [6, 7, 2001]
    assert gpt2(END_OF_TEXT, split_special_tokens=False)["input_ids"] == [50256]
    assert 50256 not in encoder.encode_batch([END_OF_TEXT])[0]


def test_added_words_are_left_to_tokenizers(own: PreTrainedTokenizerFast, tmp_path: object) -> None:
    """Words added to a vocabulary, unlike special tokens, are found in text; the fast path is not tested on that."""
    own.save_pretrained(str(tmp_path))
    extended = load_tokenizer(str(tmp_path))
    extended.add_tokens(["GPT-3"])
    encoder = Encoder(extended)
    assert encoder.library == "tokenizers"
    check(encoder, ["about GPT-3.", "GPT-3GPT-3"])


def test_unpaired_surrogates_become_replacement_characters(encoder: Encoder) -> None:
    ids, lengths = encoder.encode_batch(["fine", "a\ud800b", "\ud83d\ude00"])
    expected = encoder.tokenizer(["fine", "a\ufffdb", "\U0001f600"])["input_ids"]
    assert ids.tolist() == list(chain.from_iterable(expected))
    assert lengths.tolist() == [len(each) for each in expected]


@pytest.mark.parametrize("wrong", [b"bytes", None, 3])
def test_what_is_no_text_is_refused(encoder: Encoder, wrong: object) -> None:
    with pytest.raises(TypeError):
        encoder.encode_batch(["text", wrong])  # type: ignore[list-item]


def test_pickled_encoder_gives_the_same(encoder: Encoder) -> None:
    twin = pickle.loads(pickle.dumps(encoder))
    for one, other in zip(encoder.encode_batch(NASTY), twin.encode_batch(NASTY), strict=True):
        assert np.array_equal(one, other)


def test_a_library_with_other_ids_is_not_used(
    own: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A fastokens that has ids of its own: found out by the probes, said once, replaced."""
    fastokens = pytest.importorskip("fastokens")
    read = fastokens.Tokenizer.from_json_str

    class Wrong:
        @staticmethod
        def from_json_str(description: str) -> object:
            settings = json.loads(description)
            settings["pre_tokenizer"]["use_regex"] = False
            return read(json.dumps(settings))

    monkeypatch.setattr(fastokens, "Tokenizer", Wrong)
    encoder_module._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        encoders = [Encoder(own) for _ in range(2)]
    assert [each.library for each in encoders] == ["tokenizers", "tokenizers"]
    assert caplog.text.count("gives other ids") == 1
    check(encoders[0], NASTY)


def test_a_missing_library_is_said_once(
    own: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    without_fastokens(monkeypatch)
    encoder_module._say_once.cache_clear()
    with caplog.at_level(logging.INFO):
        assert [Encoder(own).library for _ in range(2)] == ["tokenizers", "tokenizers"]
    assert caplog.text.count("fastokens is not available") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_threads_are_limited_and_the_environment_kept() -> None:
    program = (
        "import os\n"
        "from gpt3.tokenizer.encoder import Encoder\n"
        "from gpt3.tokenizer.gpt2 import gpt2_tokenizer\n"
        "tokenizer = gpt2_tokenizer()\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "encoder = Encoder(tokenizer, threads=1)\n"
        "encoder.encode_batch(['some words ' * 1000] * 100)\n"
        "print(len(os.listdir('/proc/self/task')) - before, os.environ['RAYON_NUM_THREADS'], "
        "'FASTOKENS_BPE_THREADS' in os.environ)"
    )
    environment = {**os.environ, "RAYON_NUM_THREADS": "7", "TOKENIZERS_PARALLELISM": "true"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    threads, rayon, leaked = done.stdout.split()
    assert int(threads) <= 1  # tokenizers runs its single thread beside Python's
    assert (rayon, leaked) == ("7", "False")
