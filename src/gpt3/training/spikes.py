"""Loss spikes: a step whose loss or gradient norm stands far above the recent ones is not taken.

The rule is that of llm.c's outlier detector and OLMo-core's step skipping: too many standard deviations above the mean of a
window. Here it looks upward only, for a loss that falls is no accident. The numbers of a skipped step enter the window all the
same, if they are finite: a lone spike barely moves it, and where the level has really changed a few steps are lost, not the run.
Mean and deviation are computed anew from the window, with no running sum to drift.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

TOO_LARGE = 1e100
"""Numbers from here on do not enter the window, where their squares would overflow."""
LEAST_SPREAD = 1e-3
"""A standard deviation below this share of the mean counts as this much: on a flat curve the last digit is no spike."""


class SpikeWindow:
    """The losses and gradient norms of the last steps that were taken, and what they say about the next one.

    On several devices, give each the same all-reduced numbers: then each reaches the same verdict.

    Args:
        size: steps in the window, at least 2. Verdicts begin when it is half full.
        sigmas: how many standard deviations above the window's mean are too many; 0 lets every finite step pass.
        most_in_a_row: after this many skipped steps in a row the run is `lost`.
    """

    def __init__(self, size: int = 128, sigmas: float = 6.0, most_in_a_row: int = 10) -> None:
        self.size, self.sigmas, self.most_in_a_row = size, sigmas, most_in_a_row
        self.losses: deque[float] = deque(maxlen=size)
        self.grad_norms: deque[float] = deque(maxlen=size)
        self.in_a_row = 0
        """Steps skipped since the last one taken."""
        self.skipped = 0
        """Steps skipped in all."""

    @property
    def lost(self) -> bool:
        """Whether too many steps in a row were skipped to continue."""
        return self.in_a_row >= self.most_in_a_row

    def verdict(self, loss: float, grad_norm: float) -> str | None:
        """None: take this step. Else in one line why it is to be skipped. Finite numbers are in the window from now on.

        Args:
            loss: nats per token of the step's batch.
            grad_norm: the global gradient norm before clipping.
        """
        values = (("loss", loss, self.losses), ("gradient norm", grad_norm, self.grad_norms))
        reason = next((why for name, value, window in values if (why := self._against(name, value, window))), None)
        if all(abs(value) < TOO_LARGE for _, value, _ in values):  # not so for nan and infinity
            for _, value, window in values:
                window.append(value)
        if reason is None:
            self.in_a_row = 0
        else:
            self.in_a_row += 1
            self.skipped += 1
        return reason

    def _against(self, name: str, value: float, window: Sequence[float]) -> str | None:
        """What is wrong with `value` after the values in `window`."""
        if not math.isfinite(value):
            return f"{name} {value} is not finite"
        if self.sigmas == 0 or len(window) < max(2, self.size // 2):
            return None
        mean, spread = mean_and_deviation(window)
        spread = max(spread, LEAST_SPREAD * abs(mean))
        if value <= mean + self.sigmas * spread:
            return None
        above = f"{(value - mean) / spread:.1f} sigmas above" if spread else "above"
        return f"{name} {value:.4g} is {above} the mean {mean:.4g} of the last {len(window)} steps"

    def state(self) -> dict[str, Any]:
        """Everything that moves, for JSON; Python's JSON brings every float back exactly."""
        return {
            "losses": list(self.losses),
            "grad_norms": list(self.grad_norms),
            "in_a_row": self.in_a_row,
            "skipped": self.skipped,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`. A window that has become smaller keeps the newest steps."""
        self.losses, self.grad_norms = (deque(state[name], maxlen=self.size) for name in ("losses", "grad_norms"))
        self.in_a_row, self.skipped = state["in_a_row"], state["skipped"]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1) of two or more finite values, however large, free of cancellation."""
    mean = math.fsum(value / len(values) for value in values)
    return mean, math.hypot(*(value - mean for value in values)) / math.sqrt(len(values) - 1)
