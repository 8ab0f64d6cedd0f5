"""Muon (Jordan et al. 2024) for the matrices of the layers, AdamW for the rest.

Embeddings, positions, head, biases and gains stay with AdamW: an orthogonal update means nothing for a table of rows. Muon's
update is scaled by 0.2 √max(out, in), which gives every entry the size of an AdamW update, about 0.2 in root mean square (Liu
et al. 2025, arXiv 2502.16982). So the paper's rates for AdamW serve both halves. Jordan's own scale, √max(1, out/in), needs
rates about 20 times as high.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gpt3.training.optimizers import decay_groups, trainable
from gpt3.training.optimizers.adamw import adamw
from gpt3.training.optimizers.sharded_muon import ShardedMuon
from gpt3.training.options import TrainOptions


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


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon for the layers' matrices and torch's AdamW for the rest, as one optimizer.

    The groups and the state are this object's own, in torch's form, so that schedules, ``state_dict`` and
    torch.distributed.checkpoint see one optimizer. The two inside are only lent them for a step.

    Args:
        scale: the matrices' peak rate relative to `lr`.
    """

    def __init__(self, model: nn.Module, options: TrainOptions, lr: float, scale: float) -> None:
        hidden = hidden_matrices(model)
        taken = {id(weight) for weight in hidden}
        rest = [weight for weight in trainable(model) if id(weight) not in taken]
        self._muon = ShardedMuon(
            decay_groups(hidden, options.weight_decay, scale),
            lr=lr,
            momentum=options.muon_momentum,
            adjust_lr_fn="match_rms_adamw",
        )
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
