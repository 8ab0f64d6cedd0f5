"""Lion (Chen et al. 2023, "Symbolic Discovery of Optimization Algorithms", arXiv 2302.06675): the sign of a momentum."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from gpt3.training.optimizers import decay_groups, trainable
from gpt3.training.options import TrainOptions

SCALE = 0.2
"""Lion's rate as a share of AdamW's: a tenth to a third (Chen et al. 2023, section 5); a fifth lies between."""


def make(model: torch.nn.Module, options: TrainOptions, lr: float) -> Lion:
    """Lion over all trainable parameters of `model`. Every entry of its update is ±1, so its rate is lower than AdamW's."""
    scale = SCALE if options.lion_lr is None else options.lion_lr / lr
    groups = decay_groups(trainable(model), options.weight_decay, scale)
    return Lion(groups, lr=lr, betas=(options.lion_beta1, options.lion_beta2))


class Lion(torch.optim.Optimizer):
    """One momentum per parameter, half of Adam's state; every entry of an update is +1, -1 or 0, times the rate.

    For a parameter θ with gradient g and momentum m (the paper's algorithm 2)::

        c = β1 m + (1 - β1) g
        θ = θ - lr (sign(c) + λ θ)
        m = β2 m + (1 - β2) g

    Args:
        params: parameters, or groups of them with ``lr``, ``betas`` and ``weight_decay`` (λ) of their own.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.98),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all parameters that have a gradient, a few kernels for each group."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if "momentum" not in self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            gradients = [weight.grad for weight in weights]
            momenta = [self.state[weight]["momentum"] for weight in weights]
            beta1, beta2 = group["betas"]
            updates = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)
        return loss
