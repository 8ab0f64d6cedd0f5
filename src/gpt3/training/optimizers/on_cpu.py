"""An optimizer whose state is on the CPU, for a device whose memory is short (``--opt-state-on-cpu``).

Each step sends gradients to the CPU, takes the step there on a copy of the weights, and sends the weights back: 4 bytes per
parameter each way, and the CPU's time. What it computes is the optimizer's own. Sharded models (FSDP2) have torch's
CPUOffloadPolicy instead.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class OnCpu(torch.optim.Optimizer):
    """Takes another optimizer's steps on the CPU.

    The groups are that optimizer's, over the model's own weights, and so is the state, of tensors on the CPU: schedules and
    checkpoints see one optimizer. The one inside is only lent them for a step.

    Args:
        inner: over the model's weights, before its first step.
    """

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self._inner = inner
        super().__init__(inner.param_groups, {})
        for group in self.param_groups:
            group["on_cpu"] = True
        self._copies: dict[Tensor, Tensor] = {}

    @property
    def kind(self) -> str:
        """The name of the optimizer inside, which a checkpoint must be of."""
        return type(self._inner).__name__

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step. `closure`, if any, computes the loss and the gradients first, once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for weight in weights:
            if weight not in self._copies:
                pinned = weight.device.type == "cuda"
                self._copies[weight] = torch.empty(weight.shape, dtype=weight.dtype, pin_memory=pinned)
            copy = self._copies[weight]
            copy.copy_(weight)  # a checkpoint, or an average, may have been put in its place
            copy.grad = None if weight.grad is None else weight.grad.to("cpu")
        self._inner.param_groups = [
            {**group, "params": [self._copies[weight] for weight in group["params"]]} for group in self.param_groups
        ]
        self._inner.state.clear()
        self._inner.state.update({self._copies[weight]: state for weight, state in self.state.items()})
        self._inner.step()
        for weight in weights:
            copy = self._copies[weight]
            if copy in self._inner.state:
                self.state[weight] = self._inner.state[copy]
            weight.copy_(copy)
            copy.grad = None
        return loss
