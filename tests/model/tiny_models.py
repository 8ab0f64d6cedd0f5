"""Small models whose weights are large enough for every path to matter (at initialisation attention is almost uniform)."""

from __future__ import annotations

from typing import Any

import torch

from gpt3.model import GPT3Config, GPT3ForCausalLM

WINDOW = 8


def tiny_config(**changes: Any) -> GPT3Config:
    values: dict[str, Any] = {
        "vocab_size": 67, "max_position_embeddings": 64, "hidden_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 3, "sliding_window": WINDOW, "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip
    return GPT3Config(**(values | changes))


def tiny_model(attention: str | None = None, seed: int = 0, **changes: Any) -> GPT3ForCausalLM:
    """A model in eval mode whose every parameter, biases and gains too, is random and of order 0.3."""
    config = tiny_config(**changes)
    model = GPT3ForCausalLM._from_config(config, **({} if attention is None else {"attn_implementation": attention}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3, generator=generator)
    return model.eval()


def random_ids(batch: int, length: int, vocabulary: int = 67, seed: int = 1) -> torch.Tensor:
    return torch.randint(1, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))
