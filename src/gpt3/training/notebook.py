"""A run in a notebook: below its cell a table of numbers and the curve of the loss, drawn again while it trains."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from gpt3.report.svg import COLORS, Axes, Line, svg
from gpt3.training.panel import resampled

if TYPE_CHECKING:
    from gpt3.training import panel

POINTS = 40
"""Points of the train loss in the curve: means of neighboring steps."""


class NotebookView:
    """Draws what a `gpt3.training.panel.Panel` holds, with IPython."""

    def __init__(self, shown: panel.Panel) -> None:
        self.shown = shown
        self._display: Any = None

    def start(self) -> None:
        """Put it below the cell."""
        from IPython.display import display

        self._display = display(self, display_id=True)

    def refresh(self) -> None:
        """Draw it again in its place."""
        self._display.update(self)

    stop = refresh

    def __repr__(self) -> str:
        """The table, where a notebook is shown as text."""
        return "\n".join(f"{name}: {text}" for name, text in self.shown.rows())

    def _repr_html_(self) -> str:
        """For IPython: a table, and an SVG once there are losses."""
        cells = "".join(
            f'<tr><th style="text-align:left">{html.escape(name)}</th><td style="text-align:left">{html.escape(text)}</td></tr>'
            for name, text in self.shown.rows()
        )
        return f"<table>{cells}</table>{self._curve()}"

    def _curve(self) -> str:
        (sums, counts), total = self.shown.losses, self.shown.total
        parts = counts.nonzero()[0]
        if not len(parts):
            return ""
        width = min(POINTS, len(parts))
        steps = resampled(((parts + 1) * total / len(counts)).tolist(), width)
        losses = resampled((sums[parts] / counts[parts]).tolist(), width)
        curves = [Line("train", [(x, y, 0.0) for x, y in zip(steps, losses, strict=True)], COLORS[0])]
        if self.shown.held_out:
            curves.append(Line("held-out", [(step, loss, 0.0) for step, loss in self.shown.held_out], COLORS[1]))
        return svg([Axes("loss", curves, "step", "{:,.0f}".format)], legend=curves, width=560, height=240)
