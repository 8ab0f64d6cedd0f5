"""The gradient noise scale, measured while training (``--noise-scale``; McCandlish et al. 2018, arXiv 1812.06162, App. A.1).

The gradient of a batch of B tokens has the expected squared norm |G|² + tr Σ / B, where G is the gradient of all text and Σ the
covariance of one token's. A step's micro-batches and the whole step are two sizes of batch, so their squared norms give unbiased
estimates of |G|² and tr Σ. The simple noise scale is tr Σ / |G|² in tokens: a batch far above it saves few steps.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from gpt3.errors import InputError

DECAY = 0.99
"""Of the moving averages of both estimates, per step: each alone is as noisy as a single step's gradient."""


class NoiseScale:
    """Looks at a step's gradients as they accumulate, and changes no bit of them: sums are taken in the same order.

    Args:
        parameters: of the model; those without gradients are left out.
        processes: among which a batch's sequences are shared out. Of several, each looks at all micro-batches but its last, with
            which gradients are exchanged.

    Attributes:
        average: moving averages of |G|² and tr Σ; empty before the first step that was measured.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], processes: int) -> None:
        self.parameters = [weight for weight in parameters if weight.requires_grad]
        self.processes = processes
        self.average: list[float] = []
        self.begin()

    @property
    def value(self) -> float | None:
        """The noise scale in tokens; None where nothing was measured, or noise hides the gradient."""
        square, trace = self.average or (0.0, 0.0)
        return trace / square if square > 0 and trace > 0 else None

    def begin(self) -> None:
        """Forget what was seen of a step: it begins, or begins anew."""
        self._sum: list[torch.Tensor | None] = []
        self._squares: list[tuple[torch.Tensor, int]] = []

    def take(self, index: int, count: int, tokens: int) -> None:
        """Look at the gradients of one micro-batch after its backward pass, and add them to those before it.

        Args:
            index: of the micro-batch in its step, from 0.
            count: micro-batches of the step.
            tokens: of this one that count.
        """
        last = index + 1 == count
        if count == 1 or (last and self.processes > 1):
            return
        found = [weight.grad for weight in self.parameters]
        here = [gradient for gradient in found if gradient is not None]
        if tokens:
            self._squares.append((torch.stack(torch._foreach_norm(here)).float().square().sum(), tokens))
        if not self._sum:
            self._sum = list(found)
        else:
            pairs = [
                (old, new) for old, new in zip(self._sum, found, strict=True) if old is not None and new is not None
            ]
            torch._foreach_add_([old for old, _ in pairs], [new for _, new in pairs])
        whole = last or (index + 2 == count and self.processes > 1)
        for weight, total in zip(self.parameters, self._sum if whole else itertools.repeat(None), strict=False):
            weight.grad = total

    def sums(self, tokens: int, like: torch.Tensor) -> torch.Tensor:
        """Three numbers of this process's part of a step, to be added to the others'.

        They are the tokens of each micro-batch times the squared norm of its mean gradient per token, summed; these tokens; and
        the number of micro-batches.

        Args:
            tokens: of the whole step, by which gradients were divided.
            like: a tensor of the device and dtype wanted.
        """
        scale = (tokens / self.processes) ** 2  # gradients are means over processes
        numbers = torch.zeros(3, dtype=like.dtype, device=like.device)
        for square, own in self._squares:
            numbers[0] += square * (scale / own)
        numbers[1] = sum(own for _, own in self._squares)
        numbers[2] = len(self._squares)
        self.begin()
        return numbers

    def update(self, sums: Sequence[float], tokens: int, norm: float, scale: float = 1.0) -> dict[str, float | None]:
        """Take a step's numbers into the averages.

        Args:
            sums: all processes' `sums`.
            tokens: of the whole step.
            norm: of its gradient.
            scale: by which a loss scaler multiplied the gradients behind `sums`.

        Returns:
            For the step's record: its own two estimates, unbiased and noisy, and the noise scale; nothing if it was not measured.
        """
        weighted, seen, count = sums
        if not count or seen / count >= tokens or not math.isfinite(weighted + norm):
            return {}
        small, part = weighted / seen / scale**2, seen / count
        square = (tokens * norm**2 - part * small) / (tokens - part)
        trace = (small - norm**2) / (1 / part - 1 / tokens)
        before = self.average or [0.0, 0.0]  # both start at 0, so their quotient is that of the weighted means
        self.average = [DECAY * old + (1 - DECAY) * new for old, new in zip(before, (square, trace), strict=True)]
        return {"noise_scale": self.value, "noise_square": square, "noise_trace": trace}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"average": self.average}

    def load(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state`."""
        self.average = list(state["average"])


def check_micro_batch(given: int | None, share: int) -> None:
    """Refuse a step that is a single micro-batch.

    Args:
        given: ``--micro-batch``.
        share: sequences of a step that one process has.

    Raises:
        InputError: it is.
    """
    if share < 2:
        raise InputError(
            "--noise-scale compares a step's micro-batches with the whole step, which has one sequence per process. "
            "Use a larger --batch-tokens, or fewer processes."
        )
    if given is not None and given >= share:
        raise InputError(
            f"--noise-scale compares a step's micro-batches with the whole step: --micro-batch {given} is all of its {share} "
            f"sequences. Use --micro-batch {share // 2} or less."
        )
