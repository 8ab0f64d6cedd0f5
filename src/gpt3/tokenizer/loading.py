"""A tokenizer by name or folder, and the fingerprint that ties shards and models to it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from gpt3.errors import InputError
from gpt3.tokenizer.gpt2 import END_OF_TEXT, gpt2_tokenizer, wrap

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE, ROLES_FILE = "tokenizer_config.json", "special_tokens_map.json"


def load_tokenizer(name_or_path: str | Path) -> PreTrainedTokenizerFast:
    """``"gpt2"`` (the offline one), a folder with a ``tokenizer.json``, or that file. ``./gpt2`` is a folder.

    A folder is loaded as it was saved. Where ``tokenizer.json`` stands alone, end-of-text begins and ends texts, and
    text that spells a special token stays text, as in our own tokenizers.

    Raises:
        InputError: no such folder, no tokenizer in it, or one that does not load.
    """
    if name_or_path == "gpt2":
        return gpt2_tokenizer()
    path = Path(name_or_path)
    folder = path.parent if path.name == TOKENIZER_FILE and path.is_file() else path
    file = folder / TOKENIZER_FILE
    if not file.is_file():
        what = f"the folder has no {TOKENIZER_FILE}" if folder.is_dir() else "no such folder"
        what += "; give gpt2 or a folder that `gpt3 tokenizer train` wrote"
        if (folder / "tokenizer" / TOKENIZER_FILE).is_file():
            what = f"no {TOKENIZER_FILE} in it; did you mean {folder / 'tokenizer'}?"
        raise InputError(f"tokenizer {name_or_path}: {what}")
    try:
        json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"tokenizer {name_or_path}: {file} is not JSON ({error}); save it again") from error
    try:
        tokenizer = _load(folder)
    except Exception as error:  # tokenizers raises plain Exception on a file it cannot read
        reason = " ".join(str(error).split())
        raise InputError(f"tokenizer {name_or_path}: {folder} does not load ({reason}); save it again") from error
    tokenizer.backend_tokenizer.no_truncation()  # left by the program that saved it: they would cut texts
    tokenizer.backend_tokenizer.no_padding()
    if tokenizer.eos_token_id is None:
        raise InputError(f"tokenizer {name_or_path}: it names no eos_token; set one in {folder / CONFIG_FILE}")
    return tokenizer


def _load(folder: Path) -> PreTrainedTokenizerFast:
    if (folder / CONFIG_FILE).is_file() or (folder / ROLES_FILE).is_file():
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
    backend = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    if backend.token_to_id(END_OF_TEXT) is None:
        raise ValueError(f"no {END_OF_TEXT} in it, and no {CONFIG_FILE} that names another end-of-text")
    return wrap(backend)


def prompt_start(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The ids that the tokenizer itself puts before a text: OPT's ``</s>``, and nothing for GPT-2's and ours."""
    plain: list[int] = tokenizer("a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
    whole: list[int] = tokenizer("a", add_special_tokens=True, return_attention_mask=False)["input_ids"]
    return next((whole[:i] for i in range(len(whole)) if whole[i : i + len(plain)] == plain), [])


def tokenizer_hash(tokenizer: PreTrainedTokenizerFast) -> str:
    """sha256 (hex) over vocabulary, merges and added tokens: what gives ids their meaning.

    Saving, loading, chat templates and the roles of special tokens (padding, …) do not change it.
    """
    written = tokenizer.backend_tokenizer.to_str()
    key = hashlib.sha256(written.encode("utf-8")).digest()
    if key not in _HASHES:  # 0.3 s for GPT-2's, and a run asks several times
        _HASHES[key] = _hash(tokenizer, json.loads(written)["model"])
    return _HASHES[key]


_HASHES: dict[bytes, str] = {}
"""Hashes of tokenizers by the sha256 of the file that they would write, which has all that matters and more."""


def _hash(tokenizer: PreTrainedTokenizerFast, model: dict[str, Any]) -> str:
    content = {
        "vocabulary": sorted(tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0])),
        "merges": [merge.split(" ") if isinstance(merge, str) else merge for merge in model.get("merges", [])],
        "added": [[i, token.content, token.special] for i, token in sorted(tokenizer.added_tokens_decoder.items())],
    }
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("ascii")).hexdigest()
