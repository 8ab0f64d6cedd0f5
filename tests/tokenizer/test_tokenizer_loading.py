"""Saved tokenizers: what `AutoTokenizer` sees, what the hash sees, what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from tricky_texts import NASTY

from gpt3.errors import InputError
from gpt3.tokenizer.gpt2 import END_OF_TEXT
from gpt3.tokenizer.loading import load_tokenizer, tokenizer_hash


def test_auto_tokenizer_needs_nothing_of_ours(
    gpt2: PreTrainedTokenizerFast, own: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    """In a process that cannot import gpt3."""
    for tokenizer in (gpt2, own):
        tokenizer.save_pretrained(tmp_path / str(len(tokenizer)))
    program = (
        "import json, sys; sys.modules['gpt3'] = None\n"
        "from transformers import AutoTokenizer\n"
        "texts = json.loads(sys.stdin.read())\n"
        "for folder in sys.argv[1:]:\n"
        "    tokenizer = AutoTokenizer.from_pretrained(folder)\n"
        "    ids = tokenizer(texts)['input_ids']\n"
        "    decoded = [tokenizer.decode(each) for each in ids]\n"
        "    print(json.dumps([ids, decoded, tokenizer.eos_token_id, tokenizer.bos_token]))"
    )
    command = [sys.executable, "-c", program, *(str(tmp_path / str(len(each))) for each in (gpt2, own))]
    done = subprocess.run(command, input=json.dumps(NASTY), capture_output=True, text=True, check=True)
    for tokenizer, line in zip((gpt2, own), done.stdout.splitlines(), strict=True):
        ids, decoded, eos, bos = json.loads(line)
        assert ids == tokenizer(NASTY)["input_ids"]
        assert decoded == NASTY
        assert (eos, bos) == (tokenizer.eos_token_id, END_OF_TEXT)


def test_text_stays_text_through_save_and_load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    asked = AutoTokenizer.from_pretrained(tmp_path, split_special_tokens=False)
    for loaded in (AutoTokenizer.from_pretrained(tmp_path), load_tokenizer(tmp_path)):
        assert loaded.eos_token_id not in loaded(f"a{END_OF_TEXT}")["input_ids"]
        assert loaded(f"a{END_OF_TEXT}", split_special_tokens=False)["input_ids"][-1] == loaded.eos_token_id
        assert loaded.vocab_size == len(loaded) == len(tokenizer)
    assert asked(f"a{END_OF_TEXT}")["input_ids"][-1] == tokenizer.eos_token_id


def test_hash_survives_save_and_load(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    before = tokenizer_hash(tokenizer)
    tokenizer.save_pretrained(tmp_path / "once")
    load_tokenizer(tmp_path / "once").save_pretrained(tmp_path / "twice")
    loaded = load_tokenizer(tmp_path / "twice")
    loaded.pad_token = END_OF_TEXT
    loaded.chat_template = "{{ messages }}"
    assert tokenizer_hash(loaded) == before


def test_hash_of_gpt2_is_fixed(gpt2: PreTrainedTokenizerFast) -> None:
    """Shards on people's disks carry it: a change of this value makes them unreadable."""
    assert tokenizer_hash(gpt2) == "0aebac6ebc300f4baafee44c8605d5e02acac8c5dfb3b931ced4b02220009d8d"


def test_hash_sees_what_changes_ids(
    gpt2: PreTrainedTokenizerFast, own: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    hashes = {tokenizer_hash(gpt2), tokenizer_hash(own)}
    own.save_pretrained(tmp_path)
    added = load_tokenizer(tmp_path)
    added.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    hashes.add(tokenizer_hash(added))
    description = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    merges = description["model"]["merges"]
    merges[10], merges[11] = merges[11], merges[10]
    (tmp_path / "tokenizer.json").write_text(json.dumps(description), encoding="utf-8")
    hashes.add(tokenizer_hash(load_tokenizer(tmp_path)))
    assert len(hashes) == 4


def test_a_bare_tokenizer_json_loads(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    own.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    for loaded in (load_tokenizer(tmp_path), load_tokenizer(str(tmp_path / "tokenizer.json"))):
        assert loaded(NASTY)["input_ids"] == own(NASTY)["input_ids"]
        assert loaded.eos_token_id == own.eos_token_id


def test_gpt2_by_name_needs_no_network(gpt2: PreTrainedTokenizerFast) -> None:
    assert tokenizer_hash(load_tokenizer("gpt2")) == tokenizer_hash(gpt2)


def test_bad_input(own: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    own.save_pretrained(tmp_path / "shards" / "tokenizer")
    with pytest.raises(InputError, match=r"did you mean .*tokenizer"):
        load_tokenizer(tmp_path / "shards")
    with pytest.raises(InputError, match="openai/gpt-2: no such folder"):
        load_tokenizer("openai/gpt-2")
    with pytest.raises(InputError, match=r"the folder has no tokenizer\.json"):
        load_tokenizer(tmp_path)
    broken = tmp_path / "shards" / "tokenizer" / "tokenizer.json"
    whole = broken.read_text(encoding="utf-8")
    broken.write_text(whole[: len(whole) // 2], encoding="utf-8")
    with pytest.raises(InputError, match="is not JSON"):
        load_tokenizer(broken.parent)
    broken.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="does not load"):
        load_tokenizer(broken.parent)
    broken.write_text(whole, encoding="utf-8")
    (broken.parent / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast"}', encoding="utf-8"
    )
    with pytest.raises(InputError, match="names no eos_token"):
        load_tokenizer(broken.parent)
