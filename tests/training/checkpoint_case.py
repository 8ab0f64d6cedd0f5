"""A model, an optimizer and averaged weights small enough to save many times a second."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from gpt3.model import GPT3Config, GPT3ForCausalLM
from gpt3.training.checkpoint import named_tensors

VOCABULARY = 33  # no world size divides it


def read_set(folder: Path, stem: str) -> dict[str, torch.Tensor]:
    """All tensors of a checkpoint's set, in however many files."""
    return {
        name: tensor for path in sorted(folder.glob(f"{stem}*.safetensors")) for name, tensor in load_file(path).items()
    }


def same_tensors(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two sets have the same names, number formats and bits."""
    return one.keys() == other.keys() and all(
        each.dtype == other[name].dtype
        and torch.equal(each.view(-1).view(torch.uint8), other[name].view(-1).view(torch.uint8))
        for name, each in one.items()
    )


def make_model(seed: int = 0, **changes: Any) -> GPT3ForCausalLM:
    torch.manual_seed(seed)
    shape = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"max_position_embeddings": 16, "sliding_window": 8, "bos_token_id": 0, "eos_token_id": 0}
    return GPT3ForCausalLM(GPT3Config(**(shape | changes)))


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(VOCABULARY)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel(words, unk_token="w0")), eos_token="w0")


def make_optimizer(
    model: torch.nn.Module, kind: type[torch.optim.Optimizer] = torch.optim.AdamW, **options: Any
) -> Any:
    groups = [[w for w in model.parameters() if w.dim() >= 2], [w for w in model.parameters() if w.dim() < 2]]
    return kind([{"params": group} for group in groups], lr=1e-2, **options)


def average_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in named_tensors(model).items()}


def train_step(
    forward: Any, model: torch.nn.Module, optimizer: Any, average: dict[str, torch.Tensor], step: int, rows: slice
) -> None:
    """One step on `rows` of the batch of four that `step` determines; the average follows."""
    tokens = torch.randint(VOCABULARY, (4, 16), generator=torch.Generator().manual_seed(step))[rows]
    forward(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    for name, tensor in named_tensors(model).items():
        average[name].lerp_(tensor, 0.1)
