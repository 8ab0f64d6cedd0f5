"""AdamW as the paper sets it (Brown et al. 2020, App. B; Loshchilov and Hutter 2019)."""

from __future__ import annotations

from typing import Any

import torch

from gpt3.training.optimizers import decay_groups, trainable
from gpt3.training.options import TrainOptions
from gpt3.training.recipes import PAPER_BETA2


def make(model: torch.nn.Module, options: TrainOptions, lr: float) -> torch.optim.AdamW:
    """AdamW over all trainable parameters of `model`."""
    return adamw(decay_groups(trainable(model), options.weight_decay), options, lr)


def adamw(groups: list[dict[str, Any]], options: TrainOptions, lr: float) -> torch.optim.AdamW:
    """torch's AdamW over these groups; fused, which on a CPU is 4 times as fast."""
    betas = (options.beta1, PAPER_BETA2 if options.beta2 is None else options.beta2)
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=options.eps, fused=fused)
