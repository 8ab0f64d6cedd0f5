"""Charts as SVG, for a page or a file of its own: panels of curves with error bars. No script, no style sheet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal
from xml.sax.saxutils import escape, quoteattr

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Okabe and Ito's, distinct to all eyes."""
DASHES = 'stroke-dasharray="5 4"'
LEFT, RIGHT, TOP, BOTTOM = 48, 24, 22, 40
"""Space around the curves of a panel, in pixels: for the numbers, the title and the label."""
HEAD = 34
"""Pixels above the panels for the title of all, and as many for the legend."""
LEAST_GAP = 24
"""Pixels between two numbers below the horizontal axis; one that is nearer is left out."""


@dataclass(frozen=True)
class Line:
    """Points from left to right, joined by a line."""

    label: str
    points: Sequence[tuple[float, float, float]]
    """x, y, and y's standard error; 0: no bar."""
    color: str
    dashed: bool = False
    shows: Literal["both", "points", "line"] = "both"
    """Points and the line through them, or one of the two: what was measured, or what was fitted to it."""


@dataclass(frozen=True)
class Axes:
    """Axes and the curves between them."""

    title: str
    curves: Sequence[Line]
    x_label: str
    x_text: Callable[[float], str] = "{:g}".format
    """The number below a point's x."""
    y_text: Callable[[float], str] = "{:g}".format
    scale: Callable[[float], float] = float
    """Of the horizontal axis, such as math.log2."""
    y_scale: Callable[[float], float] = float
    """Of the vertical axis; one that is not linear needs a `bottom`."""
    bottom: float = 0.0
    """The vertical axis begins here."""
    x_marks: Sequence[float] = ()
    """Numbers below the horizontal axis; empty: those of the points."""
    level: float = 0.0
    """The height of a dashed line, such as that of guessing; 0: none."""
    top: float = 0.0
    """The vertical axis reaches this, at least."""
    labelled: bool = False
    """Whether each curve's label is at its end; else the legend tells them apart."""


def svg(
    panels: Sequence[Axes], title: str = "", legend: Sequence[Line] = (), width: int = 320, height: int = 220
) -> str:
    """The panels in a row.

    Args:
        title: for a file of its own, above the panels. Without one the drawing is part of a page, which has the panel's title.
        legend: curves whose labels explain colors and dashes; their points do not matter.
        width: of a panel, pixels.
        height: of a panel, pixels.
    """
    head = (HEAD if title else 0) + (HEAD if legend else 0)
    wide, high = width * len(panels), height + head
    size = f'viewBox="0 0 {wide} {high}" width="{wide}" height="{high}"'
    label = quoteattr(title or panels[0].title)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-label={label} '
        'font-family="system-ui, sans-serif" font-size="11" fill="currentColor">'
    ]
    if title:
        parts.append(f'<rect width="{wide}" height="{high}" fill="#ffffff"/>')
        parts.append(_text(16, 22, title, "start", 'font-size="15" font-weight="600"'))
    x = 16.0
    for curve in legend:
        parts.append(_line(f"M{x:.0f} {head - 12}h26", curve.color, DASHES if curve.dashed else ""))
        parts.append(_text(x + 32, head - 8, curve.label, "start"))
        x += 52 + 7 * len(curve.label)
    for number, panel in enumerate(panels):
        drawn = _panel(panel, width, height, titled=bool(title) and panel.title != title)
        parts.append(f'<g transform="translate({number * width} {head})">{drawn}</g>')
    return "\n".join([*parts, "</svg>\n"])


def ticks(highest: float) -> list[float]:
    """Round numbers from 0 to at least `highest`: three to five steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (math.floor(math.log10(highest)) - 1)
    step = next(m * power for m in (1, 2, 5, 10, 20, 50) if math.ceil(highest / (m * power) - 1e-9) <= 5)
    return [i * step for i in range(math.ceil(highest / step - 1e-9) + 1)]


def decades(values: Sequence[float]) -> list[float]:
    """The powers of ten from the least to the largest of some positive numbers."""
    first, last = math.ceil(math.log10(min(values))), math.floor(math.log10(max(values)))
    return [10.0**power for power in range(first, last + 1)]


def _panel(panel: Axes, width: int, height: int, titled: bool) -> str:
    points = [point for curve in panel.curves for point in curve.points]
    places = sorted({x for x, _, _ in points})
    low, high = panel.scale(places[0]), panel.scale(places[-1])
    highest = max([panel.level, panel.top, 1e-9, *(y + error for _, y, error in points)])
    marks = [mark + panel.bottom for mark in ticks(max(1e-9, highest - panel.bottom))]
    least, most = panel.y_scale(panel.bottom), panel.y_scale(marks[-1])
    right, bottom = width - RIGHT - (40 if panel.labelled else 0), height - BOTTOM

    def across(x: float) -> float:
        return LEFT + (right - LEFT) * ((panel.scale(x) - low) / (high - low) if high > low else 0.5)

    def up(y: float) -> float:
        return bottom - (bottom - TOP) * (panel.y_scale(max(panel.bottom, y)) - least) / (most - least)

    parts = [_text(LEFT, TOP - 9, panel.title, "start", 'font-weight="600"')] if titled else []
    for mark in marks:
        parts.append(_line(f"M{LEFT} {up(mark):.1f}H{right}", "currentColor", 'stroke-opacity=".2" stroke-width="1"'))
        parts.append(_text(LEFT - 6, up(mark) + 4, panel.y_text(mark), "end"))
    shown = -math.inf
    for x in panel.x_marks or places:
        if across(x) - shown > LEAST_GAP:
            shown = across(x)
            parts.append(_text(shown, bottom + 15, panel.x_text(x)))
    parts.append(_text((LEFT + right) / 2, height - 6, panel.x_label))
    if panel.level:
        parts.append(_line(f"M{LEFT} {up(panel.level):.1f}H{right}", "currentColor", f'stroke-opacity=".6" {DASHES}'))
    for curve in panel.curves:
        if curve.shows != "points":
            path = "L".join(f"{across(x):.1f},{up(y):.1f}" for x, y, _ in curve.points)
            parts.append(_line("M" + path, curve.color, DASHES if curve.dashed else ""))
        for x, y, error in curve.points if curve.shows != "line" else ():
            if error:
                parts.append(_line(f"M{across(x):.1f} {up(y - error):.1f}V{up(y + error):.1f}", curve.color))
            parts.append(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="3" fill="{curve.color}"/>')
        if panel.labelled:
            x, y, _ = curve.points[-1]
            parts.append(_text(across(x) + 8, up(y) + 4, curve.label, "start", f'fill="{curve.color}"'))
    return "".join(parts)


def _text(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def _line(path: str, color: str, more: str = "") -> str:
    width = "" if "stroke-width" in more else 'stroke-width="2"'
    return f'<path d="{path}" fill="none" stroke="{color}" {width} {more}/>'
