"""The optimizers of ``--optimizer``, by name. Nothing here imports torch.

A new optimizer is a file with a function of (model, options, lr) that returns a torch optimizer, and one entry in `OPTIMIZERS`.
``--help``, the memory estimate, the plan, the model card and checkpoints follow from it.

``--lr`` and ``--weight-decay`` are AdamW's for every optimizer. A parameter group may carry ``lr_scale``, its peak rate relative
to ``--lr``; the loop sets ``group["lr"] = lr * group["lr_scale"]``. `decay_groups` divides a group's decay by its scale, so that
a step shrinks weights, by rate times decay, as AdamW does (Chen et al. 2023, section 5).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Optimizer:
    """One entry of `OPTIMIZERS`."""

    summary: str
    """What it is, in a line with its source."""
    state_bytes: float
    """Bytes of its state per parameter, at most."""
    maker: str
    """Its function, as ``module:name``: of (model, options, lr), returns the torch optimizer over all trainable parameters."""
    options: tuple[str, ...] = ()
    """The fields of TrainOptions that set it, beside lr and weight_decay."""


ADAM_OPTIONS = ("beta1", "beta2", "eps")
OPTIMIZERS = {
    "adamw": Optimizer(
        "AdamW (Brown et al. 2020, App. B)", 8, "gpt3.training.optimizers.adamw:make", ADAM_OPTIONS
    ),
    "muon": Optimizer(
        "Muon for the layers' matrices (Jordan et al. 2024), AdamW for the rest", 8, "gpt3.training.optimizers.muon:make",
        ("muon_lr", "muon_momentum", *ADAM_OPTIONS),
    ),
    "lion": Optimizer(
        "Lion (Chen et al. 2023)", 4, "gpt3.training.optimizers.lion:make", ("lion_lr", "lion_beta1", "lion_beta2")
    ),
}  # fmt: skip
"""Every optimizer by its name."""


def make_optimizer(model: torch.nn.Module, options: Any, lr: float) -> torch.optim.Optimizer:
    """The optimizer that `options` name, over `model`'s trainable parameters.

    Args:
        options: gpt3.training.options.TrainOptions.
        lr: the peak rate, AdamW's; the groups start at it times their ``lr_scale``.

    Returns:
        The optimizer; with ``--opt-state-on-cpu`` one that takes its steps on the CPU.
    """
    module, _, name = OPTIMIZERS[options.optimizer].maker.partition(":")
    optimizer: torch.optim.Optimizer = getattr(importlib.import_module(module), name)(model, options, lr)
    if getattr(options, "opt_state_on_cpu", False) and not hasattr(next(model.parameters()), "device_mesh"):
        from gpt3.training.optimizers.on_cpu import OnCpu

        optimizer = OnCpu(optimizer)  # sharded weights are on the CPU themselves
    for group in optimizer.param_groups:
        group["lr"] = lr * group.setdefault("lr_scale", 1.0)
    return optimizer


def describe(options: Any) -> str:
    """The chosen optimizer and its settings in words, such as ``AdamW (…): beta1 0.9, beta2 0.95, eps 1e-08``."""
    chosen = OPTIMIZERS[options.optimizer]
    given = [(name, getattr(options, name)) for name in chosen.options]
    settings = [f"{name} {value:g}" for name, value in given if value is not None]
    return ": ".join(filter(None, (chosen.summary, ", ".join(settings))))


def trainable(model: torch.nn.Module) -> list[torch.Tensor]:
    """The parameters that are trained, a tied one once."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def decay_groups(weights: Iterable[torch.Tensor], weight_decay: float, scale: float = 1.0) -> list[dict[str, Any]]:
    """Parameter groups: matrices, which decay, and the rest (biases, gains), which do not; an empty group is left out.

    The paper (App. B) gives a decay of 0.1 and does not say what is exempt. Embeddings are matrices and decay, as in GPT-2's
    known reimplementations.

    Args:
        scale: the groups' ``lr_scale``.
    """
    weights = list(weights)
    matrices = [weight for weight in weights if weight.dim() >= 2]
    rest = [weight for weight in weights if weight.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": weight_decay / scale, "lr_scale": scale},
        {"params": rest, "weight_decay": 0.0, "lr_scale": scale},
    ]
    return [group for group in groups if group["params"]]
