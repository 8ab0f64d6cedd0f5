"""Tables of text: for a terminal, and in Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Sequence

WIDTH = 80
"""Columns of a terminal."""
LONGEST_LABEL = 20
"""Columns that names take at most; a longer one, such as a path, moves only its own text."""


def counted(number: int, noun: str) -> str:
    """``1 layer``, ``4,096 layers``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def wrapped(text: str, indent: int = 0) -> list[str]:
    """A text in lines of at most `WIDTH` columns, the second and further ones indented; words, such as paths, are kept whole."""
    return textwrap.wrap(
        text, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    ) or [""]


def labelled(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names, and their texts in a column next to them, in lines of at most `WIDTH` columns."""
    indent = 2 + min(LONGEST_LABEL, max(len(name) for name, _ in rows))
    return [line for name, text in rows for line in wrapped(f"{f'{name}  ':<{indent}}{text}", indent)]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int] = (0,)) -> list[str]:
    """One line per row, its cells padded to the width of their column and two spaces apart.

    Args:
        rows: of equally many cells, usually headings first.
        left: columns aligned to the left; the others are aligned to the right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place in left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows))
