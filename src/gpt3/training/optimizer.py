"""What turns gradients into steps: AdamW as the paper sets it, Muon, or Lion, behind one interface.

``--lr`` and ``--weight-decay`` are AdamW's for every optimizer. Each parameter group carries ``lr_scale``, its peak rate relative
to ``--lr``; whoever follows a schedule sets ``group["lr"] = lr * group["lr_scale"]``. A group's decay is divided by its scale, so
that the shrinking a step, rate times decay, is AdamW's too (the rule of Chen et al. 2023, section 5).

- **adamw**: Brown et al. 2020, App. B; fused.
- **muon**: Jordan et al. 2024, for the matrices of the layers; embeddings, positions, head, biases and gains stay with AdamW,
  for an orthogonal update means nothing for a table of rows. Its update is scaled by 0.2 √max(out, in), which gives every entry
  the size of an AdamW update, about 0.2 in root mean square (Liu et al. 2025, arXiv 2502.16982). So the paper's rates for AdamW
  serve both halves and need no second search; Jordan's own scale, √max(1, out/in), needs rates some 20 times as high.
- **lion**: Chen et al. 2023, arXiv 2302.06675 (gpt3.training.lion). Every entry of its update is ±1, so its rate is lower.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from gpt3.training.lion import Lion
from gpt3.training.options import TrainOptions
from gpt3.training.plan import PAPER_BETA2

LION_SCALE = 0.2
"""Lion's rate as a share of AdamW's: a tenth to a third (Chen et al. 2023, section 5); a fifth lies between."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and the rest (biases, gains), which do not.

    The paper (App. B) gives a decay of 0.1 and does not say what is exempt. Embeddings are matrices and decay, as in
    GPT-2's known reimplementations.
    """
    return _groups([weight for weight in model.parameters() if weight.requires_grad], weight_decay)


def _groups(weights: Sequence[torch.Tensor], weight_decay: float, scale: float = 1.0) -> list[dict[str, Any]]:
    """`weights` in one group that decays and one that does not; a group of none is left out."""
    matrices = [weight for weight in weights if weight.dim() >= 2]
    rest = [weight for weight in weights if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay / scale, "lr_scale": scale},
        {"params": rest, "weight_decay": 0.0, "lr_scale": scale},
    ]
    return [group for group in groups if group["params"]]


def hidden_matrices(model: nn.Module) -> list[torch.Tensor]:
    """The matrices that map activations to activations: linear layers' weights, but not the head's, tied or not."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding) or module is head}
    return [
        module.weight
        for module in model.modules()
        if isinstance(module, nn.Linear) and id(module.weight) not in tables and module.weight.requires_grad
    ]


def make_optimizer(model: nn.Module, options: TrainOptions, lr: float) -> torch.optim.Optimizer:
    """The optimizer that `options` name, over `model`'s trainable parameters.

    Args:
        lr: the peak rate, AdamW's; the groups start at it times their ``lr_scale``.
    """
    if options.optimizer == "muon":
        scale = 1.0 if options.muon_lr is None else options.muon_lr / lr
        optimizer: torch.optim.Optimizer = MuonAndAdamW(model, options, lr, scale)
    elif options.optimizer == "lion":
        scale = LION_SCALE if options.lion_lr is None else options.lion_lr / lr
        weights = [weight for weight in model.parameters() if weight.requires_grad]
        groups = _groups(weights, options.weight_decay, scale)
        optimizer = Lion(groups, lr=lr, betas=(options.lion_beta1, options.lion_beta2))
    else:
        optimizer = _adamw(parameter_groups(model, options.weight_decay), options, lr)
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
    return optimizer


def _adamw(groups: list[dict[str, Any]], options: TrainOptions, lr: float) -> torch.optim.AdamW:
    """torch's AdamW with the paper's numbers; fused, which on a CPU is 4 times as fast."""
    betas = (options.beta1, PAPER_BETA2 if options.beta2 is None else options.beta2)
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda", "mps")
    return torch.optim.AdamW(groups, lr=lr, betas=betas, eps=options.eps, fused=fused)


class MuonAndAdamW(torch.optim.Optimizer):
    """torch's Muon for the layers' matrices and torch's AdamW for the rest, as one optimizer.

    The groups and the state are this object's own, in torch's form, so that schedules, ``state_dict`` and
    torch.distributed.checkpoint see one optimizer. The two inside are only lent them for a step.

    Args:
        scale: the matrices' peak rate relative to `lr`.
    """

    def __init__(self, model: nn.Module, options: TrainOptions, lr: float, scale: float = 1.0) -> None:
        hidden = hidden_matrices(model)
        taken = {id(weight) for weight in hidden}
        rest = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in taken]
        self._muon = torch.optim.Muon(
            _groups(hidden, options.weight_decay, scale),
            lr=lr,
            momentum=options.muon_momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        self._adamw = _adamw(_groups(rest, options.weight_decay), options, lr)
        super().__init__([*self._muon.param_groups, *self._adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of both. `closure`, if any, computes the loss and the gradients first, once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden = len(self._muon.param_groups)  # a group stays in its place; load_state_dict puts a new dict there
        self._muon.param_groups, self._adamw.param_groups = self.param_groups[:hidden], self.param_groups[hidden:]
        self._muon.state = self._adamw.state = self.state
        self._muon.step()
        self._adamw.step()
        return loss
