"""Texts that models generated, on the page."""

from __future__ import annotations

import html
from collections.abc import Sequence

CELL = '<td style="white-space:normal;text-align:left;vertical-align:top;min-width:4rem">'


def folded(title: str, rows: Sequence[Sequence[str]]) -> str:
    """A table of texts that opens with a click; the first row has the headings. Everything is escaped."""
    head, *rest = rows
    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = "".join("<tr>" + "".join(f"{CELL}{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rest)
    return (
        f'<details><summary>{html.escape(title)}</summary><div class="scroll"><table>'
        f"<tr>{heads}</tr>{lines}</table></div></details>"
    )
