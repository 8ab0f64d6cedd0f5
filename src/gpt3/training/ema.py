"""An exponential moving average of the weights: one model that is smoother than the last step's (``--ema``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule

from gpt3.errors import InputError


class WeightAverage:
    """The average of a model's weights over the steps taken, recent ones counting most.

    After t steps a step i has the share (1 - decay) · decay^(t-i) / (1 - decay^t). The division is Adam's correction of its
    start (Kingma and Ba 2015, section 3): the shares add up to 1, and the random weights from before step 1 have none.

    It is kept in fp32, on each weight's device. Sharded weights (DTensor) have a sharded average, and no step of it communicates.

    Args:
        decay: between 0 (the last weights) and 1; 1 / (1 - decay) is about the number of steps averaged over.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        # the tied head stands once in named_parameters
        self._weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        self._average = {name: weight.detach().to(torch.float32, copy=True) for name, weight in self._weights.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number `step`, counted from 1. Call it once after each step, a skipped one too."""
        if step < 1:
            raise ValueError(f"steps are counted from 1, not {step}")
        share = (1 - self.decay) / (1 - self.decay**step)
        weights = [local(weight).to(torch.float32) for weight in self._weights.values()]
        torch._foreach_lerp_([local(average) for average in self._average.values()], weights, share)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The average by parameter name, fp32; the live tensors, sharded where the weights are."""
        return dict(self._average)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Continue from `tensors()`, which are copied.

        Raises:
            InputError: they are not those of this model; nothing has changed then.
        """
        wrong = sorted(tensors.keys() ^ self._average.keys()) or [
            name for name, average in self._average.items() if tensors[name].shape != average.shape
        ]
        if wrong:
            raise InputError(f"the checkpoint's weight average does not fit this model: {', '.join(wrong[:3])} differ")
        for name, average in self._average.items():
            average.copy_(tensors[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """The model holds the average inside, and afterwards its own weights again, bit for bit.

        The weights are copied meanwhile: 4 bytes per parameter, where gradients have gone (``set_to_none``) no more than those
        took. Do not take a step inside.
        """
        weights = [local(weight) for weight in self._weights.values()]
        aside = [weight.clone() for weight in weights]
        self._copy(weights, [local(average) for average in self._average.values()])
        try:
            yield
        finally:
            self._copy(weights, aside)

    @torch.no_grad()
    def _copy(self, weights: list[torch.Tensor], values: list[torch.Tensor]) -> None:
        """Write `values` into the model."""
        torch._foreach_copy_(weights, values)
        reshard(self.model)


def local(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a detached `tensor` that this process holds: of a DTensor its shard, else all of it; the same memory."""
    tensor = tensor.detach()
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def reshard(model: nn.Module) -> None:
    """Let FSDP2 drop the whole weights it still has from a forward pass: they are no longer those of the shards."""
    if not torch.distributed.is_available():
        return

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
