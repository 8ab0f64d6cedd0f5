"""Weights in int8 on a GPU: half of 16 bits' memory. Activations, and what attention holds, stay in the device's format.

The numbers are the CPU engine's (packing.py): symmetric, one scale per output channel, s = max |w| / 127, q = round(w / s), of
the layers' matrices, the embedding and the head. For a few tokens one compiled loop reads a matrix as int8; for more it is
widened first, since the product then costs more than that.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gpt3.device import compile_failure
from gpt3.errors import InputError
from gpt3.inference.packing import check
from gpt3.model import GPT3ForCausalLM

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FEW = 8
"""Tokens that a matrix is read for as int8, at most."""


class Int8Matrix(nn.Module):
    """A matrix (O, I): `steps` int8, `scale` float32 of each row."""

    steps: Tensor
    scale: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        exact = weight.detach().float()
        scale = exact.abs().amax(-1) / 127
        scale[scale == 0] = 1.0
        self.register_buffer("steps", (exact / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)


class Int8Linear(nn.Module):
    """x W^T + b, in the format of x."""

    def __init__(self, matrix: Int8Matrix, bias: Tensor | None) -> None:
        super().__init__()
        self.matrix = matrix
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., I) -> (..., O)."""
        rows = x.flatten(0, -2)
        compute = few_rows(x.device) if len(rows) <= FEW else product
        return compute(rows, self.matrix.steps, self.matrix.scale, self.bias).view(*x.shape[:-1], -1)


class Int8Embedding(nn.Module):
    """Rows of a matrix, in `dtype`."""

    def __init__(self, matrix: Int8Matrix, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix, self.dtype = matrix, dtype

    def forward(self, ids: Tensor) -> Tensor:
        """(...) -> (..., I)."""
        return (self.matrix.steps[ids].float() * self.matrix.scale[ids][..., None]).to(self.dtype)


def product(x: Tensor, steps: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, I) times the widened matrix: (N, O)."""
    return F.linear(x, (steps * scale[:, None]).to(x.dtype), bias)


def fused_product(x: Tensor, steps: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """The same, with sums in float32, written as one loop over rows and columns: to be compiled."""
    total = (x.float()[:, None] * steps.float()[None]).sum(-1) * scale  # (N, O)
    return (total if bias is None else total + bias.float()).to(x.dtype)


@functools.cache
def few_rows(device: torch.device) -> Callable[..., Tensor]:
    """What computes the product of a few rows: compiled where torch.compile works, so that nothing is widened in memory."""
    if device.type != "cuda" or compile_failure(device) is not None:
        return product
    return torch.compile(fused_product, dynamic=True)  # one loop for all matrices


def quantized(model: PreTrainedModel, dtype: torch.dtype) -> GPT3ForCausalLM:
    """A model with its matrices in int8 and the rest in `dtype`; the given one, changed.

    Raises:
        InputError: it is not GPT-3's class, or has weights that are not finite (the tensor is named).
    """
    if not isinstance(model, GPT3ForCausalLM):
        raise InputError(
            f"--quantize int8 is not available: model type {model.config.model_type!r} has no int8 weights on a GPU. "
            "Leave it out, or use --device cpu."
        )
    for name, parameter in model.named_parameters():
        check(name, parameter)
    table = Int8Matrix(model.transformer.wte.weight)
    head = table if model.config.tie_word_embeddings else Int8Matrix(model.lm_head.weight)
    linears = {name: one for name, one in model.transformer.h.named_modules() if isinstance(one, nn.Linear)}
    matrices = {name: Int8Matrix(linear.weight) for name, linear in linears.items()}  # of float32 weights, before:
    model.to(dtype=dtype)  # type: ignore[call-arg]  # transformers wraps it without types
    for name, linear in linears.items():
        parent, _, own = name.rpartition(".")
        setattr(model.transformer.h.get_submodule(parent), own, Int8Linear(matrices[name], linear.bias))
    model.transformer.wte = Int8Embedding(table, dtype)  # type: ignore[assignment]
    model.lm_head = Int8Linear(head, None)
    return model
