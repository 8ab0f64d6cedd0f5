"""Small foreign models with random weights that make every path matter, saved as their own programs save them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
)

VOCABULARY = 67
POSITIONS = 64
IDS = {"bos_token_id": 0, "eos_token_id": 0}


def randomised(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Every parameter random: matrices of order 0.2, gains about 1, biases of order 0.3."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            gain = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(1 + 0.3 * values if gain else (0.2 if parameter.ndim > 1 else 0.3) * values)
    return model.eval()


def gpt2(**changes: Any) -> PreTrainedModel:
    shape = {"vocab_size": VOCABULARY, "n_positions": POSITIONS, "n_embd": 24, "n_layer": 3, "n_head": 3}
    return randomised(GPT2LMHeadModel(GPT2Config(**(shape | IDS | changes))))


def gpt_neo(**changes: Any) -> PreTrainedModel:
    shape = {
        "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "hidden_size": 24, "num_layers": 4, "num_heads": 3,
        "attention_types": [[["global", "local"], 2]], "window_size": 8,
    }  # fmt: skip
    return randomised(GPTNeoForCausalLM(GPTNeoConfig(**(shape | IDS | changes))))


def opt(**changes: Any) -> PreTrainedModel:
    shape = {
        "vocab_size": VOCABULARY, "max_position_embeddings": POSITIONS, "hidden_size": 24, "num_hidden_layers": 3,
        "num_attention_heads": 3, "ffn_dim": 96, "bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1,
    }  # fmt: skip
    return randomised(OPTForCausalLM(OPTConfig(**(shape | changes))))


def saved(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def random_ids(length: int, batch: int = 2, vocabulary: int = VOCABULARY, seed: int = 1) -> torch.Tensor:
    return torch.randint(3, vocabulary, (batch, length), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


@torch.no_grad()
def cached_logits(model: PreTrainedModel, ids: torch.Tensor, first: int = 7) -> torch.Tensor:
    """The same through the cache: `first` tokens at once, then three, then one by one."""
    pieces, cache, at = [], None, 0
    for length in (first, 3, *[1] * (ids.shape[1] - first - 3)):
        out = model(ids[:, at : at + length], past_key_values=cache, use_cache=True)
        pieces.append(out.logits)
        cache, at = out.past_key_values, at + length
    return torch.cat(pieces, dim=1)


def largest_difference(ours: PreTrainedModel, theirs: torch.Tensor, ids: torch.Tensor) -> float:
    """Between our logits, cached and uncached, and theirs."""
    return max(float((each - theirs).abs().max()) for each in (logits(ours, ids), cached_logits(ours, ids)))
