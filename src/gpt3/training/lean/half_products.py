"""The products of a training step in bfloat16: from bfloat16 numbers, summed in float32 by oneDNN, rounded to bfloat16."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt3.training.lean.products import Products
from gpt3.training.lean.rows import add


class HalfProducts(Products):
    """As Products, of bfloat16 matrices. Weights are cast by `weight` first; their gradients are float32, as the weights are."""

    dtype = torch.bfloat16

    def weight(self, weight: Tensor) -> Tensor:
        """As Products has it: a copy."""
        return weight.to(self.dtype)

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """x W^T, plus the bias, which is float32."""
        return torch.nn.functional.linear(x, weight, None if bias is None else bias.to(self.dtype))

    def add_forward(self, onto: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        """`onto`, float32, which becomes onto + x W^T."""
        return add(onto, torch.mm(x, weight.t()))

    def grad_weight(self, dy: Tensor, x: Tensor) -> Tensor:
        """dy^T x in float32."""
        return torch.mm(dy.t(), x).float()
