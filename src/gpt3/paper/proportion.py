"""Shares of right answers with their intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z = 1.959964
"""Of 95%."""


def interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval of 95% for a share, `right` of `count`."""
    share, square = right / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z * math.sqrt(share * (1 - share) / count + square / count / 4) / (1 + square)
    return max(0.0, middle - half), min(1.0, middle + half)


def shown(rights: Sequence[float]) -> str:
    """Right answers, each 0 or 1, in percent with their interval: ``25% (12 to 45)``."""
    low, high = interval(round(sum(rights)), len(rights))
    return f"{100 * sum(rights) / len(rights):.0f}% ({100 * low:.0f} to {100 * high:.0f})"
