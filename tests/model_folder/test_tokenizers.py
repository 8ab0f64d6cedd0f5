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
        assert writer.complete("The sea", choices=["ships", "café"])[0].text in ("ships", "café")


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


def write(folder: Path, name: str, content: object) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


PLAIN = dict.fromkeys(("special", "lstrip", "rstrip", "normalized", "single_word"), False)
OLD_FILES: dict[str, dict[str, Any]] = {
    "added tokens": {"added_tokens.json": {"<b>": 301, "<a>": 300}},
    "added tokens, some special": {
        "added_tokens.json": {"<a>": 300, "<pad>": 301, "<b>": 302},
        "special_tokens_map.json": {"pad_token": "<pad>", "extra_special_tokens": ["<b>"]},
    },
    "roles in special_tokens_map.json": {
        "special_tokens_map.json": {"eos_token": {"content": "<end>"}, "bos_token": "<end>", "pad_token": "<pad>"},
        "tokenizer_config.json": {"eos_token": "<|endoftext|>", "model_max_length": 64},
    },
    "added tokens with their fields": {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "300": PLAIN | {"content": "<a>", "lstrip": True},
                "301": PLAIN | {"content": "<b>", "special": True},
            },
            "pad_token": "<b>",
        },
    },
    "no id of EOS in config.json": {"config.json": {"eos_token_id": None, "bos_token_id": None}},
}  # fmt: skip


@pytest.mark.parametrize("files", ["old", "new"])
@pytest.mark.parametrize("case", OLD_FILES)
def test_files_that_others_write_are_read_as_transformers_reads_them(
    own: PreTrainedTokenizerFast, tmp_path: Path, case: str, files: str
) -> None:
    folder = saved(gpt2(vocab_size=310, eos_token_id=299, bos_token_id=299), tmp_path / "gpt2")
    size = write_vocabulary(own, folder)
    write(folder, "tokenizer_config.json", {"model_max_length": 1024})
    for name, content in OLD_FILES[case].items():
        if name == "config.json":
            content = json.loads((folder / name).read_text(encoding="utf-8")) | content
        if name == "added_tokens.json":
            content = {token: number - 300 + size for token, number in content.items()}
        if decoder := content.get("added_tokens_decoder"):
            content = content | {"added_tokens_decoder": {int(n) - 300 + size: token for n, token in decoder.items()}}
        write(folder, name, content)
    if files == "new":  # the same tokenizer, in one file that cuts and pads
        backend = AutoTokenizer.from_pretrained(folder).backend_tokenizer
        backend.enable_truncation(5)
        backend.enable_padding(length=9)
        backend.save(str(folder / "tokenizer.json"))
    ours, theirs = open_checkpoint(folder).tokenizer, AutoTokenizer.from_pretrained(folder)
    assert ours is not None
    assert_same_ids(ours, theirs)
    for text in ("x<a>y <b> z<pad>", "<end>The sea <a>"):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        for skip in (False, True):
            ids = theirs(text)["input_ids"]
            assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)
    assert (ours.pad_token, ours.get_vocab()) == (theirs.pad_token, theirs.get_vocab())
    assert set(ours.all_special_tokens) == set(theirs.all_special_tokens)


@pytest.mark.parametrize("number", [6, 305])
def test_added_tokens_that_cannot_have_their_ids_are_refused(
    own: PreTrainedTokenizerFast, tmp_path: Path, number: int
) -> None:
    """As Yi's, whose special tokens take the ids of others: transformers gives them new ones without a word."""
    folder = saved(gpt2(vocab_size=310, eos_token_id=299, bos_token_id=299), tmp_path / "gpt2")
    write_vocabulary(own, folder)
    write(folder, "tokenizer_config.json", {"added_tokens_decoder": {str(number): PLAIN | {"content": "<a>"}}})
    with pytest.raises(InputError, match=f"<a> has the id {number} there, and would get"):
        open_checkpoint(folder)


def test_a_tokenizer_json_that_cuts_texts_does_not_cut_ours(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    """Next to special_tokens_map.json alone, as older programs leave it."""
    from gpt3.tokenizer.chat_template import ChatTemplate, Message

    backend = own.backend_tokenizer
    backend.enable_truncation(5)
    backend.enable_padding(length=9)
    backend.save(str(tmp_path / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    write(tmp_path, "special_tokens_map.json", {"eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>"})
    loaded = load_tokenizer(tmp_path)
    assert (loaded.eos_token, loaded.pad_token) == ("<|endoftext|>", "<|endoftext|>")
    for text in TEXTS:
        assert list(loaded.backend_tokenizer.encode(text).ids) == own(text, split_special_tokens=False)["input_ids"]
    loaded.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    loaded(["The ships on the sea"], truncation=True, max_length=2)
    template = ChatTemplate(loaded)
    assert template.encode([Message("user", TEXTS[0])])[0] == own(TEXTS[0])["input_ids"]


@pytest.mark.parametrize("kind", ["gpt2", "gpt3"])
def test_a_tied_model_saved_under_the_heads_name_alone(own: PreTrainedTokenizerFast, tmp_path: Path, kind: str) -> None:
    import torch
    from foreign_models import logits, randomised
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM

    from gpt3.model import GPT3Config, GPT3ForCausalLM
    from gpt3.model_folder.load import load_transformers

    shape = {"vocab_size": 300, "eos_token_id": 299, "bos_token_id": 299}
    small = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 32}
    model = gpt2(**shape) if kind == "gpt2" else randomised(GPT3ForCausalLM(GPT3Config(**shape, **small)))
    folder = saved(model, tmp_path / kind)
    own.save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights["lm_head.weight"] = weights.pop("transformer.wte.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    ours, _ = load_transformers(folder, device="cpu")
    assert ours.config.tie_word_embeddings
    assert ours.get_input_embeddings().weight is ours.get_output_embeddings().weight
    ids = torch.arange(12)[None]
    torch.testing.assert_close(logits(ours, ids), logits(AutoModelForCausalLM.from_pretrained(folder), ids))


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
