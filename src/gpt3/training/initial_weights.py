"""Fresh weights as a function of the seed and each module's name: the same on any number of ranks and any device."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from gpt3.model import GPT3ForCausalLM


def fill(model: GPT3ForCausalLM, part: nn.Module, seed: int, device: torch.device) -> None:
    """Give every tensor of `part` that is on the meta device its memory on `device` and its initial value.

    The values are those of the model's own table (`GPT3PreTrainedModel._init_weights`), drawn on the CPU, one module at a time.

    Args:
        model: what `part` belongs to; its tied head follows the token embedding.
    """
    names = {id(module): name for name, module in model.named_modules()}
    head, table = model.lm_head, model.transformer.wte
    tied = model.config.tie_word_embeddings
    for module in part.modules():
        own = list(module.parameters(recurse=False))
        if not own or not own[0].is_meta or (module is head and tied):
            continue
        module.to_empty(device="cpu", recurse=False)
        torch.manual_seed(seed_of(seed, names[id(module)]))
        model._init_weights(module)
        module.to(device)
    if tied and head.weight is not table.weight:
        head.weight = table.weight


def seed_of(seed: int, name: str) -> int:
    """A generator's seed for the module called `name`, 63 bits."""
    digest = hashlib.blake2b(f"{seed} {name}".encode(), digest_size=8, person=b"gpt3 init").digest()
    return int.from_bytes(digest, "little") >> 1
