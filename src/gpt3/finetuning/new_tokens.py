"""A model that learns a chat template: rows for its new special tokens, and where generation ends."""

from __future__ import annotations

from typing import Any


def positions(model: Any) -> int:
    """Tokens the model's positions reach to."""
    return int(getattr(model.config, "max_position_embeddings", None) or 10**9)


def add_tokens(model: Any, tokenizer: Any, new: list[str]) -> list[int]:
    """Give the model rows for the tokenizer's new tokens, each the mean of all rows it had; returns their ids.

    Padding rows of the vocabulary go: trainers take every row for a token.
    """
    from gpt3.model.vocabulary import resize_vocabulary

    had = getattr(model.config, "real_vocab_size", None) or model.get_input_embeddings().num_embeddings
    ids = [tokenizer.convert_tokens_to_ids(token) for token in new]
    resize_vocabulary(model, max([had, *(number + 1 for number in ids)]), ids)
    return ids


def set_ends(model: Any, tokenizer: Any, end: int) -> None:
    """Let generation end at the end of an answer, as at the end of a document."""
    ends = [end] + ([tokenizer.eos_token_id] if tokenizer.eos_token_id not in (None, end) else [])
    model.generation_config.eos_token_id = ends
    model.generation_config.pad_token_id = tokenizer.pad_token_id
