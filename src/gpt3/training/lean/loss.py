"""The vocabulary loss on a CPU in float32: one loop for softmax, losses and gradients, products by the faster library."""

from __future__ import annotations

from torch import Tensor

from gpt3.model.loss import LossSteps
from gpt3.training.lean.products import Products
from gpt3.training.lean.rows import softmax_in_place


class LeanLossSteps(LossSteps):
    """gpt3.model.loss's steps, each row of logits taken from softmax to gradient while it is in the cache."""

    def __init__(self, products: Products) -> None:
        self.products = products

    def logits(self, hidden: Tensor, weight: Tensor, out: Tensor) -> None:
        """As LossSteps has it."""
        self.products.forward_into(out, hidden, weight)

    def grad_hidden(self, grad_logits: Tensor, weight: Tensor, out: Tensor) -> None:
        """As LossSteps has it."""
        out.copy_(self.products.grad_input(grad_logits, weight))

    def add_grad_weight(self, total: Tensor, grad_logits: Tensor, hidden: Tensor, first: bool) -> None:
        """As LossSteps has it."""
        self.products.add_grad_weight(total, grad_logits, hidden, first)

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
