"""Cross-entropy over a large vocabulary without the (tokens x vocabulary) logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    chunk: int | None = None,
    real_vocab_size: int | None = None,
) -> Tensor:
    logits = F.linear(hidden, weight[:real_vocab_size]).float()
    return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction=reduction)
