"""Rows for new tokens, in any of transformers' causal language models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def resize_vocabulary(model: Any, size: int, new: Sequence[int]) -> None:
    """Give embedding and head `size` rows; those of the ids `new` are the mean of all rows before the first of them.

    Where the head is not tied, each matrix has its own mean. A new token then has about the probability of an average one
    (Hewitt 2021); with a random row it may have any. Padding rows of the vocabulary are none afterwards.
    """
    import torch

    embedding = model.get_input_embeddings()
    known = min([getattr(model.config, "real_vocab_size", None) or embedding.num_embeddings, *new])
    if size != embedding.num_embeddings:
        model.resize_token_embeddings(size, mean_resizing=False)
    with torch.no_grad():
        for matrix in (model.get_input_embeddings(), model.get_output_embeddings()):
            for rows in filter(lambda each: each is not None, (matrix.weight, getattr(matrix, "bias", None))):
                rows[list(new)] = rows[:known].mean(dim=0)
