"""A curve in a few lines of characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:|"
MOST_VALUES = 512
LOUD = 0.02
"""The share of the highest values that the curve cuts off, so that one spike or the first steps do not flatten the rest."""


class History:
    """The mean values of a whole run in bounded room: when full, neighbours are merged in pairs."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self.most = most
        self.means: list[float] = []
        self.width = 1  # values a mean stands for
        self._total, self._count = 0.0, 0

    def add(self, value: Any) -> None:
        """Take one more value; one that is no finite number counts nothing."""
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            return
        self._total += value
        self._count += 1
        if self._count == self.width:
            self.means.append(self._total / self._count)
            self._total, self._count = 0.0, 0
            if len(self.means) == self.most:
                self.means = [(a + b) / 2 for a, b in zip(self.means[::2], self.means[1::2], strict=True)]
                self.width *= 2

    def values(self) -> list[float]:
        """The means so far, the one in the making last."""
        return self.means + ([self._total / self._count] if self._count else [])


def sparkline(values: Sequence[float], width: int, lines: int, unicode: bool = True) -> tuple[list[str], float, float]:
    """`values` as `lines` strings of `width` characters, the top one first, with the values of the lowest and highest level.

    Args:
        values: finite, at least one. More than `width` are averaged in groups, fewer are spread out.
        unicode: eighths of a block; otherwise ASCII.
    """
    columns = resampled(values, width)
    ordered = sorted(columns)
    low, high = ordered[0], ordered[max(0, math.ceil(len(ordered) * (1 - LOUD)) - 1)]
    glyphs = BLOCKS if unicode else ASCII
    full = len(glyphs) - 1
    levels = []
    for value in columns:
        share = 0.5 if high == low else min(1.0, (value - low) / (high - low))
        levels.append(1 + round(share * (lines * full - 1)))  # at least one level, so that the lowest is seen
    rows = [
        "".join(glyphs[min(full, max(0, level - full * below))] for level in levels)
        for below in range(lines - 1, -1, -1)
    ]
    return rows, low, high


def resampled(values: Sequence[float], width: int) -> list[float]:
    """`values` as `width` numbers: means of groups, or each value several times."""
    count = len(values)
    result = []
    for column in range(width):
        first = column * count // width
        group = values[first : max(first + 1, (column + 1) * count // width)]
        result.append(sum(group) / len(group))
    return result
