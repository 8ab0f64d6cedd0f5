"""A byte-level BPE of one's own: layout, determinism, round trips, the command."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import tiktoken
from hypothesis import given, settings
from transformers import PreTrainedTokenizerFast
from tricky_texts import ARTICLES, MANUAL, NASTY, TEXTS, every_character

from gpt3.cli.tokenizer import TokenizerTrainOptions, run
from gpt3.errors import InputError
from gpt3.inference.streaming import TokenBytes
from gpt3.tokenizer.gpt2 import END_OF_TEXT, SPLIT_PATTERN, alphabet
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash
from gpt3.tokenizer.train import train_tokenizer


def test_layout_is_gpt2s(own: PreTrainedTokenizerFast) -> None:
    assert len(own) == own.vocab_size == 2000
    assert own.convert_ids_to_tokens(list(range(256))) == [character for _, character in alphabet()]
    assert own.eos_token == END_OF_TEXT
    assert own.eos_token_id == own.bos_token_id == 1999
    merges = json.loads(own.backend_tokenizer.to_str())["model"]["merges"]
    assert own.convert_ids_to_tokens(list(range(256, 1999))) == [left + right for left, right in merges]


def test_first_merges_are_what_counting_gives() -> None:
    """Worked by hand: ``aab`` thrice, then ``ab`` once: (a, b) occurs 4 times, then (a, ab) 3 times."""
    tokenizer = train_tokenizer(["aab\naab\naab\nab"], 259)
    assert tokenizer.convert_ids_to_tokens([256, 257, 258]) == ["ab", "aab", END_OF_TEXT]
    assert tokenizer("aabab")["input_ids"] == [257, 256]


def test_ids_equal_tiktoken(own: PreTrainedTokenizerFast) -> None:
    """tiktoken's algorithm over our vocabulary, where text spelling end-of-text is text."""
    table = TokenBytes(own)
    ranks = {table[i]: i for i in range(1999)}
    reference = tiktoken.Encoding(
        "own", pat_str=SPLIT_PATTERN, mergeable_ranks=ranks, special_tokens={END_OF_TEXT: 1999}
    )
    texts = NASTY + MANUAL[20:] + ARTICLES[100:] + every_character()
    assert own(texts)["input_ids"] == reference.encode_ordinary_batch(texts)


@given(text=TEXTS)
@settings(max_examples=200, deadline=None)
def test_any_text_round_trips(own: PreTrainedTokenizerFast, text: str) -> None:
    ids = own(text)["input_ids"]
    assert own.decode(ids) == text
    assert 1999 not in ids
    table = TokenBytes(own)
    assert b"".join(table[i] for i in ids) == text.encode()


def test_the_same_texts_give_the_same_tokenizer() -> None:
    texts = ARTICLES[:50]
    first, second = (train_tokenizer(iter(texts), 1000) for _ in range(2))
    assert tokenizer_hash(first) == tokenizer_hash(second)
    assert tokenizer_hash(first) != tokenizer_hash(train_tokenizer(texts[1:], 1000))


def test_bytes_alone_are_enough() -> None:
    tokenizer = train_tokenizer(["anything"], 257)
    id_of = {byte: i for i, (byte, _) in enumerate(alphabet())}
    assert tokenizer("\U0001f600")["input_ids"] == [id_of[byte] for byte in "\U0001f600".encode()]
    assert tokenizer.decode(tokenizer("\U0001f600\x00é")["input_ids"]) == "\U0001f600\x00é"


def test_a_text_that_runs_out_of_pairs_gives_fewer(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tokenizer = train_tokenizer(["hello hello"], 1000)
    assert 257 < len(tokenizer) < 270
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert f"{len(tokenizer)} ids instead of 1000" in caplog.text


def test_unpaired_surrogates_do_not_stop_training() -> None:
    assert len(train_tokenizer(["\ud800 \ud83d\ude00 text"], 257)) == 257


@pytest.mark.parametrize(
    ("texts", "size", "message"), [(["text"], 256, "--vocab-size 256"), ([], 300, "empty"), ([""], 300, "empty")]
)
def test_bad_input(texts: list[str], size: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_tokenizer(texts, size)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "text.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in ARTICLES[:100]), encoding="utf-8")
    return path


def test_command(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "bpe"
    run(TokenizerTrainOptions([str(corpus)], 600, str(out)))
    printed = capsys.readouterr().out
    tokenizer = load_tokenizer(out)
    assert tokenizer_hash(tokenizer) == tokenizer_hash(train_tokenizer(ARTICLES[:100], 600))
    assert "600 ids: 256 bytes, 343 merges, end-of-text 599" in printed
    sample = "".join(ARTICLES[:100])
    stated = float(printed.split(" bytes per token")[0].rsplit("\n", 1)[1])
    assert stated == pytest.approx(
        len(sample.encode()) / sum(map(len, tokenizer(ARTICLES[:100])["input_ids"])), abs=0.006
    )
    run(TokenizerTrainOptions([str(corpus)], 500, str(out)))  # a tokenizer may be replaced
    assert len(load_tokenizer(out)) == 500
    assert sorted(path.name for path in out.parent.iterdir()) == ["bpe"]  # nothing half-made is left


def test_command_refuses_to_replace_other_things(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds other files \(text.jsonl\)"):
        run(TokenizerTrainOptions([str(corpus)], 500, str(tmp_path)))
    with pytest.raises(InputError, match="is a file"):
        run(TokenizerTrainOptions([str(corpus)], 500, str(corpus)))
    assert corpus.stat().st_size > 0
