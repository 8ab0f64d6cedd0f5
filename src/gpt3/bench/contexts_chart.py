"""The curves of `gpt3 bench contexts` as one SVG: time of a token on the left, memory of its cache on the right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from gpt3.bench.contexts import Point

WIDTH, HEIGHT = 860, 330
PANEL, LEFT, TOP, BOTTOM = 300, 60, 84, 270
COLOURS = {"banded": "#2a63d4", "dense": "#dd6b10"}
SOFT, GRID, INK = "#5b6472", "#e2e5ea", "#171a21"


def draw(points: Sequence[Point], about: str) -> str:
    """The SVG's text.

    Args:
        points: both kinds at the same contexts.
        about: what was measured, a line under the title.
    """
    left = _panel(points, LEFT, "Time of a token", "ms", lambda point: point.milliseconds)
    right = _panel(points, LEFT + PANEL + 115, "Keys and values", "MB", lambda point: point.cache_bytes / 1e6)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            'font-family="system-ui, sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            f'<text x="16" y="26" font-size="15" font-weight="600" fill="{INK}">Banded layers against dense ones as the '
            "context grows</text>",
            f'<text x="16" y="45" fill="{SOFT}">{escape(about)}</text>',
            *left,
            *right,
            "</svg>\n",
        ]
    )


def ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`: three to five steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (math.floor(math.log10(highest)) - 1)
    step = next(m * power for m in (1, 2, 5, 10, 20, 50) if math.ceil(highest / (m * power) - 1e-9) <= 5)
    return [i * step for i in range(math.ceil(highest / step - 1e-9) + 1)]


def _panel(points: Sequence[Point], x0: int, title: str, unit: str, value: Callable[[Point], float]) -> list[str]:
    contexts = sorted({point.context for point in points})
    low, high = math.log2(contexts[0]), math.log2(contexts[-1])
    marks = ticks(max(value(point) for point in points))

    def x(context: int) -> float:
        return x0 + PANEL * ((math.log2(context) - low) / (high - low) if high > low else 0.5)

    def y(number: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * number / marks[-1]

    lines = [f'<text x="{x0}" y="{TOP - 14}" fill="{INK}" font-weight="600">{escape(title)}, {unit}</text>']
    for mark in marks:
        lines.append(f'<line x1="{x0}" x2="{x0 + PANEL}" y1="{y(mark):.1f}" y2="{y(mark):.1f}" stroke="{GRID}"/>')
        lines.append(f'<text x="{x0 - 8}" y="{y(mark) + 4:.1f}" text-anchor="end" fill="{SOFT}">{mark:g}</text>')
    for context in contexts:
        lines.append(
            f'<text x="{x(context):.1f}" y="{BOTTOM + 18}" text-anchor="middle" fill="{SOFT}">{context:,}</text>'
        )
    lines.append(
        f'<text x="{x0 + PANEL / 2}" y="{BOTTOM + 38}" text-anchor="middle" fill="{SOFT}">tokens of context</text>'
    )
    for kind, colour in COLOURS.items():
        own = sorted((point for point in points if point.kind == kind), key=lambda point: point.context)
        places = [(x(point.context), y(value(point))) for point in own]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        lines += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="{colour}"/>' for a, b in places]
        lines.append(f'<text x="{places[-1][0] + 8:.1f}" y="{places[-1][1] + 4:.1f}" fill="{colour}">{kind}</text>')
    return lines
