"""Tokenizers come along: the ids are those of transformers' own class on the source's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from foreign_models import gpt2, opt, saved
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from gpt3.cli.formats import ImportOptions, import_model
from gpt3.errors import InputError
from gpt3.inference.language_model import LanguageModel
from gpt3.model_folder.load import open_checkpoint
from gpt3.tokenizer.gpt2 import gpt2_tokenizer
from gpt3.tokenizer.loading import load_tokenizer, prompt_start
from gpt3.tokenizer.train import train_tokenizer

TEXTS = [
    "The sea was calm, and the ships' sails hung still.", "  two  spaces\n\n\tand 1,234 numbers", "naïve café 你好 🎉",
    "a</s>b<|endoftext|>c", "'s", "",
]  # fmt: skip


@pytest.fixture(scope="session")
def own() -> PreTrainedTokenizerFast:
    return train_tokenizer(["The ships on the sea were small and the captain looked at the sea. " * 20], 300)


def write_vocabulary(tokenizer: PreTrainedTokenizerFast, folder: Path, first: tuple[str, ...] = ()) -> int:
    """GPT-2's older files, vocab.json and merges.txt; `first` take the first ids, as OPT's special tokens do."""
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    ordinary = [token for token, _ in sorted(model["vocab"].items(), key=lambda item: item[1])]
    tokens = [*first, *(token for token in ordinary if not (first and token == "<|endoftext|>"))]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
    return len(vocabulary)


def opt_folder(own: PreTrainedTokenizerFast, folder: Path, **settings: Any) -> Path:
    """Files as facebook/opt-125m has them."""
    folder.mkdir()
    size = write_vocabulary(own, folder, ("<s>", "<pad>", "</s>", "<unk>"))
    end = {"content": "</s>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}
    pad = end | {"content": "<pad>"}
    roles = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": pad}
    config = {"add_prefix_space": False, "errors": "replace", "tokenizer_class": "GPT2Tokenizer", **roles}
    config |= {"add_bos_token": True} | settings
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(roles), encoding="utf-8")
    return saved(opt(vocab_size=size + 5), folder)


def assert_same_ids(ours: PreTrainedTokenizerFast, theirs: Any) -> None:
    for text in TEXTS:
        assert ours(text)["input_ids"] == theirs(text)["input_ids"], text
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ids) == theirs.decode(ids)
    assert (ours.eos_token_id, ours.bos_token_id) == (theirs.eos_token_id, theirs.bos_token_id)


def test_opt_puts_its_end_of_text_before_each_prompt(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    folder = opt_folder(own, tmp_path / "opt")
    theirs = AutoTokenizer.from_pretrained(folder)
    assert theirs("The sea")["input_ids"][0] == 2
    ours = open_checkpoint(folder).tokenizer
    assert ours is not None
    assert_same_ids(ours, theirs)
    assert ours.pad_token == "<pad>"
    import_model(ImportOptions(source=str(folder), out=str(tmp_path / "out")))
    model = open_checkpoint(folder).model()
    for again in (load_tokenizer(tmp_path / "out"), AutoTokenizer.from_pretrained(tmp_path / "out")):
        assert_same_ids(again, theirs)
        assert prompt_start(again) == [2]
        writer = LanguageModel(model, again)
        assert writer.encode_prompt("The sea") == theirs("The sea")["input_ids"]
        assert writer.encode_prompt("") == [2]


def test_opt_has_the_habit_even_where_its_files_do_not_say(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    folder = opt_folder(own, tmp_path / "opt")
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    ours = open_checkpoint(folder).tokenizer
    assert ours is not None
    assert prompt_start(ours) == [2]  # by the ids of config.json
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("</s>", "</s>", "<pad>")
    folder = opt_folder(own, tmp_path / "without", add_bos_token=False)
    ours = open_checkpoint(folder).tokenizer
    assert ours is not None
    assert prompt_start(ours) == []


@pytest.mark.parametrize("files", ["old", "new"])
def test_gpt2s_files_that_name_no_end_of_text(own: PreTrainedTokenizerFast, tmp_path: Path, files: str) -> None:
    """As on the hub: the roles of tokens are the class's defaults, and a tokenizer_config.json of one line."""
    folder = saved(gpt2(vocab_size=300, eos_token_id=299, bos_token_id=299), tmp_path / "gpt2")
    size = write_vocabulary(own, folder)
    assert size <= 300
    if size < 300:
        folder = saved(gpt2(vocab_size=size, eos_token_id=size - 1, bos_token_id=size - 1), folder)
    if files == "new":
        AutoTokenizer.from_pretrained(folder).backend_tokenizer.save(str(folder / "tokenizer.json"))
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 1024}', encoding="utf-8")
    ours, theirs = open_checkpoint(folder).tokenizer, AutoTokenizer.from_pretrained(folder)
    assert ours is not None
    assert_same_ids(ours, theirs)
    assert ours.eos_token == "<|endoftext|>"
    assert prompt_start(ours) == []


def test_a_tokenizer_of_another_model_is_refused(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    folder = saved(gpt2(), tmp_path)  # 67 ids
    own.save_pretrained(folder)
    with pytest.raises(InputError, match=rf"its tokenizer has {len(own)} ids, its model 67") as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="do not make a tokenizer"):
        open_checkpoint(folder)


def test_nothing_stands_before_our_own_prompts() -> None:
    assert prompt_start(gpt2_tokenizer()) == []
