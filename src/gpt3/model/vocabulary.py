"""Rows for new tokens, in any of transformers' causal language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def resize_vocabulary(model: Any, size: int, new: Sequence[int]) -> None:
    """Give embedding and head `size` rows, those of the ids `new` the mean of all rows before the first of them.

    The mean gives a token no one has seen the probability of an average one (Hewitt 2021), where a random row may have any.
    Padding rows of the vocabulary are none afterwards.
    """
    import torch

    embedding = model.get_input_embeddings()
    real = getattr(model.config, "real_vocab_size", None) or embedding.num_embeddings
    old = embedding.weight.detach()[: min([real, *new])].clone()
    if size != embedding.num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for rows in {
            id(w): w for w in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
        }.values():
            rows[list(new)] = old.mean(dim=0).to(rows)
