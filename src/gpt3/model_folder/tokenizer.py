"""The tokenizer files of a checkpoint of another family, as a Hugging Face tokenizer that saves itself as tokenizer.json.

They are tokenizer.json, or GPT-2's older vocab.json with merges.txt. The roles of special tokens come from
special_tokens_map.json and tokenizer_config.json; where they do not say, from the model's configuration, as in transformers'
own classes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from gpt3.errors import InputError, one_line
from gpt3.model import GPT3Config
from gpt3.model_folder.locate import MERGES, ROLES, TEMPLATE, TOKENIZER, TOKENIZER_CONFIG, VOCABULARY, read_json
from gpt3.tokenizer.loading import prompt_start


def read_tokenizer(
    folder: Path, config: GPT3Config, *, starts_with_bos: bool = False
) -> PreTrainedTokenizerFast | None:
    """The tokenizer in `folder`, None if there is none.

    Args:
        config: the model's, for roles that the files leave open and for the number of its ids.
        starts_with_bos: whether each text begins with the BOS token, where the files do not say (OPT's do).

    Raises:
        InputError: the files do not make a tokenizer, or one with more ids than the model.
    """
    settings, roles = (
        read_json(folder / name) if (folder / name).is_file() else {} for name in (TOKENIZER_CONFIG, ROLES)
    )
    try:
        backend = _backend(folder, settings)
    except Exception as error:  # tokenizers raises plain Exception on a file it cannot read
        raise InputError(
            f"{folder}: its tokenizer files do not make a tokenizer ({one_line(error)}). Copy them again"
        ) from error
    if backend is None:
        return None
    tokens: dict[str, Any] = {}
    for role in ("bos_token", "eos_token", "unk_token", "pad_token"):
        by_id = getattr(config, f"{role}_id", None)
        number = by_id[0] if isinstance(by_id, list) and by_id else by_id
        default = backend.id_to_token(number) if isinstance(number, int) else None
        if token := _content(settings.get(role)) or _content(roles.get(role)) or default:
            tokens[role] = token
    if settings.get("add_bos_token", starts_with_bos) and "bos_token" in tokens:
        _start_with(backend, tokens["bos_token"])
    template = settings.get("chat_template")
    if (folder / TEMPLATE).is_file():
        template = (folder / TEMPLATE).read_text(encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        split_special_tokens=bool(settings.get("split_special_tokens", False)),
        **tokens,
        **({"chat_template": template} if isinstance(template, str) else {}),
    )
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= config.vocab_size:
        raise InputError(
            f"{folder}: its tokenizer has {largest + 1:,} ids, its model {config.vocab_size:,}. Put the model's own "
            "tokenizer there, or remove the tokenizer files"
        )
    return tokenizer


def _backend(folder: Path, settings: dict[str, Any]) -> Tokenizer | None:
    if (folder / TOKENIZER).is_file():
        backend = Tokenizer.from_file(str(folder / TOKENIZER))
        backend.no_truncation()
        backend.no_padding()
        return backend
    if not ((folder / VOCABULARY).is_file() and (folder / MERGES).is_file()):
        return None
    backend = Tokenizer(models.BPE.from_file(str(folder / VOCABULARY), str(folder / MERGES)))
    prefix_space = bool(settings.get("add_prefix_space", False))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space, use_regex=True)
    backend.decoder = decoders.ByteLevel()
    added = settings.get("added_tokens_decoder", {})
    for _, token in sorted(added.items(), key=lambda item: int(item[0])):
        if isinstance(token, dict):
            values = {k: token[k] for k in ("single_word", "lstrip", "rstrip", "normalized", "special") if k in token}
            backend.add_tokens([AddedToken(token["content"], **values)])
    return backend


def _content(token: object) -> str | None:
    """A special token's text, from a string or from AddedToken's fields."""
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _start_with(backend: Tokenizer, token: str) -> None:
    """Make each text begin with `token`, unless the tokenizer does that already."""
    number = backend.token_to_id(token)
    if number is None or backend.encode("a").ids[:1] == [number]:
        return
    backend.post_processor = TemplateProcessing(
        single=f"{token}:0 $A:0", pair=f"{token}:0 $A:0 {token}:1 $B:1", special_tokens=[(token, number)]
    )


def tokenizer_line(tokenizer: PreTrainedTokenizerFast | None) -> str:
    """What it is, in words."""
    if tokenizer is None:
        return "none: there are no tokenizer files next to the weights"
    kind = json.loads(tokenizer.backend_tokenizer.to_str())["model"].get("type", "unknown kind")
    start = prompt_start(tokenizer)
    habit = f", puts {tokenizer.decode(start)} before each text" if start else ""
    return f"{kind} of {len(tokenizer):,} ids, ends texts with {tokenizer.eos_token}{habit}"
