"""A moving average of the weights (``--ema``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule


class WeightAverage:
    """An exponential moving average of the weights (``--ema``): one model that is smoother than the last step's.

    After t steps a step i has the share (1 - decay) · decay^(t-i) / (1 - decay^t). The division is Adam's correction of its
    start (Kingma and Ba 2015, section 3): the shares add up to 1, and the random weights from before step 1 have none.

    It is kept in fp32, on each weight's device. Sharded weights (DTensor) have a sharded average, and no step of it communicates.

    Args:
        decay: between 0 (the last weights) and 1; 1 / (1 - decay) is about the number of steps averaged over.

    Attributes:
        tensors: the average by parameter name, fp32; sharded where the weights are.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        # the tied head stands once in named_parameters
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self.tensors = {name: weight.detach().to(torch.float32, copy=True) for name, weight in self._weights.items()}

    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 1. Call it once after each step, a skipped one too."""
        share = (1 - self.decay) / (1 - self.decay**step)
        weights = [weight.to(torch.float32) for weight in held(self._weights)]
        torch._foreach_lerp_(held(self.tensors), weights, share)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the average inside, and afterwards its own weights again, bit for bit.

        The weights are copied: 4 bytes per parameter, where gradients have gone (``set_to_none``) no more than those
        took. Do not take a step inside.
        """
        aside = [weight.clone() for weight in held(self._weights)]
        self._fill(held(self.tensors))
        try:
            yield
        finally:
            self._fill(aside)

    def _fill(self, values: list[torch.Tensor]) -> None:
        """Write `values` into the model. FSDP2 drops the whole weights that it still has from a forward pass."""
        torch._foreach_copy_(held(self._weights), values)
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def held(tensors: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
    """Of each tensor the part that this process holds, detached: of a DTensor its shard, else all of it; the same memory."""
    detached: list[Any] = [tensor.detach() for tensor in tensors.values()]
    return [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in detached]
