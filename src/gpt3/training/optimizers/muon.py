"""Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for the rest.

Embeddings, positions, head, biases and gains stay with AdamW: an orthogonal update means nothing for a table of rows. Muon's
update is scaled by 0.2 √max(out, in), which gives every entry the size of an AdamW update, about 0.2 in root mean square (Liu
et al. 2025, arXiv 2502.16982). So the paper's rates for AdamW serve both halves. Jordan's own scale, √max(1, out/in), needs
rates about 20 times as high.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from gpt3.training.optimizers import decay_groups, trainable
from gpt3.training.optimizers.adamw import adamw
from gpt3.training.optimizers.orthogonal import orthogonalize
from gpt3.training.optimizers.orthogonal_shards import orthogonalize_shards, sharing_ranks
from gpt3.training.options import TrainOptions

ROOT_MEAN_SQUARE = 0.2
"""Of an update's entries, at a rate of 1: AdamW's (Liu et al. 2025)."""


def make(model: nn.Module, options: TrainOptions, lr: float) -> MuonAndAdamW:
    """Muon and AdamW over all trainable parameters of `model`."""
    return MuonAndAdamW(model, options, lr, 1.0 if options.muon_lr is None else options.muon_lr / lr)


def hidden_matrices(model: nn.Module) -> list[torch.Tensor]:
    """The matrices that map activations to activations: linear layers' weights, but not the head's, tied or not."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding) or module is head}
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in tables and module.weight.requires_grad
    ]


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal. The matrices may be sharded (FSDP2, tensor parallelism); momentum then is, as they are.

    torch's Muon gives the same updates to rounding, a matrix at a time and always in bf16, which most CPUs compute slowly.

    Args:
        params: matrices, or groups of them with ``lr``, ``momentum`` and ``weight_decay`` of their own.
        dtype: of the Newton-Schulz products.
    """

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float,
        dtype: torch.dtype,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.dtype = dtype
        self._ranks: DeviceMesh | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step over all matrices that have a gradient. `closure`, if any, computes the loss and the gradients first."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            for weight in weights:
                if "momentum_buffer" not in self.state[weight]:
                    self.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            gradients = [held(weight.grad) for weight in weights]
            momenta = [held(self.state[weight]["momentum_buffer"]) for weight in weights]
            torch._foreach_lerp_(momenta, gradients, 1 - group["momentum"])
            updates = list(torch._foreach_lerp(gradients, momenta, group["momentum"]))
            if isinstance(weights[0], DTensor):
                if self._ranks is None:
                    self._ranks = sharing_ranks(weights[0].device_mesh)
                updates = orthogonalize_shards(weights, updates, self.dtype, self._ranks)
            else:
                updates = orthogonalize(updates, self.dtype)
            torch._foreach_mul_([held(weight) for weight in weights], 1 - group["lr"] * group["weight_decay"])
            for weight, update in zip(weights, updates, strict=True):
                size = ROOT_MEAN_SQUARE * math.sqrt(max(weight.shape))
                held(weight).add_(update, alpha=-group["lr"] * size)
        return loss


def held(tensor: Any) -> torch.Tensor:
    """The part of a tensor that this rank holds."""
    part: torch.Tensor = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return part


class MuonAndAdamW(torch.optim.Optimizer):
    """Muon for the layers' matrices and torch's AdamW for the rest, as one optimizer.

    The groups and the state are this object's own, in torch's form, so that schedules, ``state_dict`` and
    torch.distributed.checkpoint see one optimizer. The two inside are only lent them for a step.

    Args:
        scale: the matrices' peak rate relative to `lr`.
    """

    def __init__(self, model: nn.Module, options: TrainOptions, lr: float, scale: float) -> None:
        hidden = hidden_matrices(model)
        taken = {id(weight) for weight in hidden}
        rest = [weight for weight in trainable(model) if id(weight) not in taken]
        dtype = torch.bfloat16 if options.dtype == "bf16" else torch.float32
        groups = decay_groups(hidden, options.weight_decay, scale)
        self._muon = Muon(groups, lr=lr, momentum=options.muon_momentum, dtype=dtype)
        self._adamw = adamw(decay_groups(rest, options.weight_decay), options, lr)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both. `closure`, if any, computes the loss and the gradients first, once."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        hidden = len(self._muon.param_groups)  # a group stays in its place; load_state_dict puts a new dict there
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:hidden], self.param_groups[hidden:]
        self._muon.state = self._adamw.state = self.state
        self._muon.step()
        self._adamw.step()
        return loss
