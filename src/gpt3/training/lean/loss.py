"""The vocabulary loss on a CPU: one loop for softmax, losses and gradients, products by the faster library."""

from __future__ import annotations

import torch
from torch import Tensor

from gpt3.model.loss import LossSteps
from gpt3.training.lean.products import Products
from gpt3.training.lean.rows import add, softmax_in_place


class LeanLossSteps(LossSteps):
    """gpt3.model.loss's steps, each row of logits taken from softmax to gradient while it is in the cache."""

    def __init__(self, products: Products) -> None:
        self.products, self.dtypes = products, (products.dtype,)
        self._kept: dict[str, Tensor] = {}

    def memory(self, purpose: str, rows: int, columns: int, like: Tensor, dtype: torch.dtype) -> Tensor:
        """As LossSteps has it; kept from step to step, because the system takes time to give so much anew."""
        kept = self._kept.get(purpose)
        if kept is None or kept.numel() < rows * columns or kept.dtype != dtype:
            self._kept.pop(purpose, None)
            kept = self._kept[purpose] = like.new_empty(rows * columns, dtype=dtype)
        return kept[: rows * columns].view(rows, columns)

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """As LossSteps has it."""
        self.products.forward_into(out, hidden, weight)

    def grad_hidden(self, grad_logits: Tensor, weight: Tensor, out: Tensor) -> None:
        """As LossSteps has it."""
        if self.products.dtype == torch.float32:
            out.copy_(self.products.grad_input(grad_logits, weight))
        else:
            torch.mm(grad_logits, weight, out=out)

    def add_grad_weight(self, total: Tensor, grad_logits: Tensor, hidden: Tensor, first: bool) -> None:
        """As LossSteps has it."""
        self.products.add_grad_weight(total, grad_logits, hidden, first)

    def add(self, total: Tensor, part: Tensor, first: bool) -> None:
        """As LossSteps has it."""
        if first:
            total.copy_(part)
        else:
            add(total, part)

    def softmax(
        self,
        logits: Tensor,
        targets: Tensor,
        weights: Tensor,
        losses: Tensor,
        real: int,
        gradients: bool,
        scratch: Tensor | None,
    ) -> None:
        """As LossSteps has it; `scratch` is not needed."""
        softmax_in_place(logits, targets.contiguous(), weights.contiguous(), losses, real, gradients)
